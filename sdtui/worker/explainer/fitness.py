"""Which pipelines and parameters the sampling functions are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sdtui.checkpoint import CheckpointError, components
from sdtui.params import GenerationParams
from sdtui.text import safe_text
from sdtui.worker.errors import JobProblem, ModelProblem

_PARTS: Final = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
_PREDICTIONS: Final = frozenset({"epsilon", "v_prediction"})
_CONDITIONS: Final = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")
"""Settings of a U-Net that takes more than latents, timestep and text."""
_ONLY: Final = "Explain mode is for pipelines shaped like Stable Diffusion 1.x and 2.x"


def check_params(params: GenerationParams) -> None:
    """Raise `JobProblem` for what the functions do not have."""
    if params.batch_count != 1 or params.batch_size != 1:
        field = "batch_count" if params.batch_count != 1 else "batch_size"
        label = field.replace("_", " ").capitalize()
        raise JobProblem(f"{label} must be 1 in explain mode, which makes one picture; it is {getattr(params, field)}.", field)
    if params.clip_skip:
        raise JobProblem(f"Clip skip must be 0 in explain mode, as the function has none; it is {params.clip_skip}.", "clip_skip")
    if params.safety_checker:
        raise JobProblem("Safety checker must be off in explain mode, as the function has none.", "safety_checker")


def check_folder(path: Path) -> None:
    """Raise `ModelProblem` for a model whose index says already that it is of another family: no weight is read for it."""
    try:
        present = components(path)
    except CheckpointError as error:
        raise ModelProblem(str(error)) from error
    if missing := [name for name in _PARTS if name not in present]:
        raise ModelProblem(f"{_ONLY}; this model has no {_either(missing)}.")
    if more := sorted(name for name in present if name.startswith(("text_encoder_", "tokenizer_", "transformer", "controlnet"))):
        raise ModelProblem(f"{_ONLY}; this model has a {safe_text(more[0], limit=40)} besides.")


def check_pipeline(pipe: Any) -> None:
    """Raise `ModelProblem` for a loaded pipeline whose denoiser takes or predicts something else."""
    unet, vae = pipe.unet, pipe.vae
    channels, latents = int(unet.config.in_channels), int(vae.config.latent_channels)
    if channels != latents:
        raise ModelProblem(f"{_ONLY}; this U-Net takes {channels} channels, where latents have {latents} (an inpainting model?).")
    if given := next((name for name in _CONDITIONS if unet.config.get(name) is not None), None):
        raise ModelProblem(f"{_ONLY}; this U-Net is told more than the text and the timestep ({given}).")
    prediction = str(pipe.scheduler.config.get("prediction_type", "none"))
    if prediction not in _PREDICTIONS:
        shown = safe_text(prediction, limit=40)
        raise ModelProblem(f"{_ONLY} that predict epsilon or v; the scheduler of this one is for {shown}.")
    if vae.config.get("shift_factor"):
        raise ModelProblem(f"{_ONLY}; the latents of this VAE are shifted.")


def _either(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and no " if len(names) > 1 else "") + names[-1]
