"""Which tensors of a file fill which parameters of a network, whatever layout and age the file is of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from torch import nn

from sdtui.anatomy.layout import in_diffusers
from sdtui.anatomy.structs import Weight

_ATTENTION_BEFORE_0_16: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""How diffusers called the VAE's attention before 0.16; it renames them when it loads."""
_IN_PROJ: Final = re.compile(r"(.*\.self_attn|.*\.attn)\.in_proj_(weight|bias)")
_AT_THE_ROOT: Final = {
    "positional_embedding": "embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
}
"""OpenCLIP keeps these two as bare parameters."""
_CONSTANTS: Final = ("position_ids", "logit_scale")
"""They come along in many files, and are taken by no network of a pipeline."""
_WRAPPERS: Final = ("text_model.", "vision_model.")
"""Around CLIP's modules; some releases of transformers have them, some do not."""


class Fit(NamedTuple):
    """How a file and a network fit together."""

    filled: dict[str, tuple[Weight, tuple[int, ...]]]
    """Each parameter or buffer that the file has, with its tensor and the shape that this brings."""
    unexpected: dict[str, Weight]
    """What the network has no place for, by its path in the component."""
    tied: frozenset[str]
    """Parameters that are another one under a second name, and need not be stored."""


def fit(component: str, network: nn.Module, stored: Mapping[str, Weight]) -> Fit:
    """Match a component's tensors, by their paths in it, with what its network expects."""
    expected = network.state_dict(keep_vars=True).keys()
    renamed = in_diffusers(component, {name.rpartition(".")[0] for name in stored})
    ignored = [re.compile(pattern) for pattern in getattr(network, "_keys_to_ignore_on_load_unexpected", None) or ()]
    filled: dict[str, tuple[Weight, tuple[int, ...]]] = {}
    unexpected: dict[str, Weight] = {}
    for name, weight in stored.items():
        found = list(_places(name, weight.shape, renamed, expected))
        filled |= {place: (weight, shape) for place, shape in found}
        if not found and not _is_left_out(name, renamed, network, ignored):
            unexpected[name] = weight
    return Fit(filled, unexpected, _tied(network))


def _places(
    name: str, shape: tuple[int, ...], renamed: Mapping[str, str], expected: Any
) -> Iterator[tuple[str, tuple[int, ...]]]:
    module, _, last = name.rpartition(".")
    plain = f"{renamed.get(module, module)}.{last}".removeprefix(".")
    plain = plain if plain in expected else _AT_THE_ROOT.get(name, plain)
    packed = _IN_PROJ.fullmatch(plain)
    if packed and shape and shape[0] % 3 == 0:
        for part in "qkv":
            place = _known(f"{packed[1]}.{part}_proj.{packed[2]}", expected)
            if place:
                yield place, (shape[0] // 3, *shape[1:])
        return
    place = _known(plain, expected)
    if place:
        yield place, shape


def _known(name: str, expected: Any) -> str | None:
    """The name under which the network has it."""
    for candidate in _spellings(name):
        if candidate in expected:
            return candidate
    return None


def _spellings(name: str) -> Iterator[str]:
    yield name
    for wrapper in _WRAPPERS:
        yield name.removeprefix(wrapper)
        yield wrapper + name
        yield name.replace(wrapper + wrapper, wrapper)
    module, _, last = name.rpartition(".")
    above, _, own = module.rpartition(".")
    if own in _ATTENTION_BEFORE_0_16:
        yield f"{above}.{_ATTENTION_BEFORE_0_16[own]}.{last}"


def _is_left_out(name: str, renamed: Mapping[str, str], network: nn.Module, ignored: list[re.Pattern[str]]) -> bool:
    """Whether those who load the file leave this tensor out as well, and say nothing."""
    if name.endswith(_CONSTANTS) or any(pattern.search(name) for pattern in ignored):
        return True
    module, _, _ = name.rpartition(".")
    layer = re.match(r"encoder\.layers\.(\d+)\.", renamed.get(module, "") + ".")
    layers = getattr(getattr(network, "config", None), "num_hidden_layers", None)
    if layer and isinstance(layers, int):  # SD 2.x never asks the last layer of its OpenCLIP
        return int(layer[1]) >= layers
    return name.endswith("text_projection")


def _tied(network: nn.Module) -> frozenset[str]:
    names: set[str] = set()
    for path, module in network.named_modules():
        tied = getattr(module, "_tied_weights_keys", None) or ()
        names |= {f"{path}.{name}".removeprefix(".") for name in (*tied, *(tied.values() if isinstance(tied, dict) else ()))}
    return frozenset(names)
