"""The settings of a built module that decide what it computes, by the same names as the anatomy of files has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn


def _times(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _convolution(module: Any) -> dict[str, str]:
    found = {
        "in": str(module.in_channels),
        "out": str(module.out_channels),
        "kernel": _times(module.kernel_size),
        "stride": _times(module.stride),
        "padding": _times(module.padding),
    }
    if module.groups != 1:
        found["groups"] = str(module.groups)
    return found | _without_bias(module)


def _linear(module: Any) -> dict[str, str]:
    return {"in": str(module.in_features), "out": str(module.out_features)} | _without_bias(module)


def _without_bias(module: Any) -> dict[str, str]:
    return {"bias": "none"} if getattr(module, "bias", None) is None else {}


def _group_norm(module: Any) -> dict[str, str]:
    return {"groups": str(module.num_groups), "channels": str(module.num_channels), "eps": f"{module.eps:g}"}


def _layer_norm(module: Any) -> dict[str, str]:
    found = {"channels": _times(module.normalized_shape), "eps": f"{module.eps:g}"}
    return found if module.elementwise_affine else found | {"affine": "no"}


_LAYERS: Final[tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[Any], dict[str, str]]], ...]] = (
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d), _convolution),
    (nn.Linear, _linear),
    (nn.GroupNorm, _group_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.Embedding, lambda module: {"rows": str(module.num_embeddings), "width": str(module.embedding_dim)}),
    (nn.Dropout, lambda module: {"p": f"{module.p:g}"}),
)
_BLOCKS: Final[Mapping[str, str]] = {
    "in_channels": "in",
    "out_channels": "out",
    "channels": "channels",
    "num_channels": "channels",
    "dim": "width",
    "embed_dim": "width",
    "heads": "heads",
    "num_heads": "heads",
    "num_attention_heads": "heads",
    "n_heads": "heads",
    "head_dim": "head dim",
    "attention_head_dim": "head dim",
    "key_value_proj_dim": "head dim",
    "cross_attention_dim": "context",
    "eps": "eps",
    "variance_epsilon": "eps",
    "use_conv": "convolution",
    "time_embedding_norm": "time",
    "output_scale_factor": "output scale",
}
"""Attributes of the libraries' own modules -> what they are called here; of two of one name the first counts."""


def module_settings(module: nn.Module) -> dict[str, str]:
    """What decides over a module's computation, as text; empty for a mere container."""
    for kinds, read in _LAYERS:
        if isinstance(module, kinds):
            return read(module)
    own = vars(module)  # not by getattr: that of diffusers looks into the configuration, and warns
    found: dict[str, str] = {}
    for attribute, name in _BLOCKS.items():
        value = own.get(attribute)
        if name not in found and isinstance(value, int | float | str):
            found[name] = f"{value:g}" if isinstance(value, float) else str(value)
    inner, heads = own.get("inner_dim"), own.get("heads")
    if "head dim" not in found and isinstance(inner, int) and isinstance(heads, int) and heads:
        found["head dim"] = str(inner // heads)
    return found
