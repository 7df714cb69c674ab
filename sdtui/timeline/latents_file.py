"""The latents of a trajectory as one safetensors file, written step by step.

The format (https://github.com/huggingface/safetensors#format) says in its header where each tensor lies, and all of ours have one
shape, so the header can be written before any of them is read; the library would want all of them at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from sdtui.trajectory import INITIAL, Trajectory, TrajectoryError


def write_latents(trajectory: Trajectory, steps: Sequence[int], picture: int, path: Path) -> Iterator[int]:
    """Write `latents/0007` and `denoised/0007` of each step, (1, C, h, w) float32 as the sampler holds them; of what the job
    began with only `latents/initial`. Numbers count steps from 0. After each step its number is given.

    The metadata are texts, `job`, `model`, `prompt`, `negative_prompt`, `scheduler`, `prediction_type`, and JSON, `seed`,
    `params` and lists over the steps of the file: `steps`, `timesteps`, `alphas` and `sigmas`, where what a step began with
    is alpha x0 + sigma eps; they are null of what the job began with. Raises `OSError`, `InspectedError`.
    """
    shape = (1, *trajectory.latents(steps[0])[picture].shape)
    names = [name for step in steps for name in _names(step)]
    with path.open("wb") as file:
        file.write(_header(names, shape, _metadata(trajectory, steps, picture)))
        for step in steps:
            _write(file, trajectory.latents(step)[picture], shape)
            if step != INITIAL:
                _write(file, trajectory.denoised(step)[picture], shape)
            yield step


def _names(step: int) -> list[str]:
    return ["latents/initial"] if step == INITIAL else [f"latents/{step:04d}", f"denoised/{step:04d}"]


def _write(file: IO[bytes], values: np.ndarray[Any, Any], shape: tuple[int, ...]) -> None:
    if values.shape != shape[1:]:
        raise TrajectoryError(f"The steps have different shapes: {values.shape} and {shape[1:]}.")
    file.write(np.ascontiguousarray(values, "<f4").tobytes())


def _header(names: Sequence[str], shape: tuple[int, ...], metadata: dict[str, str]) -> bytes:
    size = math.prod(shape) * 4
    places = {name: [at * size, (at + 1) * size] for at, name in enumerate(names)}
    tensors = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": place} for name, place in places.items()}
    header = json.dumps({"__metadata__": metadata} | tensors).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _metadata(trajectory: Trajectory, steps: Sequence[int], picture: int) -> dict[str, str]:
    facts = trajectory.facts
    each = [trajectory.steps[step] if step != INITIAL else None for step in steps]
    values: dict[str, Any] = {
        "job": facts.job,
        "model": facts.model,
        "prompt": facts.params.prompt,
        "negative_prompt": facts.params.negative_prompt,
        "scheduler": facts.scheduler,
        "prediction_type": facts.prediction_type,
    }
    lists: dict[str, Any] = {
        "seed": facts.seeds[picture],
        "params": facts.params,
        "steps": list(steps),
        "timesteps": [step and step.timestep for step in each],
        "alphas": [step and step.alpha for step in each],
        "sigmas": [step and step.sigma for step in each],
    }
    return values | {name: msgspec.json.encode(value).decode() for name, value in lists.items()}
