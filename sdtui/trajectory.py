"""The sampling trajectory of a batch on disk: the latents it began with, and after each step x_t and the x0 prediction.

`<tapes>/<job>/batch-0000.steps` lies beside the tape of the same pictures, goes with it, and like it only grows: records as
in `sdtui.tape`. The first one is JSON, `TrajectoryFacts`; every other one the image of a safetensors file with `latents`
(B, C, h, w) as the sampler holds them after the step and, but for the beginning, `denoised` of the same shape. What the
network said stands on the tape, see `sdtui.answers`. Only numpy is needed to look at it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sdtui.inspected import InspectedError
from sdtui.params import GenerationParams
from sdtui.tape import append_at, digest_of, payloads_of, read_at, record
from sdtui.text import safe_text

if TYPE_CHECKING:
    from sdtui.answers import Answers
    from sdtui.tensors import Map

VERSION: Final = 1
PATTERN: Final = "batch-*.steps"
INITIAL: Final = -1
"""The index of what was there before the first step: noise, or a picture's latents with noise on them."""


class TrajectoryError(InspectedError):
    """A trajectory that cannot be used, or has not what is asked for; one sentence that names it."""


class LinearFactors(msgspec.Struct, frozen=True):
    """rgb = z weights + bias in [-1, 1], for latents as the sampler holds them; `r2` is how much of the pictures it explains."""

    weights: tuple[tuple[float, float, float], ...]
    """(C, 3)"""
    bias: tuple[float, float, float]
    r2: float


class TrajectoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the steps are of."""

    version: int = VERSION
    job: str
    batch_index: int
    first_picture: int = 0
    """Where in its batch the first picture stands; memory may have split a batch."""
    model: str
    pipeline: str
    scheduler: str
    """The scheduler's class."""
    prediction_type: str
    params: GenerationParams
    """Resolved: sizes, seed and scheduler are filled in."""
    seeds: tuple[int, ...]
    """One for each picture."""
    linear: LinearFactors | None = None
    """How latents become small pictures; None where no factors could be fitted to the VAE."""
    fingerprint: str = ""
    """A hash of the tape's fingerprint: of all that decides the bits."""


class StepFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One step as it stands in the file."""

    index: int
    """Counted from 0; `INITIAL` is the beginning."""
    total: int
    """How many steps there will be."""
    timestep: float
    """What the network was asked about."""
    alpha: float
    sigma: float
    """Of what the network was shown: x = alpha x0 + sigma eps."""
    elapsed_s: float
    offset: int
    length: int

    @property
    def ratio(self) -> float:
        """sigma / alpha, by which schedulers of all kinds compare (Karras et al. 2022); infinite for pure noise."""
        return self.sigma / self.alpha if self.alpha > 0 else float("inf")


def trajectory_path(tape: Path) -> Path:
    """Where the trajectory of a tape's pictures lies."""
    return tape.with_suffix(".steps")


def tape_path(trajectory: Path) -> Path:
    """The tape of a trajectory's pictures."""
    return trajectory.with_suffix(".tape")


def trajectories_of(directory: Path) -> Sequence[Path]:
    """The trajectories of one job, the first batch first."""
    return sorted(directory.glob(PATTERN))


def find_trajectory(directory: Path, batch_index: int, picture: int) -> tuple[Trajectory, int]:
    """The trajectory of a picture of a batch, and where in it that picture stands. Raises `TrajectoryError`."""
    name = safe_text(directory.name, limit=80)
    found = trajectories_of(directory)
    for path in found:
        trajectory = Trajectory(path)
        place = picture - trajectory.facts.first_picture
        if trajectory.facts.batch_index == batch_index and 0 <= place < len(trajectory.facts.seeds):
            return trajectory, place
    if found:
        raise TrajectoryError(f"Job {name} has no picture {picture} in batch {batch_index} whose steps are recorded.")
    if any(directory.glob("batch-*.tape")):
        raise TrajectoryError(f"The steps of job {name} were recorded by an sdtui that did not keep the latents; make it again.")
    raise TrajectoryError(f"The steps of job {name} are not recorded, or were removed: {safe_text(str(directory), limit=300)}.")


class Trajectory:
    """A trajectory that is read, also while it grows. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Raises `TrajectoryError`."""
        self.path, self._name = path, safe_text(str(path), limit=300)
        self.initial: StepFacts | None = None
        self.steps: list[StepFacts] = []
        """The steps that are there, in their order, from 0 on without a gap."""
        self._end = 0
        self._answers: Answers | None = None
        self.facts = self._read_facts()
        self.refresh()

    def _read_facts(self) -> TrajectoryFacts:
        try:
            with self.path.open("rb") as file:
                first = next(payloads_of(file.fileno()), None)
        except FileNotFoundError as error:
            message = f"The steps of this job are not recorded, or were removed: {self._name} is not there."
            raise TrajectoryError(message) from error
        except OSError as error:
            raise TrajectoryError(f"{self._name} cannot be read: {error.strerror}.") from error
        if first is None:
            raise TrajectoryError(f"{self._name} is damaged at its beginning.")
        try:
            facts = msgspec.json.decode(first[1], type=TrajectoryFacts)
        except (msgspec.DecodeError, RecursionError) as error:
            raise TrajectoryError(f"{self._name} holds no steps: {safe_text(str(error), limit=200)}.") from error
        if facts.version != VERSION:
            raise TrajectoryError(f"{self._name} has version {facts.version}; this sdtui reads {VERSION}.")
        self._end = first[0] + len(first[1])
        return facts

    @property
    def total(self) -> int:
        """How many steps there will be; 0 before the first."""
        return self.steps[-1].total if self.steps else 0

    @property
    def complete(self) -> bool:
        """Whether every step is there."""
        return bool(self.steps) and len(self.steps) == self.total

    def refresh(self) -> bool:
        """Read on from where reading ended; whether steps have come. Raises `TrajectoryError`."""
        before = len(self.steps)
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._end:
                    raise TrajectoryError(f"{self._name} was begun anew; open it again.")
                for offset, payload in payloads_of(file.fileno(), self._end):
                    step = _step_facts(payload, offset)
                    if step is None:
                        break
                    self._take(step)
                    self._end = offset + len(payload)
        except OSError as error:
            raise TrajectoryError(f"{self._name} cannot be read: {error.strerror}.") from error
        return len(self.steps) > before

    def _take(self, step: StepFacts) -> None:
        if step.index == INITIAL:
            self.initial = step
        elif step.index == len(self.steps):
            self.steps.append(step)

    def latents(self, step: int) -> Map:
        """(B, C, h, w) float32: x_t after a step, or what the job began with for `INITIAL`. Raises `TrajectoryError`."""
        return self._tensors(step, "latents")

    def denoised(self, step: int) -> Map:
        """(B, C, h, w) float32: the x0 prediction of a step. Raises `TrajectoryError`."""
        return self._tensors(step, "denoised")

    def noise_pred(self, step: int) -> Map:
        """(B, C, h, w) float32: what the scheduler was given, guidance applied. Raises `InspectedError`."""
        return self._said(step).guided(step, self.facts.params.guidance_scale)

    def guidance(self, step: int) -> Map:
        """(B, h, w): how far the prompt moves the network's answer at each latent pixel. Raises `InspectedError`."""
        return self._said(step).guidance(step)

    def _said(self, step: int) -> Answers:
        from sdtui.answers import Answers

        if self._answers is None:
            self._answers = Answers(tape_path(self.path))
        elif step >= len(self._answers):
            self._answers.refresh()
        return self._answers

    def _tensors(self, step: int, name: str) -> Map:
        from sdtui.tensors import read_tensors

        place = self._place(step)
        try:
            with self.path.open("rb") as file:
                tensors = read_tensors(read_at(file.fileno(), place.length, place.offset))
            return tensors[name]
        except FileNotFoundError as error:
            raise TrajectoryError(f"The steps of this job were removed: {self._name} is not there any more.") from error
        except OSError as error:
            raise TrajectoryError(f"{self._name} cannot be read: {error.strerror}.") from error
        except (KeyError, TypeError, ValueError) as error:
            message = f"Step {step} in {self._name} has no {name} that can be read: {safe_text(str(error), limit=200)}."
            raise TrajectoryError(message) from error

    def _place(self, step: int) -> StepFacts:
        if step == INITIAL and self.initial is not None:
            return self.initial
        if not 0 <= step < len(self.steps):
            raise TrajectoryError(f"{self._name} holds {len(self.steps)} steps; step {step} is not among them.")
        return self.steps[step]


def _step_facts(payload: bytes, offset: int) -> StepFacts | None:
    """What a record says of itself; None where it is no step."""
    try:
        header = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
        facts = header["__metadata__"]
        return StepFacts(
            index=int(facts["step"]),
            total=int(facts["total"]),
            timestep=float(facts["timestep"]),
            alpha=float(facts["alpha"]),
            sigma=float(facts["sigma"]),
            elapsed_s=float(facts["elapsed_s"]),
            offset=offset,
            length=len(payload),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


class TrajectoryFile:
    """A trajectory that is written, by the worker alone; see `sdtui.ledger.JobLock`."""

    def __init__(self, path: Path, facts: TrajectoryFacts) -> None:
        """Open or make it. What is there of the same facts stays, but for a torn end; all else goes. Raises `OSError`."""
        self.path = path
        self.steps: set[int] = set()
        """Which steps are there, `INITIAL` among them."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            first = msgspec.json.encode(facts)
            self._size = self._take_up(first)
            os.ftruncate(self._descriptor, self._size)
            if not self._size:
                self._size = append_at(self._descriptor, record(first), 0)
        except BaseException:
            self.close()
            raise

    def _take_up(self, first: bytes) -> int:
        size = 0
        for offset, payload in payloads_of(self._descriptor):
            if not size and payload != first:
                return 0
            if size:
                step = _step_facts(payload, offset)
                if step is None or step.index != len(self.steps) + INITIAL:
                    break
                self.steps.add(step.index)
            size = offset + len(payload)
        return size

    def append(self, payload: bytes) -> None:
        """Add a step, given as the image of a safetensors file with the facts of a step. Raises `OSError`."""
        self._size = append_at(self._descriptor, record(payload), self._size)

    def sync(self) -> None:
        """Make what was appended durable. Raises `OSError`."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """How a trajectory names the fingerprint of its tape."""
    return digest_of(json.dumps(fingerprint, sort_keys=True).encode()).hex()
