"""Pictures of the x0 prediction while it forms: which method, how often, how large. They change nothing of the job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from sdtui.protocol import PreviewOptions
from sdtui.worker.linear import LinearMap

Method = Literal["linear", "vae"]


@dataclass
class PreviewKit:
    """What a loaded model has to make previews with."""

    vae: Any | None
    """For full decodes; None where the pipeline decodes in a way of its own."""
    linear: LinearMap | None
    vae_s_per_px: float | None = None
    """Seconds a full decode takes for each pixel of the picture, from the last one; None before the first."""


@dataclass(frozen=True)
class Preview:
    """One frame, still on the device."""

    rgb: torch.Tensor
    """(H, W, 3), uint8"""
    method: Method


class Previewer:
    """Decides for each step of a job whether a frame is due and how it is made, and makes it."""

    def __init__(self, kit: PreviewKit, options: PreviewOptions, picture_px: int) -> None:
        self._kit = kit
        self._options = options
        self._picture_px = picture_px
        self._last_at = float("-inf")
        self._interval_s = 1.0 / max(options.max_per_s, 1e-3)

    def is_due(self, index: int, total: int) -> bool:
        """Whether this step gets a frame: the first and the last always, the others as often as the client asked for."""
        if self._options.method == "off" or (self._kit.linear is None and self._kit.vae is None):
            return False
        return index in (0, total - 1) or time.perf_counter() - self._last_at >= self._interval_s

    def method(self, step_s: float) -> Method:
        """`auto` takes the full VAE while it costs less than `budget` of the time between two frames."""
        kit, options = self._kit, self._options
        if kit.vae is None or kit.linear is None:
            return "vae" if kit.linear is None else "linear"
        if options.method != "auto":
            return "vae" if options.method == "vae" else "linear"
        if kit.vae_s_per_px is None:
            return "linear"
        cheap = kit.vae_s_per_px * self._picture_px <= options.budget * max(step_s, self._interval_s)
        return "vae" if cheap else "linear"

    @torch.no_grad()
    def render(self, denoised: torch.Tensor, step_s: float) -> Preview:
        """A frame of the first picture of `denoised`, (B, C, h, w) as the sampler holds it; its longer side at most `max_px`."""
        self._last_at = time.perf_counter()
        if self._kit.linear is not None and self.method(step_s) == "linear":
            return Preview(self._kit.linear(shrink(denoised[0], self._options.max_px)), "linear")
        picture = decode(self._kit.vae, denoised[:1])[0].float()
        self._kit.vae_s_per_px = _cost_per_px(picture, self._last_at)
        return Preview(to_rgb(shrink(picture, self._options.max_px)), "vae")


def _cost_per_px(picture: torch.Tensor, since: float) -> float | None:
    if picture.device.type == "cuda":
        torch.cuda.synchronize(picture.device)
    return (time.perf_counter() - since) / (picture.shape[-1] * picture.shape[-2])


def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) latents as the sampler holds them -> (B, 3, H, W) in [-1, 1], as the SD pipelines do it."""
    scaled = latents / vae.config.scaling_factor
    shift = vae.config.get("shift_factor")
    picture: torch.Tensor = vae.decode(scaled + shift if shift else scaled, return_dict=False)[0]
    return picture


def shrink(picture: torch.Tensor, max_px: int) -> torch.Tensor:
    """(C, H, W) -> the same picture, or latents, with the longer side at most `max_px`, by averaging; never enlarged."""
    height, width = picture.shape[-2:]
    longer = max(height, width)
    if longer <= max_px:
        return picture
    size = (max(1, round(height * max_px / longer)), max(1, round(width * max_px / longer)))
    return F.interpolate(picture[None], size=size, mode="area")[0]


def to_rgb(picture: torch.Tensor) -> torch.Tensor:
    """(3, H, W) in [-1, 1] -> (H, W, 3) uint8; values outside are cut, and what is no number is black."""
    return picture.nan_to_num(-1.0).add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
