"""LoRA files: which modules they change, by what rank and alpha, for which base model, and which keys fit nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sdtui.anatomy.build import build_component
from sdtui.anatomy.family import Family, family_of_lora
from sdtui.anatomy.files import Tensors
from sdtui.anatomy.guess import is_buffer
from sdtui.anatomy.lora_names import LoraKey, parse_key
from sdtui.anatomy.single import component_rank
from sdtui.anatomy.structs import Component, Weight
from sdtui.text import count_noun

_MARKS: Final = ("lora", "hada_w", "lokr_", "dora_scale")
_FLOATS: Final = {"F16": "<e", "F32": "<f", "F64": "<d"}


class LoraPair(msgspec.Struct, frozen=True, kw_only=True):
    """The change of one module: up @ down, times alpha / rank."""

    component: str
    path: str
    rank: int | None = None
    """None for changes of another kind than two low-rank factors."""
    alpha: float | None = None
    """None where the file has none; then the change is applied as it is, alpha = rank."""
    kind: str = "LoRA"
    down: str | None = None
    up: str | None = None
    mid: str | None = None
    """The core of a convolution in Tucker form."""
    inputs: int | None = None
    keys: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return 1.0 if self.alpha is None or not self.rank else self.alpha / self.rank


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA file taken apart."""

    format: str
    pairs: tuple[LoraPair, ...]
    unknown: tuple[str, ...] = ()
    """Keys that belong to no change."""
    family: Family

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur."""
        return tuple(sorted({pair.rank for pair in self.pairs if pair.rank}))


def is_lora(names: Iterable[str]) -> bool:
    """Whether a file with tensors of these names holds changes of a model, and no model."""
    listed = list(names)
    marked = sum(any(mark in name for mark in _MARKS) or name.endswith(".alpha") for name in listed)
    return marked * 2 > len(listed)


def read_lora(tensors: Tensors) -> Lora:
    """The pairs of a file; of the data only the alphas are read, a few bytes each."""
    groups, unknown = _grouped(tensors)
    alphas = _alphas(tensors, groups)
    pairs = tuple(_pair(target, keys, tensors, alphas.get(target)) for target, keys in groups.items())
    formats = [key.format for keys in groups.values() for key in keys.values() if key.role != "alpha"]
    widths = [pair.inputs for pair in pairs if pair.inputs and pair.path.endswith(("attn2.to_k", "attn2.to_v"))]
    family = family_of_lora(widths, {pair.component for pair in pairs}, tensors.entries)
    return Lora(format=max(set(formats), key=formats.count, default=""), pairs=pairs, unknown=unknown, family=family)


_Target = tuple[str, str]
"""Component and path."""


def _grouped(tensors: Tensors) -> tuple[dict[_Target, dict[str, LoraKey]], tuple[str, ...]]:
    groups: dict[_Target, dict[str, LoraKey]] = {}
    unknown = []
    for name in tensors.entries:
        key = parse_key(name)
        if key is None:
            unknown.append(name)
        else:
            groups.setdefault((key.component, key.path), {})[name] = key
    return groups, tuple(unknown)


def _pair(target: _Target, keys: Mapping[str, LoraKey], tensors: Tensors, alpha: float | None) -> LoraPair:
    by_role = {key.role: name for name, key in keys.items()}
    down, up = by_role.get("down"), by_role.get("up")
    shape = tuple(tensors.entries[down][0]["shape"]) if down else ()
    return LoraPair(
        component=target[0],
        path=target[1],
        rank=shape[0] if shape else None,
        alpha=alpha,
        kind=_kind(keys),
        down=down,
        up=up,
        mid=by_role.get("mid"),
        inputs=shape[1] if len(shape) > 1 else None,
        keys=tuple(keys),
    )


def _kind(keys: Mapping[str, LoraKey]) -> str:
    tensors = {key.tensor for key in keys.values()}
    roles = {key.role for key in keys.values()}
    if any(tensor.startswith("hada_") for tensor in tensors):
        return "LoHa"
    if any(tensor.startswith("lokr_") for tensor in tensors):
        return "LoKr"
    if tensors & {"diff", "diff_b"}:
        return "difference"
    return (
        "DoRA" if "dora" in roles else "LoRA" if {"down", "up"} <= roles else "half a pair" if roles & {"down", "up"} else "other"
    )


def _alphas(tensors: Tensors, groups: Mapping[_Target, Mapping[str, LoraKey]]) -> dict[_Target, float]:
    wanted = {name: target for target, keys in groups.items() for name, key in keys.items() if key.role == "alpha"}
    found: dict[_Target, float] = {}
    if tensors.scalars is not None:
        return {target: tensors.scalars[name] for name, target in wanted.items() if name in tensors.scalars}
    for number, path in enumerate(tensors.files):
        here = {name: tensors.entries[name][0] for name in wanted if tensors.entries[name][1] == number}
        for name, value in read_scalars(path, here).items():
            found[wanted[name]] = value
    return found


def read_scalars(path: Path, tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The values of tensors that hold one number each; others are left out."""
    found = {}
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        for name, tensor in tensors.items():
            begin, end = tensor["data_offsets"]
            if not 0 < end - begin <= 8 or any(size != 1 for size in tensor["shape"]):
                continue
            file.seek(start + begin)
            value = _number(file.read(end - begin), tensor["dtype"])
            if value is not None:
                found[name] = value
    return found


def _number(data: bytes, dtype: str) -> float | None:
    if dtype == "BF16" and len(data) == 2:  # the upper half of a float32
        return float(struct.unpack("<f", b"\0\0" + data)[0])
    if dtype in _FLOATS and len(data) == struct.calcsize(_FLOATS[dtype]):
        return float(struct.unpack(_FLOATS[dtype], data)[0])
    return float(int.from_bytes(data, "little", signed=True)) if dtype in ("I16", "I32", "I64") else None


def as_components(found: Lora, tensors: Tensors) -> tuple[Component, ...]:
    """The change as trees like those of a model: each changed module with its factors, rank and alpha."""
    names: dict[str, list[LoraPair]] = {}
    for pair in found.pairs:
        names.setdefault(pair.component, []).append(pair)
    files = tuple(str(path) for path in tensors.files)
    made = []
    for name, pairs in sorted(names.items(), key=lambda entry: component_rank(entry[0])):
        listed = [(pair.path, _weight(key, tensors)) for pair in pairs for key in pair.keys]
        component = build_component(name, listed, family=found.family.name, files=files)
        made.append(_with_pairs(component, {pair.path: pair for pair in pairs}))
    if found.unknown:
        listed = [("", _weight(key, tensors)) for key in found.unknown]
        problem = f"{count_noun(len(found.unknown), 'key')} in no change of a known kind."
        made.append(build_component("other", listed, files=files, problems=(problem,)))
    return tuple(made)


def _weight(key: str, tensors: Tensors) -> Weight:
    tensor, file = tensors.entries[key]
    begin, end = tensor["data_offsets"]
    parsed = parse_key(key)
    name = parsed.tensor if parsed else key
    constant = is_buffer(name) or name == "alpha"
    return Weight(name, tuple(tensor["shape"]), tensor["dtype"], end - begin, key, file, constant)


def _with_pairs(component: Component, pairs: Mapping[str, LoraPair]) -> Component:
    modules = tuple(
        msgspec.structs.replace(module, settings=_settings(pairs[module.path]), problems=_problems(pairs[module.path]))
        if module.path in pairs
        else module
        for module in component.modules
    )
    return msgspec.structs.replace(component, modules=modules)


def _settings(pair: LoraPair) -> dict[str, str]:
    found = {"change": pair.kind}
    if pair.rank:
        found["rank"] = str(pair.rank)
    if pair.alpha is not None:
        found["alpha"] = f"{pair.alpha:g}"
    return found


def _problems(pair: LoraPair) -> tuple[str, ...]:
    if pair.kind == "half a pair":
        return (f"{'up' if pair.up is None else 'down'} factor is missing",)
    return ()
