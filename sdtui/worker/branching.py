"""A branch: a job that takes over another one's steps up to one, and goes its own way from there.

Where the scheduler and its steps stay, the parent's recorded answers are put on the branch's tape, with the guidance that was
in force made part of them: a replay through the unchanged pipeline builds up every latent and the scheduler's history, and a
branch that changes nothing gives the parent's picture bit for bit. Another scheduler, or another number of steps, has another
history and other noise levels: there the latents go over, moved to the nearest level that is not noisier,
x' = alpha' x0 + sigma' eps with eps = (x - alpha x0) / sigma, the deterministic step of DDIM (Song et al. 2021, eq. 12).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load, save

from sdtui.inspected import InspectedError
from sdtui.params import BY_FIELD, GenerationParams
from sdtui.protocol import BranchPoint
from sdtui.tape import Call, Tape, TapeError, job_directory, read_at, read_tape
from sdtui.text import safe_text
from sdtui.trajectory import Trajectory, find_trajectory, tape_path
from sdtui.worker.errors import JobProblem
from sdtui.worker.start import Jump, Start
from sdtui.worker.watch import NoiseLevel, noise_level

MAY_CHANGE: Final = frozenset(
    {"prompt", "negative_prompt", "guidance_scale", "scheduler", "sigmas", "num_inference_steps", "seed", "clip_skip",
     "safety_checker", "batch_count", "batch_size"}
)  # fmt: skip
"""What a branch may say anew; it is of one picture."""
_SAME: Final = ("weights", "pipeline", "dtype")
"""Parts of the fingerprint without which the parent's latents and answers mean nothing to the branch."""
_NEAR: Final = 1.001
"""Two noise levels that differ by less are the same one, computed in another way."""


@dataclass(frozen=True)
class Branch:
    """What a branch takes over from its parent."""

    start: Start
    prefix: tuple[bytes, ...]
    """The parent's answers as they go on the branch's tape; empty for a jump."""
    identity: dict[str, Any]
    """For the fingerprint: all of the parent that decides the branch's bits."""

    def begin(self, tape: Tape) -> None:
        """Put the parent's answers on a tape that is empty. Raises `OSError`."""
        if not tape.calls:
            for payload in self.prefix:
                tape.append(payload)


def plan(tapes: Path, point: BranchPoint, params: GenerationParams, prints: Mapping[str, Any], scheduler: Any) -> Branch:
    """Find what the branch takes over. `prints` is the fingerprint it would have without its parent. Raises `JobProblem`."""
    trajectory, place, known, calls = _open(tapes, point)
    _check(point, trajectory, params, known, prints)
    seed = trajectory.facts.seeds[place]
    identity = {"job": point.job, "step": point.step, "seed": seed}
    if _same_way(known, prints, params, trajectory):
        answers = _prefix(tape_path(trajectory.path), [call for call in calls if call.step_index < point.step])
        turned = _Turned(place, len(trajectory.facts.seeds), trajectory.facts.params.guidance_scale, params.guidance_scale)
        prefix = tuple(turned.payload(payload, call) for call, payload in answers)
        reseed = (point.step, params.seed) if params.seed is not None and params.seed != seed else None
        return Branch(Start([seed], reseed=reseed), prefix, identity | {"answers": _digest(*prefix)})
    jump = _jump(trajectory, place, point.step, scheduler, params)
    identity |= {"latents": _digest(jump.latents.numpy().tobytes()), "index": jump.index}
    # the pipeline wants a picture and a strength; what it makes of them, the jump replaces
    return Branch(Start([params.seed or 0], {"image": jump.latents, "strength": 1.0}, jump), (), identity)


def _open(tapes: Path, point: BranchPoint) -> tuple[Trajectory, int, dict[str, Any], list[Call]]:
    name = safe_text(point.job, limit=80)
    try:
        trajectory, place = find_trajectory(job_directory(tapes, point.job), point.batch_index, point.picture)
        known, calls = read_tape(tape_path(trajectory.path))
    except (InspectedError, TapeError) as error:
        raise JobProblem(f"Job {name} has nothing to branch from: {error}", "branch") from error
    except OSError as error:
        raise JobProblem(
            f"Job {name} has nothing to branch from: its tape cannot be read: {error.strerror}.", "branch"
        ) from error
    return trajectory, place, known, calls


def _check(
    point: BranchPoint, trajectory: Trajectory, params: GenerationParams, known: Mapping[str, Any], prints: Mapping[str, Any]
) -> None:
    """Whether the branch can take over the parent's steps. Raises `JobProblem` naming the field."""
    there = len(trajectory.steps)
    if not 1 <= point.step < there:
        message = (
            f"Step {point.step} of job {point.job} cannot be branched from: {there} steps are recorded, so 1 to {there - 1}."
        )
        raise JobProblem(message if there > 1 else f"Job {point.job} has too few recorded steps to branch from.", "branch")
    if params.batch_count * params.batch_size != 1:
        raise JobProblem("A branch is of one picture; batch count and batch size must be 1.", "batch_size")
    parents = trajectory.facts.params
    for name, field in BY_FIELD.items():
        before, now = getattr(parents, name), getattr(params, name)
        if name not in MAY_CHANGE and before != now:
            message = f"{field.spec.label} must stay as in the job that is branched from: {before!r}, not {now!r}."
            raise JobProblem(safe_text(message, limit=400), name)
    for part in _SAME:
        if known.get(part) != prints.get(part):
            message = f"The steps of job {point.job} were made by another model: its {part} are not those of this one."
            raise JobProblem(message, "model")


def _same_way(known: Mapping[str, Any], prints: Mapping[str, Any], params: GenerationParams, trajectory: Trajectory) -> bool:
    same = all(known.get(part) == prints.get(part) for part in ("scheduler", "scheduler_config"))
    return same and params.num_inference_steps == trajectory.facts.params.num_inference_steps


# --- the same scheduler: answers go over ------------------------------------------------------------------------------


def _prefix(path: Path, calls: list[Call]) -> list[tuple[Call, bytes]]:
    try:
        with path.open("rb") as file:
            found = [(call, read_at(file.fileno(), call.length, call.offset)) for call in calls]
    except OSError as error:
        raise JobProblem(f"The parent's tape {path} cannot be read: {error.strerror}.", "branch") from error
    return found


@dataclass(frozen=True)
class _Turned:
    """How the parent's answers become the branch's: those of one picture, with the parent's guidance in them."""

    place: int
    pictures: int
    before: float
    now: float

    def payload(self, payload: bytes, call: Call) -> bytes:
        """One recorded answer."""
        facts = {
            "call": str(call.index),
            "step": str(call.step_index),
            "timestep": repr(call.timestep),
            "elapsed_s": repr(call.elapsed_s),
            "form": call.form,
        }
        image: bytes = save({name: self._rows(tensor) for name, tensor in load(payload).items()}, facts)
        return image

    def _rows(self, answer: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) or, with guidance, (2B, C, h, w) -> the rows of one picture.

        u + g' (t - u) of the branch must give the parent's u + g (t - u): where g' is not g, both answers become that sum, and
        their difference is 0.
        """
        guided = len(answer) == 2 * self.pictures
        if not guided and len(answer) != self.pictures:
            raise JobProblem("The network's answers are of another shape than a branch can take over.", "branch")
        text = answer[self.pictures + self.place if guided else self.place][None]
        uncond = answer[self.place][None]
        wanted = self.now > 1
        if guided and wanted and self.before == self.now:
            return torch.cat([uncond, text])
        said = uncond + self.before * (text - uncond) if guided else text
        never = self.before > 1 and not guided  # a network that is told the scale is asked once
        return torch.cat([said, said]) if wanted and not never else said.contiguous()


# --- another scheduler: latents go over -------------------------------------------------------------------------------


def _jump(trajectory: Trajectory, place: int, step: int, scheduler: Any, params: GenerationParams) -> Jump:
    """The parent's latents before a step, where this scheduler goes on with them."""
    try:
        x = trajectory.latents(step - 1)[place]
        x0 = trajectory.denoised(step - 1)[place]
    except InspectedError as error:
        raise JobProblem(str(error), "branch") from error
    there = trajectory.steps[step]
    index, level = _next_level(scheduler, params.num_inference_steps, there.ratio)
    eps = (x - there.alpha * x0) / there.sigma if there.sigma > 0 else np.zeros_like(x)
    latents = level.alpha * x0 + level.sigma * eps
    return Jump(torch.from_numpy(np.ascontiguousarray(latents[None], np.float32)), index)


def _next_level(scheduler: Any, steps: int, ratio: float) -> tuple[int, NoiseLevel]:
    """The first of a scheduler's steps that is not noisier than this. Raises `JobProblem` where none is left."""
    fresh = copy.deepcopy(scheduler)
    fresh.set_timesteps(steps)
    timesteps = [float(value) for value in fresh.timesteps.tolist()]
    for index in range(0, len(timesteps), fresh.order):
        level = level_at(fresh, index, timesteps[index])
        if level.ratio <= ratio * _NEAR:
            return index, level
    message = f"With {steps} steps {type(scheduler).__name__} has none left at this noise level; branch from an earlier step."
    raise JobProblem(message, "num_inference_steps")


def level_at(scheduler: Any, index: int, timestep: float) -> NoiseLevel:
    """How noisy a scheduler expects the sample to be at one of its steps."""
    looked = copy.deepcopy(scheduler)
    if hasattr(looked, "set_begin_index"):
        looked.set_begin_index(index)
    return noise_level(looked, timestep)


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
