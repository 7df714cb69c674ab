"""What a module is, read off the names and shapes of its weights, where no configuration says it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

from sdtui.anatomy.structs import Weight

_CONVOLUTIONS: Final = {3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}
_BUFFERS: Final = frozenset({
    "position_ids", "running_mean", "running_var", "num_batches_tracked", "inv_freq", "betas", "alphas_cumprod",
    "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "sigmas", "log_sigmas", "num_updates", "decay",
})  # fmt: skip
_BLOCKS: Final[tuple[tuple[frozenset[str], str], ...]] = (
    (frozenset({"attn1", "ff"}), "BasicTransformerBlock"),
    (frozenset({"norm1", "conv1", "norm2", "conv2"}), "ResnetBlock2D"),
    (frozenset({"in_layers", "out_layers"}), "ResBlock"),
    (frozenset({"proj_in", "proj_out", "transformer_blocks"}), "Transformer2DModel"),
    (frozenset({"to_q", "to_k", "to_v"}), "Attention"),
    (frozenset({"q", "k", "v", "proj_out"}), "AttnBlock"),
    (frozenset({"self_attn", "mlp"}), "CLIPEncoderLayer"),
    (frozenset({"q_proj", "k_proj", "v_proj"}), "CLIPAttention"),
    (frozenset({"fc1", "fc2"}), "CLIPMLP"),
)
"""Children by which a block is known: the classes of diffusers and transformers, or of the first Stable Diffusion."""


def is_buffer(name: str) -> bool:
    """Whether a tensor of this name is a constant, and no parameter."""
    return name in _BUFFERS


def guess_class(path: str, weights: Mapping[str, Weight], children: Set[str]) -> str:
    """The likely class of a module; empty where names and shapes do not tell."""
    if children:
        return _guess_block(children)
    if "in_proj_weight" in weights:
        return "MultiheadAttention"
    weight = weights.get("weight")
    if weight is None:
        return ""
    dimensions = len(weight.shape)
    name = path.rpartition(".")[2]
    if dimensions == 1:
        return _guess_norm(path, name, has_bias="bias" in weights)
    if dimensions == 2:
        is_table = "bias" not in weights and ("embedding" in name or name in ("shared", "embed_tokens"))
        return "Embedding" if is_table else "Linear"
    return _CONVOLUTIONS.get(dimensions, "")


def _guess_block(children: Set[str]) -> str:
    for names, class_name in _BLOCKS:
        if names <= children:
            return class_name
    return "ModuleList" if all(name.isdecimal() for name in children) else ""


def _guess_norm(path: str, name: str, *, has_bias: bool) -> str:
    if not has_bias:
        return "RMSNorm"
    if "layer_norm" in name or "layrnorm" in name or name.startswith("ln_") or ".transformer_blocks." in f".{path}.":
        return "LayerNorm"
    return "GroupNorm"
