"""Configurations of the networks in single files, which bring none: those of the families that are known for sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple


class Known(NamedTuple):
    """A network's class and its configuration."""

    library: str
    class_name: str
    config: Mapping[str, Any]


_UNET_LEVELS: Final = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "sample_size": 64,
}
_UNET_1: Final = {**_UNET_LEVELS, "cross_attention_dim": 768, "attention_head_dim": 8}
_UNET_2: Final = {
    **_UNET_LEVELS,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "sample_size": 96,
}
_UNET_XL: Final = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
}
_VAE: Final = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
_CLIP: Final = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
_CLIP_L: Final = {
    **_CLIP,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
_CLIP_H: Final = {
    **_CLIP,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,  # the last of its 24 layers is never asked
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
_CLIP_BIG_G: Final = {
    **_CLIP,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_UNET_CLASS: Final = ("diffusers", "UNet2DConditionModel")
_THE_VAE: Final = Known("diffusers", "AutoencoderKL", _VAE)
_KNOWN: Final[Mapping[tuple[str, str], Known]] = {
    ("SD 1.x", "unet"): Known(*_UNET_CLASS, _UNET_1),
    ("SD 1.x", "vae"): _THE_VAE,
    ("SD 1.x", "text_encoder"): Known("transformers", "CLIPTextModel", _CLIP_L),
    ("SD 2.x", "unet"): Known(*_UNET_CLASS, _UNET_2),
    ("SD 2.x", "vae"): _THE_VAE,
    ("SD 2.x", "text_encoder"): Known("transformers", "CLIPTextModel", _CLIP_H),
    ("SDXL", "unet"): Known(*_UNET_CLASS, _UNET_XL),
    ("SDXL", "vae"): _THE_VAE,
    ("SDXL", "text_encoder"): Known("transformers", "CLIPTextModel", _CLIP_L),
    ("SDXL", "text_encoder_2"): Known("transformers", "CLIPTextModelWithProjection", _CLIP_BIG_G),
}
_VARIANTS: Final = (" inpainting", " with a picture to edit", " with depth")
"""What the family's name says of a U-Net that takes more channels."""


def known(family: str, component: str, shapes: Mapping[str, tuple[int, ...]]) -> Known | None:
    """The class and configuration of a component of a family; None where that is not known for sure.

    `shapes` are those of the component's tensors; of them the U-Net's input channels are taken.
    """
    for variant in _VARIANTS:
        family = family.removesuffix(variant)
    found = _KNOWN.get((family, component))
    if found is None and component == "vae" and shapes.get("decoder.conv_in.weight") == (512, 4, 3, 3):
        found = _THE_VAE
    if found is None or component != "unet":
        return found
    first = shapes.get("input_blocks.0.0.weight") or shapes.get("conv_in.weight") or ()
    return found._replace(config={**found.config, "in_channels": first[1]}) if len(first) == 4 else found
