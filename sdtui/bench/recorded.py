"""Recorded jobs for measurements and tests: smooth latents that come out of noise, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save

from sdtui import tape
from sdtui.params import GenerationParams
from sdtui.tape import Tape
from sdtui.trajectory import INITIAL, LinearFactors, TrajectoryFacts, TrajectoryFile, tape_path

_SIGMA: Final = 14.0
"""About the largest of SD 1.x."""
_PX_PER_LATENT: Final = 8
_COLOURS: Final = ((0.3, 0.2, 0.1), (0.1, -0.2, 0.3), (-0.3, 0.2, 0.0), (0.1, 0.1, -0.2))


def write_recorded(
    directory: Path, steps: int, *, total: int | None = None, latents: tuple[int, int] = (64, 64), channels: int = 4,
    pictures: int = 1, linear: bool = True, keeps_variance: bool = True, guided: bool = True, **params: Any,
) -> Path:  # fmt: skip
    """A job of so many steps out of `total`, as the worker leaves it: its trajectory, which is returned, and its tape.

    `latents`: height and width. x_t = alpha x0 + sigma eps, with alpha = 1 unless the sampler `keeps_variance`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    total = steps if total is None else total
    path = directory / "batch-0000.steps"
    shape = pictures, channels, *latents
    random = np.random.default_rng(0)
    clean, noise = _clean(shape), random.standard_normal(shape, np.float32)
    levels = [_level(index / total, keeps_variance=keeps_variance) for index in range(total + 1)]
    file = TrajectoryFile(path, _facts(directory.name, pictures, channels, latents, linear=linear, steps=total, params=params))
    for step in range(INITIAL, steps):
        alpha, sigma = levels[step + 1]
        tensors = {"latents": alpha * clean + sigma * noise}
        if step != INITIAL:
            tensors["denoised"] = clean * np.float32((step + 1) / total)
        level = levels[step] if step != INITIAL else (0.0, 1.0)  # the worker knows no level before the first step
        file.append(save(_float32(tensors), _step_facts(step, total, *level)))
    file.close()
    _write_tape(tape_path(path), steps, shape, random, guided=guided)
    return path


def _clean(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Waves, of another direction in each channel and picture; their variance is about 1."""
    pictures, channels, height, width = shape
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [
        np.sin(6 * (columns * (which + 1) + rows * (channel + 1))) for which in range(pictures) for channel in range(channels)
    ]
    return np.stack(waves).reshape(shape).astype(np.float32) * np.float32(2**0.5)


def _level(done: float, *, keeps_variance: bool) -> tuple[float, float]:
    sigma = _SIGMA * (1 - done)
    alpha = 1 / float(np.hypot(1, sigma)) if keeps_variance else 1.0
    return alpha, sigma * alpha


def _step_facts(step: int, total: int, alpha: float, sigma: float) -> dict[str, str]:
    timestep = 0.0 if step == INITIAL else 999 * (1 - step / total)
    facts = {"step": step, "total": total, "timestep": timestep, "alpha": alpha, "sigma": sigma, "elapsed_s": 0.05}
    return {name: str(value) for name, value in facts.items()}


def _facts(
    job: str, pictures: int, channels: int, latents: tuple[int, int], *, linear: bool, steps: int, params: dict[str, Any]
) -> TrajectoryFacts:
    height, width = latents
    asked = {"prompt": "a red cat", "seed": 7, "height": height * _PX_PER_LATENT, "width": width * _PX_PER_LATENT}
    weights = tuple(_COLOURS[channel % len(_COLOURS)] for channel in range(channels))
    return TrajectoryFacts(
        job=job, batch_index=0, model="none", pipeline="StableDiffusionPipeline", scheduler="EulerDiscreteScheduler",
        prediction_type="epsilon", seeds=tuple(range(7, 7 + pictures)),
        params=GenerationParams(**{**asked, "num_inference_steps": steps, "batch_size": pictures, **params}),
        linear=LinearFactors(weights, (0.0, 0.0, 0.0), 0.9) if linear else None,
    )  # fmt: skip


def _float32(tensors: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.ascontiguousarray(values, np.float32) for name, values in tensors.items()}


def _write_tape(path: Path, steps: int, shape: tuple[int, ...], random: np.random.Generator, *, guided: bool) -> None:
    """What the network said: noise, without and with the prompt where it is guided; it differs the less the later the step."""
    tape_file = Tape(path, {"format": tape.FORMAT, "seeds": list(range(7, 7 + shape[0]))})
    for step in range(steps):
        without = random.standard_normal(shape, np.float32)
        answers = [without, without + random.standard_normal(shape, np.float32) / np.float32(step + 1)] if guided else [without]
        facts = {"call": str(step), "step": str(step), "timestep": "0", "elapsed_s": "0.05", "form": "tuple"}
        tape_file.append(save({"0": np.concatenate(answers)}, facts))
    tape_file.close()
