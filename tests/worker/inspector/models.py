"""Model folders that hold configurations alone, and single files that hold a header alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdtui.bench.layouts import Shapes

SD14: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "unet": (
        "diffusers",
        "UNet2DConditionModel",
        {
            "act_fn": "silu",
            "attention_head_dim": 8,
            "block_out_channels": [320, 640, 1280, 1280],
            "center_input_sample": False,
            "cross_attention_dim": 768,
            "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
            "downsample_padding": 1,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "in_channels": 4,
            "layers_per_block": 2,
            "mid_block_scale_factor": 1,
            "norm_eps": 1e-05,
            "norm_num_groups": 32,
            "out_channels": 4,
            "sample_size": 64,
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        },
    ),
    "vae": (
        "diffusers",
        "AutoencoderKL",
        {
            "act_fn": "silu",
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "in_channels": 3,
            "latent_channels": 4,
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "out_channels": 3,
            "sample_size": 512,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
    ),
    "text_encoder": (
        "transformers",
        "CLIPTextModel",
        {
            "hidden_act": "quick_gelu",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "max_position_embeddings": 77,
            "model_type": "clip_text_model",
            "num_attention_heads": 12,
            "num_hidden_layers": 12,
            "torch_dtype": "float32",
            "vocab_size": 49408,
        },
    ),
}
"""The architecture of Stable Diffusion 1.4, as its model card and configurations say it."""


def write_folder(folder: Path, components: Mapping[str, tuple[str, str, dict[str, Any]]], pipeline: str) -> Path:
    """A diffusers folder with these components' configurations, and no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {"_class_name": pipeline} | {name: [library, kind] for name, (library, kind, _) in components.items()}
    (folder / "model_index.json").write_text(json.dumps(index))
    for name, (_, _, config) in components.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps(config))
    return folder


def sd14(folder: Path, **changed: dict[str, Any]) -> Path:
    """SD 1.4 without weights; `changed` are entries of a component's configuration."""
    parts = {name: (library, kind, config | changed.get(name, {})) for name, (library, kind, config) in SD14.items()}
    return write_folder(folder, parts, "StableDiffusionPipeline")


def open_clip(width: int, layers: int, prefix: str) -> Shapes:
    """A text encoder under OpenCLIP's names, where one matrix holds queries, keys and values."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "token_embedding.weight": (49408, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for layer in range(layers):
        parts: dict[str, tuple[int, ...]] = {
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
            "mlp.c_fc.weight": (4 * width, width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (width, 4 * width),
            "mlp.c_proj.bias": (width,),
        }
        parts |= {f"ln_{norm}.{name}": (width,) for norm in (1, 2) for name in ("weight", "bias")}
        shapes |= {f"transformer.resblocks.{layer}.{name}": shape for name, shape in parts.items()}
    return {prefix + name: shape for name, shape in shapes.items()}
