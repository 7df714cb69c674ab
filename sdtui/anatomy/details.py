"""The settings that matter of a module: from the shapes of its weights, and from the configuration where shapes do not tell."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

from sdtui.anatomy.files import whole
from sdtui.anatomy.structs import Weight

_MOST_SETTINGS: Final = 100
_LONGEST_SETTING: Final = 300
_NOT_SHOWN: Final = frozenset({"architectures", "dtype", "torch_dtype", "transformers_version", "model_type"})
_HEAD_DIM_64: Final = ("SD 2.x", "SDXL")
"""U-Nets whose heads are 64 wide; those of SD 1.x have 8 heads everywhere."""


def config_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration's entries as text, without those that are empty or say only who wrote it."""
    found = {}
    for key, value in config.items():
        if key.startswith("_") or key in _NOT_SHOWN or value is None or isinstance(value, dict) or value in ([], ""):
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        found[whole(key)] = whole(text[:_LONGEST_SETTING])
        if len(found) == _MOST_SETTINGS:
            break
    return found


def configured_class(path: str, config: Mapping[str, Any]) -> str:
    """The class of a block that the configuration of a U-Net or VAE names; empty for all else."""
    if path.count(".") > 2 or "block" not in path:
        return ""
    where, _, number = path.removeprefix("encoder.").removeprefix("decoder.").partition(".")
    if where == "mid_block" and not number and path == "mid_block":
        return whole(str(config.get("mid_block_type") or ""))
    types = config.get({"down_blocks": "down_block_types", "up_blocks": "up_block_types"}.get(where, ""))
    if isinstance(types, list) and number.isdecimal() and len(number) < 4 and int(number) < len(types):
        return whole(str(types[int(number)]))
    return ""


def weight_settings(class_name: str, weights: Mapping[str, Weight]) -> dict[str, str]:
    """What the shape of a layer's weight says of it."""
    weight = weights.get("weight")
    if weight is None:
        return {}
    shape = weight.shape
    if class_name.startswith("Conv") and len(shape) > 2:
        return {"in": str(shape[1]), "out": str(shape[0]), "kernel": "x".join(map(str, shape[2:]))}
    if class_name == "Linear":
        return {"in": str(shape[1]), "out": str(shape[0])}
    if class_name == "Embedding":
        return {"rows": str(shape[0]), "width": str(shape[1])}
    return {"channels": str(shape[0])} if class_name.endswith("Norm") else {}


class Details:
    """Settings of one component's modules. `family` helps where there is no configuration."""

    def __init__(self, component: str, config: Mapping[str, Any], family: str) -> None:
        self._component = component
        self._config = config
        self._family = family

    def of(
        self, path: str, class_name: str, weights: Mapping[str, Weight], children: Mapping[str, Mapping[str, Weight]]
    ) -> dict[str, str]:
        """The settings of the module at `path`; `children` are the weights of those right below it."""
        found = weight_settings(class_name, weights)
        groups = self._config.get("norm_num_groups")
        if class_name == "GroupNorm" and isinstance(groups, int):
            found["groups"] = str(groups)
        width = _attention_width(weights, children)
        if width:
            found |= self._heads(path, width, children.keys())
        return found

    def _heads(self, path: str, width: int, children: Set[str]) -> dict[str, str]:
        heads = self._number_of_heads(path, width, children)
        return {"heads": str(heads), "head dim": str(width // heads)} if heads and width % heads == 0 else {}

    def _number_of_heads(self, path: str, width: int, children: Set[str]) -> int:
        config = self._config
        if self._component == "vae":
            return 1
        if "block_out_channels" in config:  # diffusers: without num_attention_heads, `attention_head_dim` is their number
            return _of_block(config.get("num_attention_heads") or config.get("attention_head_dim"), path)
        for name in ("num_attention_heads", "num_heads"):
            if isinstance(config.get(name), int):
                return int(config[name])
        if self._component.startswith("text_encoder"):
            return width // 64  # each CLIP and OpenCLIP that Stable Diffusion was made with
        if self._component in ("unet", "controlnet") and "to_q" in children:
            return 8 if self._family.startswith("SD 1.x") else width // 64 if self._family.startswith(_HEAD_DIM_64) else 0
        return 0


def _attention_width(weights: Mapping[str, Weight], children: Mapping[str, Mapping[str, Weight]]) -> int:
    """How wide the queries are, all heads together; 0 for what is no attention."""
    if "in_proj_weight" in weights and weights["in_proj_weight"].shape:
        return weights["in_proj_weight"].shape[0] // 3
    for query, key in (("to_q", "to_k"), ("q_proj", "k_proj"), ("q", "k")):
        if query in children and key in children:
            weight = children[query].get("weight")
            return weight.shape[0] if weight is not None and len(weight.shape) > 1 else 0
    return 0


def _of_block(heads: object, path: str) -> int:
    """The entry for the block that a path lies in: one for all, or one for each way down, and in reverse up again."""
    if isinstance(heads, int):
        return heads
    if not isinstance(heads, list) or not heads or not all(isinstance(entry, int) for entry in heads):
        return 0
    where, _, rest = path.partition(".")
    number = rest.partition(".")[0]
    if where == "mid_block":
        return int(heads[-1])
    if not number.isdecimal() or int(number) >= len(heads):
        return 0
    return int(heads[int(number)] if where == "down_blocks" else heads[-1 - int(number)])
