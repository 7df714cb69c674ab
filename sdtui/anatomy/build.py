"""A component from the tensors of its files: modules in depth-first order, with their totals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        total = totals[path]
        modules.append(
            Module(
                path=path,
                class_name=shown,
                guessed=bool(shown and not told),
                own_parameters=total.own,
                total_parameters=total.parameters,
                bytes=total.size,
                dtypes=total.by_bytes(),
                weights=tuple(sorted(weights.values(), key=_by_name)) if weights else (),
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


class _Total:
    """What a branch holds."""

    __slots__ = ("dtypes", "own", "parameters", "size")

    def __init__(self, weights: Iterable[Weight]) -> None:
        self.own = self.size = 0
        self.dtypes: dict[str, int] = {}
        for weight in weights:
            self.own += 0 if weight.buffer else weight.count
            self.size += weight.bytes
            self.dtypes[weight.dtype] = self.dtypes.get(weight.dtype, 0) + weight.bytes
        self.parameters = self.own

    def add(self, branch: _Total) -> None:
        """Take a branch below into account."""
        self.parameters += branch.parameters
        self.size += branch.size
        for dtype, size in branch.dtypes.items():
            self.dtypes[dtype] = self.dtypes.get(dtype, 0) + size

    def by_bytes(self) -> tuple[str, ...]:
        """The dtypes, that of most bytes first."""
        return tuple(sorted(self.dtypes, key=self.dtypes.__getitem__, reverse=True))


def _totals(paths: Sequence[str], owned: Mapping[str, Mapping[str, Weight]]) -> dict[str, _Total]:
    """What each branch holds, from the leaves up."""
    totals = {path: _Total(owned[path].values() if path in owned else ()) for path in paths}
    for path in reversed(paths[1:]):
        totals[path.rpartition(".")[0]].add(totals[path])
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
