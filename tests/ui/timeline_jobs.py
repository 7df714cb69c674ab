"""Recorded jobs for the tests of the Timeline screen: trajectories and tapes whose pictures and figures are known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from sdtui import tape
from sdtui.params import GenerationParams
from sdtui.settings import tapes_dir
from sdtui.trajectory import INITIAL, LinearFactors, Trajectory, TrajectoryFacts, TrajectoryFile
from sdtui.ui.screens.timeline import TimelineScreen
from sdtui.ui.widgets.step_picture import StepPicture
from tests.ui.stage import Stage, until

GREY = LinearFactors(weights=((0.1, 0.1, 0.1),) * 4, bias=(0.0, 0.0, 0.0), r2=0.9)
"""The mean of four channels, a little of it: x0 of value v is the grey (0.4 v + 1) / 2."""


def facts_of(job: str, *, batch: int = 0, pictures: int = 1, scheduler: str = "ddim", **params: Any) -> TrajectoryFacts:
    asked = {"prompt": "a red cat", "seed": 7, "width": 128, "height": 128, "num_inference_steps": 6, "scheduler": scheduler}
    return TrajectoryFacts(
        job=job, batch_index=batch, model="scenes-128", pipeline="StableDiffusionPipeline", scheduler="DDIMScheduler",
        prediction_type="v_prediction", params=GenerationParams(**{**asked, "batch_size": pictures, **params}),
        seeds=tuple(range(7, 7 + pictures)), linear=GREY,
    )  # fmt: skip


def payload(index: int, total: int, pictures: int = 1, size: tuple[int, int] = (16, 16)) -> bytes:
    """x_t of a step is its number everywhere, x0 twice that, in the second picture ten times as much."""
    scale = np.array([1, 10, 100, 1000][:pictures], np.float32)[:, None, None, None] * np.ones((pictures, 4, *size), np.float32)
    tensors = {"latents": scale * (index + 1) / 10}
    if index != INITIAL:
        tensors["denoised"] = scale * (index + 1) / 5
    share = (index + 1) / max(1, total)
    meta = {
        "step": index,
        "total": total,
        "timestep": 999 * (1 - share),
        "alpha": max(share, 0.01),
        "sigma": 1 - share,
        "elapsed_s": 0.05,
    }
    return save(tensors, {name: str(value) for name, value in meta.items()})


def write_steps(
    job: str = "j-1", steps: int = 6, total: int | None = None, *, batch: int = 0, pictures: int = 1, age_s: int = 0,
    size: tuple[int, int] = (16, 16), taped: bool = True, **params: Any,
) -> Path:  # fmt: skip
    """A job's recorded steps, as the worker leaves them; returns the trajectory."""
    directory = tapes_dir() / job
    directory.mkdir(parents=True, exist_ok=True)
    total = steps if total is None else total
    path = directory / f"batch-{batch:04d}.steps"
    file = TrajectoryFile(path, facts_of(job, batch=batch, pictures=pictures, **{"num_inference_steps": total, **params}))
    for index in range(INITIAL, steps):
        file.append(payload(index, total, pictures, size))
    file.close()
    if taped:
        write_answers(path.with_suffix(".tape"), steps, pictures, size)
    os.utime(path, (1_700_000_000 - age_s,) * 2)
    return path


def grow(path: Path, indices: Sequence[int], total: int) -> None:
    """Steps that come later."""
    file = TrajectoryFile(path, Trajectory(path).facts)
    for index in indices:
        file.append(payload(index, total))
    file.close()


def write_answers(path: Path, steps: int, pictures: int = 1, size: tuple[int, int] = (16, 16)) -> None:
    """At each step the prompt pulls one more than at the step before."""
    written = tape.Tape(path, {"format": tape.FORMAT, "seeds": list(range(7, 7 + pictures))})
    for step in range(steps):
        answer = np.zeros((2 * pictures, 4, *size), np.float32)
        answer[pictures:, 0] = step + 1
        facts = {"call": str(step), "step": str(step), "timestep": "1.0", "elapsed_s": "0.1", "form": "tuple"}
        written.append(save({"0": answer}, facts))
    written.close()


def timeline(running: Stage) -> TimelineScreen:
    screen = running.app._made["timeline"]
    assert isinstance(screen, TimelineScreen)
    return screen


async def open_timeline(running: Stage, job: str = "") -> TimelineScreen:
    """Go to the screen, with a job or with what it shows by itself, and wait for the picture."""
    if job:
        await running.app.show_timeline(job)
    else:
        await running.pilot.press("alt+3")
    await until(lambda: isinstance(running.app.screen, TimelineScreen), "the screen")
    screen = timeline(running)
    await until(lambda: screen.record is not None or screen.one.sentence, "a job or a sentence")
    if screen.record is not None:
        await settled(screen)
    await running.pilot.pause()
    return screen


async def settled(screen: TimelineScreen) -> None:
    """All that is wished for is seen."""
    pictures = [screen.one] if screen.other is None else [screen.one, screen.two]
    for picture in pictures:
        await until(lambda picture=picture: picture.is_painted and (picture.seen or picture.sentence), "the picture")
    records = [side.record for side in screen.sides()]
    await until(lambda: all(record in screen._figures for record in records) and screen.curves.is_drawn, "the curves")


async def press(running: Stage, *keys: str) -> TimelineScreen:
    await running.pilot.press(*keys)
    await running.pilot.pause()
    screen = timeline(running)
    if screen.record is not None and not screen.record.is_empty:
        await settled(screen)
    return screen


def pixel(picture: StepPicture) -> tuple[int, int, int]:
    """The first pixel of what is seen."""
    assert picture.seen is not None
    red, green, blue = picture.seen.frame.rgb[:3]
    return red, green, blue


def notice(screen: TimelineScreen) -> str:
    return str(screen.say.content)


def title(picture: StepPicture) -> str:
    return picture._titles[1]
