"""A LoRA on a model's tree: which of its modules it changes, what fits nothing, and how large each change is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sdtui.anatomy.files import Tensors
from sdtui.anatomy.layout import in_diffusers
from sdtui.anatomy.lora import Lora, LoraPair
from sdtui.anatomy.lora_names import flat
from sdtui.anatomy.structs import Anatomy, Component, Module

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FUSED: Final = ("q_proj", "k_proj", "v_proj")
"""Three layers in transformers, one `in_proj_weight` in OpenCLIP."""
_NUMPY_DTYPES: Final = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A change and the module of the model that it changes."""

    pair: LoraPair
    component: str
    path: str
    problem: str = ""


class LoraFit(msgspec.Struct, frozen=True, kw_only=True):
    """What of a LoRA fits a model."""

    placed: tuple[Placed, ...]
    nowhere: tuple[LoraPair, ...]
    unknown: tuple[str, ...]
    """Keys that are no part of a change at all."""

    def at(self, component: str) -> dict[str, Placed]:
        """The changes of one component, by the path of the module."""
        return {placed.path: placed for placed in self.placed if placed.component == component}


def fit(lora: Lora, model: Anatomy) -> LoraFit:
    """Find the module of each change, whichever of the two layouts either side is written in."""
    indexes = {component.name: _Index(component) for component in model.components}
    placed, nowhere = [], []
    for pair in lora.pairs:
        index = indexes.get(pair.component) or (indexes.get("transformer") if pair.component == "unet" else None)
        module = index.find(pair.path) if index else None
        if index is None or module is None:
            nowhere.append(pair)
        else:
            placed.append(Placed(pair=pair, component=index.name, path=module.path, problem=_misfit(pair, module)))
    return LoraFit(placed=tuple(placed), nowhere=tuple(nowhere), unknown=lora.unknown)


class _Index:
    """The modules of a component by either of their names, dots and underscores alike."""

    def __init__(self, component: Component) -> None:
        self.name = component.name
        paths = {module.path: module for module in component.modules}
        self._modules = {flat(path): module for path, module in paths.items()}
        for path, name in in_diffusers(component.name, paths).items():
            self._modules.setdefault(flat(name), paths[path])

    def find(self, path: str) -> Module | None:
        renamed = in_diffusers(self.name, [path]).get(path, path)
        for name in (path, renamed, path.removeprefix("text_model."), f"text_model.{path}"):
            found = self._modules.get(flat(name))
            if found is not None and found.weights:
                return found
            above, _, last = name.rpartition(".")
            fused = self._modules.get(flat(above)) if last in _FUSED else None
            if fused is not None and any(weight.name == "in_proj_weight" for weight in fused.weights):
                return fused
        return None


def _misfit(pair: LoraPair, module: Module) -> str:
    weight = next((weight for weight in module.weights if weight.name == "weight"), None)
    if weight is None or pair.inputs is None or len(weight.shape) < 2 or weight.shape[1] == pair.inputs:
        return ""
    return f"takes {pair.inputs:,} inputs, and the module has {weight.shape[1]:,}"


def change_norms(lora: Lora, tensors: Tensors) -> Iterator[tuple[LoraPair, float]]:
    """The Frobenius norm of each pair's change, alpha / rank · ‖up·down‖, in rank x rank products: the change is never made.

    Reads the factors, one pair at a time. Changes of other kinds, and factors of dtypes that numpy cannot read, are left out.
    """
    for pair in lora.pairs:
        if pair.kind not in ("LoRA", "DoRA") or pair.down is None or pair.up is None:
            continue
        down, up = _matrix(tensors, pair.down), _matrix(tensors, pair.up)
        if down is None or up is None or up.shape[1] != down.shape[0] or pair.mid is not None:
            continue
        squared = float(((up.T @ up) * (down @ down.T)).sum())
        yield pair, abs(pair.scale) * math.sqrt(max(squared, 0.0))


def _matrix(tensors: Tensors, key: str) -> NDArray[np.float64] | None:
    """A factor as a matrix (outputs, everything else)."""
    import numpy as np

    tensor, number = tensors.entries[key]
    data = _read(tensors.files[number], tensor)
    if tensor["dtype"] == "BF16":  # the upper half of a float32
        numbers = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor["dtype"] in _NUMPY_DTYPES:
        numbers = np.frombuffer(data, _NUMPY_DTYPES[tensor["dtype"]])
    else:
        return None
    shape = tensor["shape"]
    return numbers.astype(np.float64).reshape(shape[0], -1) if shape and numbers.size else None


def _read(path: Path, tensor: Mapping[str, Any]) -> bytes:
    begin, end = tensor["data_offsets"]
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little") + begin)
        return file.read(end - begin)
