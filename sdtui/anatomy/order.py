"""The order of modules that stand beside each other: as the forward pass meets them, where the names are known.

A safetensors file is sorted by name and knows no such order.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_AS_THEY_RUN: Final = (
    "tokenizer", "shared", "embeddings", "token_embedding", "position_embedding", "text_model", "transformer",
    "time_embed", "time_proj", "time_embedding", "time_text_embed", "label_emb", "add_embedding", "x_embedder",
    "context_embedder", "conv_in", "controlnet_cond_embedding", "input_hint_block", "patch_embed", "pos_embed",
    "encoder", "quant_conv", "post_quant_conv", "decoder",
    "input_blocks", "down_blocks", "down", "middle_block", "mid_block", "mid", "output_blocks", "up_blocks", "up",
    "controlnet_down_blocks", "controlnet_mid_block", "zero_convs", "middle_block_out",
    "norm", "proj_in", "ln_1", "layer_norm1", "norm1", "norm1_context", "in_layers", "nonlinearity", "conv1", "attn1",
    "self_attn", "attn", "emb_layers", "time_emb_proj", "ln_2", "layer_norm2", "norm2", "norm2_context", "out_layers", "conv2",
    "attn2", "norm3", "mlp", "ff", "ff_context", "conv_shortcut", "nin_shortcut", "skip_connection",
    "resnets", "block", "transformer_blocks", "attentions", "motion_modules", "downsamplers", "downsample", "upsamplers",
    "upsample", "single_transformer_blocks", "double_blocks", "single_blocks", "joint_blocks",
    "to_q", "to_k", "to_v", "q_proj", "k_proj", "v_proj", "q", "k", "v", "to_out", "out_proj", "fc1", "c_fc", "fc2", "c_proj",
)  # fmt: skip
_THE_REST: Final = len(_AS_THEY_RUN)
_AT_THE_END: Final = ("conv_norm_out", "norm_out", "final_layer_norm", "ln_final", "final_layer", "conv_out", "proj_out", "out")
_RANKS: Final = {name: rank for rank, name in enumerate((*_AS_THEY_RUN, "", *_AT_THE_END))}
_LONGEST_NUMBER: Final = 9
"""Digits; no model has more layers, and longer numbers are slow to read."""


@lru_cache(maxsize=4096)
def sort_key(name: str) -> tuple[int, int, str]:
    """Where a module stands among those beside it; numbers by value."""
    number = int(name) if name.isascii() and name.isdecimal() and len(name) <= _LONGEST_NUMBER else -1
    return _RANKS.get(name, _THE_REST), number, name


def depth_first(paths: Iterable[str]) -> list[str]:
    """These paths and all that lie above them, the empty one first, each before what stands below it."""
    children: dict[str, list[str]] = {"": []}
    for path in paths:
        above = path
        while above not in children:
            children[above] = []
            above = above.rpartition(".")[0]
    for path in list(children)[1:]:
        children[path.rpartition(".")[0]].append(path)
    found, waiting = [], [""]
    while waiting:
        path = waiting.pop()
        found.append(path)
        waiting += sorted(children[path], key=_by_last_part, reverse=True)
    return found


def _by_last_part(path: str) -> tuple[int, int, str]:
    return sort_key(path.rpartition(".")[2])
