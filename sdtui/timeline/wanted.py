"""What is to be exported of a trajectory, what is wrong with it, and which steps that are. numpy comes with it."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from sdtui.inspected import InspectedError
from sdtui.text import count_noun
from sdtui.timeline.views import BEFORE_STEPS, VIEWS, NotDecoded, View, channels, check_picture, decoded_of, frame
from sdtui.trajectory import INITIAL, Trajectory, TrajectoryError

FPS: Final = (1.0, 60.0)
HOLD_S: Final = (0.0, 60.0)
SIZE_PX: Final = (16, 4096)
"""Of one side. No caption has room in less, and more is more than browsers decode."""
_PX_PER_LATENT: Final = 8
"""For parameters without sizes: what the VAEs of nearly all families have."""


class ExportError(Exception):
    """What cannot be exported, in one sentence; `field` is the name in `Export`, or `target`, where one is to blame."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted."""

    view: View = "denoised"
    picture: int = 0
    """Its place in the trajectory."""
    channel: int = 0
    """Of the view of one channel."""
    fps: float = 8.0
    """Steps shown a second, 1 to 60."""
    hold_s: float = 2.0
    """How long the last step stays, 0 to 60; never less than the others."""
    every: int = 1
    """Every so many steps as they are counted for people, so 5, 10, 15, …; the last step always."""
    caption: bool = True
    """Step, timestep and sigma in a strip below the picture."""
    size: tuple[int, int] | None = None
    """Width and height of the picture in pixels; None is the generated picture's."""
    include_initial: bool = False
    """Begin with what the job began with; for the views of `BEFORE_STEPS`."""


def check(trajectory: Trajectory, wanted: Export, *, latents: bool = False) -> None:
    """Raises `ExportError` naming the field for what cannot be had, `NotDecoded` where pictures of the VAE are missing.

    `latents`: they are wanted themselves, whatever the view.
    """
    if wanted.view not in VIEWS:
        raise ExportError(f"{wanted.view!r} is no view; there are {', '.join(VIEWS)}.", "view")
    _check_range("fps", wanted.fps, FPS, "frames a second")
    _check_range("hold_s", wanted.hold_s, HOLD_S, "seconds")
    if wanted.every < 1:
        raise ExportError(f"It must be 1 or more; it is {wanted.every}.", "every")
    for side in wanted.size or ():
        if not SIZE_PX[0] <= side <= SIZE_PX[1]:
            least, most = SIZE_PX
            raise ExportError(f"Width and height must be from {least} to {most} px; one is {side}.", "size")
    if not trajectory.steps:
        raise ExportError("No step of this job is recorded yet.")
    _check_place(trajectory, wanted, latents=latents)
    if not latents:
        _check_view(trajectory, wanted)


def _check_range(field: str, value: float, limits: tuple[float, float], unit: str) -> None:
    least, most = limits
    if not (math.isfinite(value) and least <= value <= most):
        raise ExportError(f"It must be from {least:g} to {most:g} {unit}; it is {value:g}.", field)


def _check_place(trajectory: Trajectory, wanted: Export, *, latents: bool) -> None:
    try:
        check_picture(trajectory, wanted.picture)
    except TrajectoryError as error:
        raise ExportError(str(error), "picture") from error
    if wanted.view == "channel" and not latents and not 0 <= wanted.channel < (count := channels(trajectory)):
        have = count_noun(count, "channel")
        raise ExportError(f"The latents have {have}, and none with the number {wanted.channel + 1}.", "channel")
    if wanted.include_initial and wanted.view not in BEFORE_STEPS and not latents:
        raise ExportError(f"There is no {VIEWS[wanted.view]} before the first step.", "include_initial")
    if wanted.include_initial and trajectory.initial is None:
        raise ExportError("What the job began with is not recorded.", "include_initial")


def _check_view(trajectory: Trajectory, wanted: Export) -> None:
    """The last step has all that the others have, so one frame tells whether the view can be had."""
    if wanted.view == "vae":
        if missing := missing_decodes(trajectory, wanted):
            raise NotDecoded(f"The full VAE has not decoded {count_noun(len(missing), 'step')} of these yet.")
        return
    try:
        frame(trajectory, len(trajectory.steps) - 1, wanted.view, picture=wanted.picture, channel=wanted.channel)
    except InspectedError as error:
        raise ExportError(str(error), "view") from error


def steps_of(trajectory: Trajectory, wanted: Export) -> list[int]:
    """The steps that get a frame, `INITIAL` first where it is wanted; counted from 0."""
    count = len(trajectory.steps)
    chosen = [step for step in range(count) if (step + 1) % wanted.every == 0 or step == count - 1]
    return [INITIAL, *chosen] if wanted.include_initial else chosen


def missing_decodes(trajectory: Trajectory, wanted: Export) -> list[int]:
    """The steps among those that get a frame whose picture by the full VAE is not there yet; none for other views."""
    if wanted.view != "vae":
        return []
    return [step for step in steps_of(trajectory, wanted) if not decoded_of(trajectory, step, wanted.picture).is_file()]


def size_of(trajectory: Trajectory, wanted: Export) -> tuple[int, int]:
    """Width and height of the picture in pixels."""
    if wanted.size is not None:
        return wanted.size
    params = trajectory.facts.params
    if params.width and params.height:
        return params.width, params.height
    height, width = trajectory.latents(len(trajectory.steps) - 1).shape[-2:]
    return width * _PX_PER_LATENT, height * _PX_PER_LATENT
