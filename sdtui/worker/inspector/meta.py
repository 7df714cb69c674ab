"""A component's modules as its class makes them, merged with what its files hold, and what does not fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from sdtui.anatomy.details import config_settings
from sdtui.anatomy.structs import Anatomy, Component, Module, Weight
from sdtui.anatomy.tree import parent_path
from sdtui.text import safe_text
from sdtui.worker.inspector.keys import Fit, fit
from sdtui.worker.inspector.opened import Opened, open_component, stored
from sdtui.worker.inspector.settings import module_settings

_MOST_PROBLEMS: Final = 20
"""Of one module; a wrong file can have thousands."""


def read_modules(anatomy: Anatomy, name: str) -> Component:
    """The component from its class, or, where there is none, from its files alone. Raises `InspectionProblem`."""
    opened = open_component(anatomy, name)
    if opened.network is None:
        component = opened.component
        problems = (*component.problems, opened.why) if opened.why else component.problems
        return Component(
            name=component.name,
            class_name=component.class_name,
            library=component.library,
            modules=component.modules,
            files=component.files,
            problems=problems,
        )
    return _merge(opened, opened.network)


def _merge(opened: Opened, network: nn.Module) -> Component:
    component = opened.component
    in_files = stored(component)
    fitted = fit(component.name, network, in_files)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict(keep_vars=True).items()}
    paths = {path for path, _ in network.named_modules()}
    problems = _problems(expected, fitted, paths) if in_files else {}
    modules = _modules(network, fitted, problems, opened.config)
    said = list(component.problems)
    if not in_files and expected and not said:
        said.append("There are no weights; the modules are those of the configuration.")
    return Component(
        name=component.name,
        class_name=type(network).__name__,
        library=type(network).__module__.split(".")[0],
        modules=modules,
        files=component.files,
        problems=tuple(said),
    )


def _problems(expected: Mapping[str, tuple[int, ...]], fitted: Fit, paths: Iterable[str]) -> dict[str, list[str]]:
    """What is missing, unexpected or of another shape, at the module where it should be, or the closest one there is."""
    known, found = set(paths), dict[str, list[str]]()
    for name, shape in expected.items():
        path, _, last = name.rpartition(".")
        if name not in fitted.filled:
            if name not in fitted.tied:
                found.setdefault(path, []).append(f"{last} is missing: {list(shape)} is expected")
        elif not _same(fitted.filled[name][1], shape):
            brought = list(fitted.filled[name][1])
            found.setdefault(path, []).append(f"{last} has the shape {brought}, and {list(shape)} is expected")
    for name, weight in fitted.unexpected.items():
        path = parent_path(name)
        while path and path not in known:
            path = parent_path(path)
        shown = safe_text(name.removeprefix(path).removeprefix("."), limit=80)
        found.setdefault(path, []).append(f"{shown} {list(weight.shape)} is in the file, and has no place here")
    return found


def _same(brought: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Kernels of one pixel and matrices are the same numbers."""
    while len(brought) > len(expected) and brought[-1] == 1:
        brought = brought[:-1]
    return brought == expected


class _Branch(NamedTuple):
    """What a module holds with all that is below it."""

    parameters: int
    size: int
    dtypes: dict[str, int]


def _modules(network: nn.Module, fitted: Fit, problems: Mapping[str, list[str]], config: Mapping[str, Any]) -> tuple[Module, ...]:
    listed = list(network.named_modules())
    weights = {path: _weights(path, module, fitted) for path, module in listed}
    branches = _branches([path for path, _ in listed], weights)
    made = []
    for path, module in listed:
        branch = branches[path]
        made.append(
            Module(
                path=path,
                class_name=type(module).__name__,
                own_parameters=sum(weight.count for weight in weights[path] if not weight.buffer),
                total_parameters=branch.parameters,
                bytes=branch.size,
                dtypes=tuple(sorted(branch.dtypes, key=branch.dtypes.__getitem__, reverse=True)),
                weights=weights[path],
                settings=module_settings(module) if path else config_settings(config),
                problems=_few(problems.get(path, [])),
            )
        )
    return tuple(made)


def _weights(path: str, module: nn.Module, fitted: Fit) -> tuple[Weight, ...]:
    """A module's own parameters and stored buffers, with dtype, bytes and key of the file where it has them."""
    left_out = module._non_persistent_buffers_set
    own: list[tuple[str, torch.Tensor, bool]] = [(name, tensor, False) for name, tensor in module.named_parameters(recurse=False)]
    own += [(name, tensor, True) for name, tensor in module.named_buffers(recurse=False) if name not in left_out]
    made = []
    for name, tensor, is_buffer in own:
        shape = tuple(tensor.shape)
        found = fitted.filled.get(f"{path}.{name}".removeprefix("."))
        if found is None:
            made.append(Weight(name, shape, "", 0, buffer=is_buffer))
            continue
        weight = found[0]
        packed = max(1, weight.count // max(1, _count(found[1])))  # OpenCLIP keeps three matrices as one
        made.append(Weight(name, shape, weight.dtype, weight.bytes // packed, weight.key, weight.file, is_buffer))
    return tuple(made)


def _count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _branches(paths: list[str], weights: Mapping[str, tuple[Weight, ...]]) -> dict[str, _Branch]:
    parameters, sizes = dict.fromkeys(paths, 0), dict.fromkeys(paths, 0)
    dtypes: dict[str, dict[str, int]] = {path: {} for path in paths}
    for path in paths:
        for weight in weights[path]:
            above = path
            while True:
                parameters[above] += 0 if weight.buffer else weight.count
                sizes[above] += weight.bytes
                if weight.dtype:
                    dtypes[above][weight.dtype] = dtypes[above].get(weight.dtype, 0) + weight.bytes
                if not above:
                    break
                above = parent_path(above)
    return {path: _Branch(parameters[path], sizes[path], dtypes[path]) for path in paths}


def _few(problems: list[str]) -> tuple[str, ...]:
    if len(problems) <= _MOST_PROBLEMS:
        return tuple(problems)
    return (*problems[:_MOST_PROBLEMS], f"and {len(problems) - _MOST_PROBLEMS:,} more like these")
