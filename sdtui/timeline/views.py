"""What a step of a trajectory looks like: one small RGB picture for each way to look at it, and its figures as curves.

Every scale is the same for all steps of a trajectory, so that its frames can be compared; the one exception is `difference`,
which shrinks by orders of magnitude with sigma, and whose size is a curve of `figures`. numpy comes with
this module: import it late.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from sdtui.inspected import InspectedError
from sdtui.tensors import Map
from sdtui.text import count_noun, safe_text
from sdtui.trajectory import INITIAL, LinearFactors, Trajectory, TrajectoryError
from sdtui.words import HUES, ramp

View = Literal["denoised", "latents", "channel", "rgb", "noise_pred", "guidance", "difference", "vae"]
VIEWS: Final[dict[View, str]] = {
    "denoised": "x0 prediction",
    "latents": "latents x_t",
    "channel": "one channel of x_t",
    "rgb": "x_t, channels as RGB",
    "noise_pred": "noise prediction, channels as RGB",
    "guidance": "guidance",
    "difference": "change of x_t",
    "vae": "x0 prediction, full VAE",
}
"""Each view and its title."""
BEFORE_STEPS: Final[frozenset[View]] = frozenset({"latents", "channel", "rgb", "vae"})
"""The views that what a job begins with has, too."""
LIMIT: Final = 3.0
"""Standard deviations from the middle of a scale to its end; 0.3 % of normal noise lies outside and is cut."""
_BATCH: Final = re.compile(r"batch-\d+")

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
_peaks: WeakKeyDictionary[Trajectory, dict[int, list[float]]] = WeakKeyDictionary()
"""The greatest guidance of each step, by the picture; goes with its trajectory."""


class NotDecoded(InspectedError):
    """A step whose full picture nobody has made yet."""


_QUIET: Final = np.errstate(invalid="ignore", over="ignore")
"""Latents of a model that overflows hold infinities; numpy would warn of them on the terminal, over the app."""


@_QUIET
def frame(trajectory: Trajectory, step: int, view: View, *, picture: int = 0, channel: int = 0) -> Pixels:
    """(h, w, 3) RGB of one step, at the latents' own size; `vae` at the picture's.

    `step` counts from 0; `INITIAL` is for `BEFORE_STEPS`. `picture` is the place in the trajectory, `channel` is for `channel`.

    - `denoised` and `latents`: the linear map of the trajectory's facts, as the live previews use it.
    - `channel`, `rgb`: x_t over the standard deviation that its noise level lets expect, hypot(alpha, sigma), so that schedulers
      whose x_t grows with sigma are seen as well as those that keep its variance. -`LIMIT` to `LIMIT` is the whole scale: of one
      channel azure below 0, orange above, black at 0; of the first three, 0 is the middle of each colour.
    - `noise_pred`: the first three channels of what the scheduler was given, on the same scale; its variance is about 1.
    - `guidance`: from 0 to what is the greatest value of a step in the median, in the colours of `sdtui.words.ramp`. The first
      steps often have a multiple of that, which is cut: all others would be dark.
    - `difference`: the norm over channels of x_k - x_(k-1), from 0 to its own greatest value.

    What is no number is shown as 0. Raises `InspectedError` with a sentence for what a step has not, `NotDecoded` among them.
    """
    if step == INITIAL and view not in BEFORE_STEPS:
        raise TrajectoryError(f"There is no {VIEWS[view]} before the first step.")
    match view:
        case "denoised":
            return _linear(_one(trajectory, trajectory.denoised(step), picture), _factors(trajectory))
        case "latents":
            return _linear(_unit(trajectory, step, picture), _factors(trajectory))
        case "channel":
            return _diverging(_channel(_unit(trajectory, step, picture), channel))
        case "rgb":
            return _first_three(_unit(trajectory, step, picture))
        case "noise_pred":
            return _first_three(_one(trajectory, trajectory.noise_pred(step), picture))
        case "guidance":
            return _heat(_one(trajectory, trajectory.guidance(step), picture, 3), _peak(trajectory, picture))
        case "difference":
            norm = np.sqrt(np.square(_change(trajectory, step, picture)).sum(axis=0))
            return _heat(norm, float(norm.max()))
        case "vae":
            return _decoded(trajectory, step, picture)


# --- latents --------------------------------------------------------------------------------------------------------


def _one(trajectory: Trajectory, values: Map, picture: int, dimensions: int = 4) -> Map:
    """One picture of a batch, finite: (C, h, w) of (B, C, h, w), or (h, w) of (B, h, w)."""
    check_picture(trajectory, picture)
    if values.ndim != dimensions or len(values) <= picture or not values.size:
        raise TrajectoryError(f"What {_name(trajectory)} holds of shape {values.shape} is no picture of channels.")
    finite: Map = np.nan_to_num(values[picture], nan=0.0, posinf=0.0, neginf=0.0)
    return finite


def check_picture(trajectory: Trajectory, picture: int) -> None:
    """Raises `TrajectoryError` for a place that a trajectory has not."""
    count = len(trajectory.facts.seeds)
    if not 0 <= picture < count:
        raise TrajectoryError(f"The batch has {count_noun(count, 'picture')}, and none with the number {picture + 1}.")


def _name(trajectory: Trajectory) -> str:
    return safe_text(str(trajectory.path), limit=300)


def _unit(trajectory: Trajectory, step: int, picture: int) -> Map:
    """(C, h, w): x_t after a step over the standard deviation that its noise level lets expect; the clean end as it is."""
    latents = _one(trajectory, trajectory.latents(step), picture)
    following = step + 1
    if following < len(trajectory.steps):
        level = trajectory.steps[following]
        deviation = math.hypot(level.alpha, level.sigma)
    elif trajectory.complete:
        deviation = 1.0
    else:  # the level of the step that is being made is not recorded yet
        deviation = max(1.0, float(np.sqrt(np.square(latents, dtype=np.float64).mean())))
    scaled: Map = latents / np.float32(deviation if 0 < deviation < math.inf else 1.0)
    return scaled


def _channel(latents: Map, channel: int) -> Map:
    if not 0 <= channel < len(latents):
        raise TrajectoryError(f"The latents have {count_noun(len(latents), 'channel')}, and none with the number {channel + 1}.")
    one: Map = latents[channel]
    return one


def _change(trajectory: Trajectory, step: int, picture: int) -> Map:
    """(C, h, w): x_k - x_(k-1)."""
    if step == 0 and trajectory.initial is None:
        raise TrajectoryError(f"What the first step began with is not in {_name(trajectory)}.")
    after = _one(trajectory, trajectory.latents(step), picture)
    change: Map = after - _one(trajectory, trajectory.latents(step - 1), picture)
    return change


def channels(trajectory: Trajectory) -> int:
    """How many channels the latents have. Raises `InspectedError`, also before anything is recorded."""
    return len(_one(trajectory, trajectory.latents(0 if trajectory.initial is None else INITIAL), 0))


# --- colours --------------------------------------------------------------------------------------------------------


def _factors(trajectory: Trajectory) -> LinearFactors:
    if trajectory.facts.linear is None:
        raise TrajectoryError("No linear map to small pictures could be fitted to this model's VAE; look at rgb, channel or vae.")
    return trajectory.facts.linear


def _linear(latents: Map, factors: LinearFactors) -> Pixels:
    """(C, h, w) latents -> (h, w, 3), rounded as the worker's previews are."""
    weights = np.asarray(factors.weights, np.float32)
    if weights.shape != (len(latents), 3):
        raise TrajectoryError(f"The linear map is for {len(weights)} channels, the latents have {len(latents)}.")
    rgb = np.tensordot(latents, weights * 127.5, axes=(0, 0)) + ((np.asarray(factors.bias, np.float32) + 1) * 127.5 + 0.5)
    return _bytes(np.nan_to_num(rgb))


def _first_three(values: Map) -> Pixels:
    """(C, h, w) -> RGB; a single channel is grey, a missing third one 0."""
    if len(values) == 1:
        values = np.repeat(values, 3, axis=0)
    three = np.zeros((3, *values.shape[1:]), np.float32)
    three[: min(3, len(values))] = values[:3]
    return _bytes((three.transpose(1, 2, 0) / LIMIT + 1) * 127.5 + 0.5)


def _diverging(values: Map) -> Pixels:
    """(h, w) -> the hues in which two words are compared, on black; they differ for every kind of colour vision."""
    above, below = (np.asarray(hue, np.float32) for hue in HUES)
    level = np.clip(values / LIMIT, -1, 1)[..., None]
    return _bytes(np.maximum(level, 0) * above - np.minimum(level, 0) * below + 0.5)


def _heat(values: Map, peak: float) -> Pixels:
    """(h, w) from 0 to the peak -> colours from black over red to yellow; without a peak all is black."""
    level = values / peak if 0 < peak < math.inf else np.zeros_like(values)
    return _bytes(np.rint(ramp(level)))


def _bytes(colours: np.ndarray[Any, Any]) -> Pixels:
    """Colours from 0 to 255; what lies outside and the fraction is cut."""
    pixels: Pixels = np.clip(colours, 0, 255).astype(np.uint8, order="C")
    return pixels


def _peak(trajectory: Trajectory, picture: int) -> float:
    """The median of the greatest guidance of each step that is recorded so far."""
    found = _peaks.setdefault(trajectory, {}).setdefault(picture, [])
    for step in range(len(found), len(trajectory.steps)):
        try:
            found.append(float(_one(trajectory, trajectory.guidance(step), picture, 3).max()))
        except InspectedError:  # the tape may end before the trajectory
            break
    return median(found) if found else 0.0


# --- full pictures --------------------------------------------------------------------------------------------------


def decoded_path(trajectory_path: Path, picture_in_batch: int, step: int) -> Path:
    """Where the picture of a step by the full VAE lies: `decoded/batch-0000-000-0007.png` beside the trajectory.

    The numbers are the batch, the picture in the batch, which may have several trajectories, and the step, `init` for `INITIAL`.
    """
    batch = _BATCH.match(trajectory_path.stem)
    number = "init" if step == INITIAL else f"{step:04d}"
    name = f"{batch[0] if batch else trajectory_path.stem}-{picture_in_batch:03d}-{number}.png"
    return trajectory_path.parent / "decoded" / name


def decoded_of(trajectory: Trajectory, step: int, picture: int) -> Path:
    """The same, of the picture at a place in a trajectory."""
    return decoded_path(trajectory.path, trajectory.facts.first_picture + picture, step)


def _decoded(trajectory: Trajectory, step: int, picture: int) -> Pixels:
    """(H, W, 3)"""
    from sdtui.terminal.picture import MAX_PIXELS, read_picture

    check_picture(trajectory, picture)
    path = decoded_of(trajectory, step, picture)
    try:
        shown = read_picture(path, MAX_PIXELS)
    except FileNotFoundError as error:
        which = "What the job began with" if step == INITIAL else f"Step {step + 1}"
        raise NotDecoded(f"{which} is not decoded by the full VAE yet.") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or safe_text(str(error), limit=200)
        message = f"The picture {safe_text(str(path), limit=300)} cannot be read: {reason}; remove it, and it is made anew."
        raise InspectedError(message) from error
    return np.frombuffer(shown.rgb, np.uint8).reshape(shown.height_px, shown.width_px, 3)


# --- figures --------------------------------------------------------------------------------------------------------


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of each step, a list for each curve, all of one length."""

    step: list[int]
    """Counted from 0."""
    timestep: list[float]
    sigma: list[float]
    """sigma / alpha of what the step began with; infinite for pure noise."""
    x_mean: list[float]
    x_std: list[float]
    x_norm: list[float]
    """Of x_t after the step, over all channels and places; the norm is Euclidean."""
    x0_mean: list[float]
    x0_std: list[float]
    x0_norm: list[float]
    guidance: list[float | None]
    """The mean of the map; None where there is none."""
    change: list[float | None]
    """The norm of x_k - x_(k-1); None where what the first step began with is not recorded."""
    elapsed_s: list[float]


_Row = tuple[int, float, float, float, float, float, float, float, float, float | None, float | None, float]
_rows: WeakKeyDictionary[Trajectory, dict[int, list[_Row]]] = WeakKeyDictionary()


@_QUIET
def figures(trajectory: Trajectory, picture: int = 0) -> Figures:
    """The figures of all steps that are recorded so far; what was read before is not read again. Raises `InspectedError`."""
    check_picture(trajectory, picture)
    rows = _rows.setdefault(trajectory, {}).setdefault(picture, [])
    for step in range(len(rows), len(trajectory.steps)):
        rows.append(_row(trajectory, step, picture))
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in Figures.__struct_fields__]
    return Figures(**dict(zip(Figures.__struct_fields__, columns, strict=True)))


def _row(trajectory: Trajectory, step: int, picture: int) -> _Row:
    facts = trajectory.steps[step]
    latents = _one(trajectory, trajectory.latents(step), picture)
    denoised = _one(trajectory, trajectory.denoised(step), picture)
    try:
        guidance: float | None = float(_one(trajectory, trajectory.guidance(step), picture, 3).mean())
    except InspectedError:
        guidance = None
    has_before = step > 0 or trajectory.initial is not None
    change = float(np.linalg.norm(_change(trajectory, step, picture))) if has_before else None
    moments = (*_moments(latents), *_moments(denoised))
    return (step, facts.timestep, facts.ratio, *moments, guidance, change, facts.elapsed_s)


def _moments(values: Map) -> tuple[float, float, float]:
    return float(values.mean()), float(values.std()), float(np.linalg.norm(values))
