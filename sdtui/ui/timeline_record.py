"""A file of a job's steps as the timeline shows it: opened, read and measured in threads, kept where that saves reading."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sdtui.inspected import InspectedError
from sdtui.params import GenerationParams
from sdtui.tape import read_at
from sdtui.terminal.picture import Frame
from sdtui.text import count_noun
from sdtui.trajectory import INITIAL, StepFacts, Trajectory, TrajectoryError, find_trajectory, trajectories_of

if TYPE_CHECKING:
    from sdtui.timeline.views import Figures, View

_KEPT_BYTES: Final = 32 << 20
"""Frames of a hundred steps in every view at 64x64, or a few dozen full pictures."""
_DTYPES: Final = {"F16": "fp16", "F32": "fp32", "F64": "fp64", "BF16": "bf16"}


class Wish(NamedTuple):
    """What is to be seen."""

    record: Record
    step: int
    view: View
    channel: int


class Seen(NamedTuple):
    """What is seen in answer to a wish."""

    frame: Frame
    view: View
    note: str
    """Why it is another view than the one that was wished for; empty where it is that."""


class Record:
    """One file and one picture of it. Opening it, `look`, `measure` and `refresh` read: call them in a thread."""

    def __init__(self, path: Path, picture: int = 0) -> None:
        """`picture`: the place in the file. Raises `InspectedError`."""
        self.path, self.picture = path, picture
        self.trajectory = Trajectory(path)
        self.facts = self.trajectory.facts
        self._lock = threading.Lock()
        self._measured: Trajectory | None = None
        self._measuring = threading.Lock()
        self._kept: dict[tuple[int, View, int], Frame] = {}
        self.shape: tuple[int, ...] = ()
        """(B, C, h, w) of the latents; empty while nothing is recorded."""
        self.dtype = ""
        self._learn_shape()

    # --- what is known without reading ------------------------------------------------------------------------------

    @property
    def job(self) -> str:
        """Whose steps they are."""
        return self.facts.job

    @property
    def params(self) -> GenerationParams:
        """What the job was asked for, resolved."""
        return self.facts.params

    @property
    def seed(self) -> int:
        """Of this picture."""
        return self.facts.seeds[self.picture]

    @property
    def picture_in_batch(self) -> int:
        """Where in its batch the picture stands; memory may have split that."""
        return self.facts.first_picture + self.picture

    @property
    def count(self) -> int:
        """How many steps are recorded."""
        return len(self.trajectory.steps)

    @property
    def total(self) -> int:
        """How many there will be; 0 before anything is recorded."""
        initial = self.trajectory.initial
        return self.trajectory.total or (initial.total if initial is not None else 0)

    @property
    def complete(self) -> bool:
        """Whether every step is there."""
        return self.trajectory.complete

    @property
    def first(self) -> int:
        """The first step that can be shown: `INITIAL`, where what the job began with is recorded."""
        return INITIAL if self.trajectory.initial is not None else 0

    @property
    def last(self) -> int:
        """The last step that can be shown."""
        return self.count - 1 if self.count else self.first

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show yet."""
        return not self.count and self.trajectory.initial is None

    @property
    def channels(self) -> int:
        """Of the latents; 1 while that is not known."""
        return self.shape[1] if len(self.shape) == 4 else 1

    def facts_of(self, step: int) -> StepFacts | None:
        """What the file says of a step."""
        if step == INITIAL:
            return self.trajectory.initial
        return self.trajectory.steps[step] if 0 <= step < self.count else None

    def clamp(self, step: int) -> int:
        """The nearest step that can be shown."""
        return max(self.first, min(step, self.last))

    # --- what reads -------------------------------------------------------------------------------------------------

    def _learn_shape(self) -> None:
        """Shape and dtype as they are stored, from the header of the first record."""
        place = self.trajectory.initial or (self.trajectory.steps[0] if self.count else None)
        if self.shape or place is None:
            return
        try:
            with self.path.open("rb") as file:
                payload = read_at(file.fileno(), place.length, place.offset)
            entry = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])["latents"]
            self.shape, self.dtype = tuple(entry["shape"]), _DTYPES.get(entry["dtype"], str(entry["dtype"])[:16])
        except OSError as error:
            raise TrajectoryError(f"{self.path.name} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TrajectoryError(f"{self.path.name} has no latents in its first record.") from error

    def refresh(self) -> bool:
        """Read on in the file; whether there is more than before. Raises `InspectedError`."""
        with self._lock:
            before = (self.count, self.trajectory.initial)
            self.trajectory.refresh()
            self._learn_shape()
            grew = before != (self.count, self.trajectory.initial)
            if grew:  # scales may be others now
                self._kept.clear()
            return grew

    def measure(self) -> Figures:
        """The figures of every step. Apart from `look`, which would have to wait for it. Raises `InspectedError`."""
        from sdtui.timeline.views import figures

        with self._measuring:
            if self._measured is None:
                self._measured = Trajectory(self.path)
            elif len(self._measured.steps) < self.count:
                self._measured.refresh()
            return figures(self._measured, self.picture)

    def look(self, step: int, view: View, channel: int = 0) -> Seen:
        """A step; where it has not what is wished for, what comes nearest. Raises `InspectedError`."""
        from sdtui.timeline.views import BEFORE_STEPS, NotDecoded

        with self._lock:
            if step == INITIAL and view not in BEFORE_STEPS:
                return Seen(self._frame(INITIAL, "latents", 0), "latents", "nothing is predicted yet")
            try:
                return Seen(self._frame(step, view, channel), view, "")
            except NotDecoded:
                instead: View = "latents" if step == INITIAL else "denoised"
                try:
                    return Seen(self._frame(step, instead, 0), instead, "not decoded: d decodes it")
                except InspectedError:  # a model without a linear map
                    return Seen(self._frame(step, "rgb", 0), "rgb", "not decoded: d decodes it")

    def _frame(self, step: int, view: View, channel: int) -> Frame:
        from sdtui.timeline.views import frame

        key = (step, view, channel)
        found = self._kept.get(key)
        if found is None:
            pixels = frame(self.trajectory, step, view, picture=self.picture, channel=channel)
            found = Frame(pixels.shape[1], pixels.shape[0], pixels.tobytes())
            if sum(len(kept.rgb) for kept in self._kept.values()) > _KEPT_BYTES:
                self._kept.clear()
            self._kept[key] = found
        return found

    def decoded(self) -> frozenset[int]:
        """The steps of which the full picture is on the disk."""
        from sdtui.timeline.views import decoded_of

        there = {path.name for path in decoded_of(self.trajectory, 0, self.picture).parent.glob("*.png")}
        steps = range(self.first, self.count)
        return frozenset(step for step in steps if decoded_of(self.trajectory, step, self.picture).name in there)


class Opened(NamedTuple):
    """A record, and which of its job's files it is."""

    record: Record
    number: int
    files: int


def open_record(directory: Path, number: int = 0, picture: int = 0) -> Opened:
    """The nth file of a job, the last one for -1, and a picture of it, the last one for -1. Raises `InspectedError`."""
    found = trajectories_of(directory)
    if not found:
        find_trajectory(directory, 0, 0)  # says why there is none
        raise TrajectoryError("The steps of this job were removed just now.")
    number %= len(found)
    record = Record(found[number])
    pictures = max(1, len(record.facts.seeds))
    return Opened(record if not picture else Record(found[number], picture % pictures), number, len(found))


def same_place(record: Record, step: int, other: Record) -> int:
    """The step of another job to be compared with this one: the same where both have as many, else the nearest noise level."""
    if step == INITIAL or not other.count:
        return other.first
    if record.total == other.total:
        return other.clamp(step)
    facts = record.facts_of(step)
    level = _level(facts.ratio) if facts is not None else 0.0
    return min(range(other.count), key=lambda at: abs(_level(other.trajectory.steps[at].ratio) - level))


def _level(ratio: float) -> float:
    """sigma / alpha on a scale where equal distances are equal factors, its ends included."""
    return math.log(min(max(ratio, 1e-9), 1e9))


def recorded_words(record: Record, *, runs: bool) -> str:
    """How much of it is recorded, where that is not all of it."""
    if record.complete or runs:
        return ""
    if not record.count:
        return "No step of it is recorded."
    return f"Recorded up to step {record.count} of {count_noun(record.total, 'step')}."
