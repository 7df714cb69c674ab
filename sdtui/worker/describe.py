"""What the UI may know of a loaded pipeline: sizes, schedulers, parameters."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

from sdtui.params import BY_FIELD
from sdtui.protocol import ModelInfo
from sdtui.worker.hardware import Hardware
from sdtui.worker.samplers import own_name, scheduler_choices

_SD_MULTIPLE_PX = 8
"""What the pipelines themselves check; odd latent sizes are taken, as the U-Net upsamples to the size it came from."""


def denoiser(pipe: Any) -> Any:
    """The network that is asked at every step: the U-Net or the transformer; None where there is neither."""
    return getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)


def size_multiple_px(pipe: Any) -> int:
    """Width and height must be multiples of this: of the VAE's factor, times the transformer's patch."""
    factor = int(getattr(pipe, "vae_scale_factor", _SD_MULTIPLE_PX))
    if getattr(pipe, "transformer", None) is None:
        return math.lcm(_SD_MULTIPLE_PX, factor)
    patch = int(pipe.transformer.config.get("patch_size") or 1)
    packed = 2 if hasattr(pipe, "_unpack_latents") else 1  # Flux packs 2x2 latents into one token
    return factor * max(patch, packed)


def default_size_px(pipe: Any) -> tuple[int, int]:
    """Width and height the model was trained at."""
    factor = int(getattr(pipe, "vae_scale_factor", _SD_MULTIPLE_PX))
    sample_size = getattr(pipe, "default_sample_size", None)
    if sample_size is None:
        network = denoiser(pipe)
        sample_size = network.config.get("sample_size") if network is not None else None
    height, width = sample_size if isinstance(sample_size, (tuple, list)) else (sample_size or 64, sample_size or 64)
    largest = int(BY_FIELD["width"].spec.maximum or 4096)
    return min(int(width) * factor, largest), min(int(height) * factor, largest)


def describe(model: str, path: Path, pipe: Any, hardware: Hardware) -> ModelInfo:
    """Everything of `ModelInfo`, from the pipeline itself."""
    width_px, height_px = default_size_px(pipe)
    network = denoiser(pipe)
    vae = getattr(pipe, "vae", None)
    tokenizer = getattr(pipe, "tokenizer", None)
    folder = path / "tokenizer"
    arguments = inspect.signature(type(pipe).__call__).parameters
    return ModelInfo(
        model=model,
        path=str(path),
        pipeline_class=type(pipe).__name__,
        device=str(hardware.device),
        dtype=hardware.dtype_name,
        default_width_px=width_px,
        default_height_px=height_px,
        size_multiple_px=size_multiple_px(pipe),
        latent_channels=int(vae.config.get("latent_channels", 4)) if vae is not None else network.config.get("in_channels", 3),
        prediction_type=str(pipe.scheduler.config.get("prediction_type") or "flow"),
        max_tokens=int(tokenizer.model_max_length) if tokenizer is not None else 0,
        tokenizer_dir=str(folder) if folder.is_dir() else None,
        default_scheduler=own_name(pipe.scheduler),
        schedulers=scheduler_choices(pipe.scheduler),
        parameters=count_parameters(pipe),
        guides="negative_prompt" in arguments and "guidance_scale" in arguments,
    )


def count_parameters(pipe: Any) -> dict[str, int]:
    """How many parameters each component has, for those that have any."""
    networks = {name: part for name, part in pipe.components.items() if hasattr(part, "parameters")}
    return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
