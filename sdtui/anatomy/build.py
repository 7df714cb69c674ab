"""A component from the tensors of its files: modules in depth-first order, with their totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sdtui.anatomy.details import Details, config_settings, configured_class
from sdtui.anatomy.guess import guess_class, is_buffer
from sdtui.anatomy.order import depth_first
from sdtui.anatomy.structs import Component, Module, Weight

_FIRST_WEIGHTS: Final = {"weight": 0, "bias": 1}
Tensors = Sequence[tuple[str, Weight]]
"""Each tensor with the path of the module that owns it."""


def weight_at(path: str, key: str, tensor: Mapping[str, Any], file: int) -> tuple[str, Weight]:
    """A tensor of a header and its module, from the tensor's path in the component; `key` is its name in the file."""
    module, _, name = path.rpartition(".")
    begin, end = tensor["data_offsets"]
    return module, Weight(name, tuple(tensor["shape"]), tensor["dtype"], end - begin, key, file, is_buffer(name))


def build_component(
    name: str,
    tensors: Tensors,
    *,
    class_name: str = "",
    library: str = "",
    config: Mapping[str, Any] | None = None,
    family: str = "unknown",
    files: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> Component:
    """The component that these tensors make up; without any it is a single module with the configuration's settings."""
    owned = _owned(tensors)
    paths = depth_first(owned)
    children: dict[str, dict[str, Mapping[str, Weight]]] = {}
    for path in paths[1:]:
        above, _, last = path.rpartition(".")
        children.setdefault(above, {})[last] = owned.get(path, {})
    totals = _totals(paths, owned)
    details = Details(name, config or {}, family)
    modules = []
    for path in paths:
        weights, below = owned.get(path, {}), children.get(path, {})
        told = configured_class(path, config or {}) if path else class_name
        shown = told or (guess_class(path, weights, below.keys()) if path else "")
        parameters, size, dtypes = totals[path]
        modules.append(
            Module(
                path=path,
                class_name=shown,
                guessed=bool(shown and not told),
                own_parameters=_parameters(weights),
                total_parameters=parameters,
                bytes=size,
                dtypes=tuple(dtype for dtype, _ in dtypes.most_common()),
                weights=tuple(sorted(weights.values(), key=_by_name)),
                settings=details.of(path, shown, weights, below) if path else config_settings(config or {}),
                problems=_odd_shapes(weights),
            )
        )
    return Component(
        name=name, class_name=class_name, library=library, modules=tuple(modules), files=tuple(files), problems=tuple(problems)
    )


def _owned(tensors: Tensors) -> dict[str, dict[str, Weight]]:
    """Each module's own tensors by name; where hostile names such as `x` and `.x` meet, both stay."""
    owned: dict[str, dict[str, Weight]] = {}
    for path, weight in tensors:
        here, name = owned.setdefault(path, {}), weight.name
        while name in here:
            name += "'"
        here[name] = weight
    return owned


def _by_name(weight: Weight) -> tuple[int, str]:
    return _FIRST_WEIGHTS.get(weight.name, len(_FIRST_WEIGHTS)), weight.name


def _parameters(weights: Mapping[str, Weight]) -> int:
    return sum(weight.count for weight in weights.values() if not weight.buffer)


def _totals(paths: Sequence[str], owned: Mapping[str, Mapping[str, Weight]]) -> dict[str, tuple[int, int, Counter[str]]]:
    """Parameters, bytes, and bytes a dtype, of each branch; from the leaves up."""
    totals: dict[str, tuple[int, int, Counter[str]]] = {path: (0, 0, Counter()) for path in paths}
    for path in reversed(paths):
        weights = owned.get(path, {})
        parameters, size, dtypes = totals[path]
        parameters += _parameters(weights)
        for weight in weights.values():
            size += weight.bytes
            dtypes[weight.dtype] += weight.bytes
        totals[path] = parameters, size, dtypes
        if path:
            above = path.rpartition(".")[0]
            others, more, kinds = totals[above]
            kinds.update(dtypes)
            totals[above] = others + parameters, more + size, kinds
    return totals


def _odd_shapes(weights: Mapping[str, Weight]) -> tuple[str, ...]:
    """Whether weight and bias of a layer disagree; packed weights of fewer bits have shapes of their own."""
    weight, bias = weights.get("weight"), weights.get("bias")
    if weight is None or bias is None or not weight.shape or "F" not in weight.dtype:
        return ()
    outputs = weight.shape[:1] if len(weight.shape) <= 2 else weight.shape[:2]  # a transposed convolution has them second
    if len(bias.shape) == 1 and bias.shape[0] in outputs:
        return ()
    return (f"weight has {weight.shape[0]} outputs, and bias the shape {list(bias.shape)}",)
