"""A trajectory as a file: MP4, animated WebP, GIF, PNG pictures of the steps, or its latents.

Frame by frame, so that memory does not grow with the steps; under a temporary name until all of it is there. Needs no event loop:
call it in a thread that has the trajectory to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdtui.timeline.drawing import SMOOTH, Drawing
from sdtui.timeline.target import ENDINGS, Kind, Target
from sdtui.timeline.wanted import FPS, HOLD_S, SIZE_PX, Export, ExportError, check, missing_decodes, size_of, steps_of
from sdtui.trajectory import INITIAL, Trajectory

if TYPE_CHECKING:
    from sdtui.timeline.clips import Clip

__all__ = [
    "ENDINGS", "FPS", "HOLD_S", "SIZE_PX", "Export", "ExportCancelled", "ExportError", "check_export", "export",
    "missing_decodes", "size_of", "steps_of",
]  # fmt: skip
_PNG_LEVEL: Final = 1
"""zlib's quickest level: a quarter of the time of the usual one for half as many bytes again."""


class ExportCancelled(Exception):
    """`cancelled` said so; nothing is left."""


def export(
    trajectory: Trajectory,
    wanted: Export,
    target: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Write what is wanted of the steps that are recorded by now; returns where it lies.

    The kind is that of the target's ending, a directory gets PNG files. `progress` is called with the frames that are done and
    all of them, `cancelled` before each frame. Raises `ExportError` with a sentence and the field, `ExportCancelled`, and
    `InspectedError` for what cannot be read, `NotDecoded` among them; then nothing is left under any name.
    """
    place = check_export(trajectory, wanted, target, overwrite=overwrite)
    steps = steps_of(trajectory, wanted)
    try:
        with place.made() as part, closing(_written(trajectory, wanted, steps, place.kind, part)) as writing:
            for done, _ in enumerate(writing):
                if done:
                    progress(done, len(steps))
                if cancelled():
                    raise ExportCancelled
    except OSError as error:  # what cannot be read of a trajectory is an `InspectedError`; FFmpeg's errors are translated below
        raise place.unwritable(error) from error
    return place.path


def check_export(trajectory: Trajectory, wanted: Export, target: str | Path, *, overwrite: bool = False) -> Target:
    """Raises what `export` would raise at once; `NotDecoded` only where nothing else is wrong."""
    place = Target(target, overwrite=overwrite)
    if place.kind == "gif" and (most := _most_gif_fps()) < wanted.fps <= FPS[1]:
        raise ExportError(f"GIF shows at most {most} frames a second; give fewer, or write .mp4 or .webp.", "fps")
    check(trajectory, wanted, latents=place.kind == "safetensors")
    return place


def _most_gif_fps() -> int:
    from sdtui.timeline.clips import Gif

    return Gif.MOST_FPS


def _written(trajectory: Trajectory, wanted: Export, steps: Sequence[int], kind: Kind, part: Path) -> Generator[None]:
    """Writes all of it; gives way once before the first step and once after each."""
    yield None
    if kind == "safetensors":
        from sdtui.timeline.latents_file import write_latents

        for _ in write_latents(trajectory, steps, wanted.picture, part):
            yield None
    elif kind == "png":
        drawing = Drawing(trajectory, wanted, steps)
        for step in steps:
            drawing.draw(step).save(part / picture_name(trajectory, step), compress_level=_PNG_LEVEL)
            yield None
    else:
        yield from _clip(trajectory, wanted, steps, kind, part)


def picture_name(trajectory: Trajectory, step: int) -> str:
    """`step_0004_t0781.png`: steps counted from 1 as the log counts them, and the timestep. `step_0000_initial.png`."""
    if step == INITIAL:
        return "step_0000_initial.png"
    return f"step_{step + 1:04d}_t{max(0, round(trajectory.steps[step].timestep)):04d}.png"


def _clip(trajectory: Trajectory, wanted: Export, steps: Sequence[int], kind: Kind, part: Path) -> Generator[None]:
    import av

    rate = Fraction(wanted.fps).limit_denominator(1000)
    last = max(1 / rate, Fraction(wanted.hold_s).limit_denominator(1000))
    drawing = Drawing(trajectory, wanted, steps, even=kind == "mp4")
    clip: Clip | None = None
    try:
        clip = _opened(kind, part, drawing, rate, last, smooth=wanted.view in SMOOTH)
        for step in steps:
            clip.add(drawing.draw(step), last if step == steps[-1] else 1 / rate)
            yield None
        clip.finish()
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
    finally:
        if clip is not None:
            clip.close()


def _opened(kind: Kind, part: Path, drawing: Drawing, rate: Fraction, last: Fraction, *, smooth: bool) -> Clip:
    from sdtui.timeline.clips import Gif, Mp4, WebP

    size = drawing.width_px, drawing.height_px
    match kind:
        case "mp4":
            return Mp4(part, size, rate)
        case "webp":
            return WebP(part, size, smooth=smooth)
        case _:
            return Gif(part, size, last, smooth=smooth)
