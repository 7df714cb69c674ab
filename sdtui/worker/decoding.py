"""From latents to pictures, as a stage of its own: it can be cancelled, and repeated with more precision or less memory."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from sdtui.worker.errors import JobProblem
from sdtui.worker.previews import decode


@torch.no_grad()
def decode_latents(pipe: Any, latents: torch.Tensor) -> tuple[torch.Tensor, str]:
    """(B, C, h, w) latents -> (B, 3, H, W) in about [-1, 1], bit for bit as the SD pipelines do it, and a note for the log.

    Where a half-precision VAE overflows, it works in float32; the note says so.
    Raises `JobProblem` when the latents themselves are no numbers.
    """
    if not bool(torch.isfinite(latents).all()):
        raise JobProblem(
            "The latents are not numbers any more (NaN or infinity): try another scheduler, fewer steps, less guidance, "
            "or dtype float32."
        )
    picture, note = decode(pipe.vae, latents), ""
    if not bool(torch.isfinite(picture).all()) and pipe.vae.dtype != torch.float32:
        picture, note = _in_float32(pipe.vae, latents), f"in float32, as {pipe.vae.dtype} overflowed".replace("torch.", "")
    return picture, note


def _in_float32(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    dtype = vae.dtype
    vae.to(torch.float32)
    try:
        return decode(vae, latents.float())
    finally:
        vae.to(dtype)


@torch.no_grad()
def to_images(pipe: Any, pictures: torch.Tensor, safety: dict[str, Any] | None) -> tuple[list[Image.Image], list[bool]]:
    """(B, 3, H, W) -> pictures, and for each whether the safety checker blacked it out; `safety` is None when it is off."""
    flagged = [False] * pictures.shape[0]
    if safety is not None:
        before = {name: getattr(pipe, name, None) for name in safety}
        try:
            for name, part in safety.items():
                setattr(pipe, name, part)
            pictures, found = pipe.run_safety_checker(pictures, pictures.device, pipe.text_encoder.dtype)
            flagged = [bool(value) for value in found or flagged]
        finally:
            for name, part in before.items():
                setattr(pipe, name, part)
    images = pipe.image_processor.postprocess(pictures, output_type="pil", do_denormalize=[not value for value in flagged])
    return list(images), flagged
