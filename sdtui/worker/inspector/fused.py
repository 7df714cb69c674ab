"""Attention as devices compute it: in one kernel that never writes its scores down."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class FusedAttention(TorchFunctionMode):
    """On the meta device torch takes attention apart into products and a softmax; this keeps it whole."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace scaled dot product attention; all else runs as it is."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _fused(*args, **kwargs)
        return func(*args, **kwargs)


def _fused(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
    """query: (B, heads, S, d), key and value: (B, heads, T, d) -> (B, heads, S, d); masks change no shape."""
    heads = query.shape[-3]
    if key.shape[-3] != heads:  # grouped queries
        key, value = (part.expand(*part.shape[:-3], heads, *part.shape[-2:]) for part in (key, value))
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, False)[0]
