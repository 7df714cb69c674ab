"""The layout Stable Diffusion was first released in -> that of diffusers: the same module under both names.

By rule, for U-Nets with two residual blocks a level (SD 1.x, 2.x, SDXL), the KL autoencoder, and CLIP with OpenCLIP.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

_LEVEL: Final = 3
"""Entries of `input_blocks` and `output_blocks` a level: two residual blocks and what changes the size; three on the way up."""
_RESNET: Final = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET: Final = {
    "time_embed": "time_embedding",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block": "mid_block",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_MIDDLE: Final = {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}
_VAE: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"\.down\.(\d+)\.block\."), r".down_blocks.\1.resnets."),
    (re.compile(r"\.down\.(\d+)\.downsample\b"), r".down_blocks.\1.downsamplers.0"),
    (re.compile(r"\.mid\.block_1\b"), ".mid_block.resnets.0"),
    (re.compile(r"\.mid\.block_2\b"), ".mid_block.resnets.1"),
    (re.compile(r"\.mid\.attn_1\.norm\b"), ".mid_block.attentions.0.group_norm"),
    (re.compile(r"\.mid\.attn_1\.proj_out\b"), ".mid_block.attentions.0.to_out.0"),
    (re.compile(r"\.mid\.attn_1\.([qkv])\b"), r".mid_block.attentions.0.to_\1"),
    (re.compile(r"\.mid\.attn_1\b"), ".mid_block.attentions.0"),
    (re.compile(r"\.mid\b"), ".mid_block"),
    (re.compile(r"\.nin_shortcut\b"), ".conv_shortcut"),
    (re.compile(r"^(encoder|decoder)\.norm_out\b"), r"\1.conv_norm_out"),
)
_VAE_UP: Final = re.compile(r"\.up\.(\d{1,3})\.(block|upsample)\b")
_OPENCLIP: Final = (
    ("transformer.resblocks.", "encoder.layers."),
    (".attn", ".self_attn"),
    (".mlp.c_fc", ".mlp.fc1"),
    (".mlp.c_proj", ".mlp.fc2"),
    (".ln_1", ".layer_norm1"),
    (".ln_2", ".layer_norm2"),
)


def in_diffusers(component: str, paths: Collection[str]) -> dict[str, str]:
    """Those of a component's module paths that diffusers and transformers call otherwise, and how."""
    if component in ("unet", "controlnet", "unet_ema"):
        known = paths if isinstance(paths, set | frozenset | dict) else set(paths)
        pairs = [(path, _unet(path, known)) for path in paths]
    elif component == "vae":
        ups = [int(found[1]) for path in paths if (found := _VAE_UP.search(path))]
        pairs = [(path, _vae(path, max(ups, default=0))) for path in paths]
    elif component.startswith("text_encoder"):
        pairs = [(path, _text(path)) for path in paths]
    else:
        pairs = []
    return {path: name for path, name in pairs if name not in (None, path)}


def _unet(path: str, known: Collection[str]) -> str | None:
    if path in _UNET:
        return _UNET[path]
    where, *rest = path.split(".")
    if where == "middle_block" and rest and rest[0] in _MIDDLE:
        return _inside(_MIDDLE[rest[0]], rest[1:])
    if where not in ("input_blocks", "output_blocks") or len(rest) < 2 or not all(_is_small(part) for part in rest[:2]):
        return None
    number, slot = int(rest[0]), int(rest[1])
    if where == "input_blocks":
        return _down(number - 1, slot, rest[2:])
    block, layer = divmod(number, _LEVEL)
    if slot == 2 or f"output_blocks.{number}.{slot}.conv" in known:
        return ".".join([f"up_blocks.{block}.upsamplers.0", *rest[2:]])
    return _inside(f"up_blocks.{block}.{'attentions' if slot else 'resnets'}.{layer}", rest[2:])


def _down(number: int, slot: int, rest: Sequence[str]) -> str | None:
    if number < 0:
        return None
    block, layer = divmod(number, _LEVEL)
    if layer == _LEVEL - 1:
        return ".".join([f"down_blocks.{block}.downsamplers.0", *("conv" if part == "op" else part for part in rest)])
    return _inside(f"down_blocks.{block}.{'attentions' if slot else 'resnets'}.{layer}", rest)


def _inside(block: str, rest: Sequence[str]) -> str | None:
    """A module of a residual block by its other name; those of attention have the same in both layouts."""
    if not rest:
        return block
    if ".attentions." in block:
        return ".".join([block, *rest])
    name = _RESNET.get(".".join(rest))
    return f"{block}.{name}" if name else None


def _is_small(part: str) -> bool:
    return part.isascii() and part.isdecimal() and len(part) < 4


def _vae(path: str, last: int) -> str:
    for pattern, name in _VAE:
        path = pattern.sub(name, path)
    found = _VAE_UP.search(path)
    if found is None:
        return path
    part = "resnets" if found[2] == "block" else "upsamplers.0"
    return f"{path[: found.start()]}.up_blocks.{last - int(found[1])}.{part}{path[found.end() :]}"


def _text(path: str) -> str:
    path = path.removeprefix("text_model.").removeprefix("model.")
    if path.startswith("transformer.resblocks."):
        for old, new in _OPENCLIP:
            path = path.replace(old, new)
    return {"ln_final": "final_layer_norm", "token_embedding": "embeddings.token_embedding"}.get(path, path)
