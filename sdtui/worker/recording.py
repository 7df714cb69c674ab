"""What a part of a job goes on from and writes to: its tape, its trajectory, and where its denoising begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sdtui.params import GenerationParams
from sdtui.protocol import Submit
from sdtui.trajectory import TrajectoryFacts, fingerprint_digest
from sdtui.worker import branching
from sdtui.worker.errors import JobProblem
from sdtui.worker.fingerprint import fingerprint
from sdtui.worker.image_to_image import InitialImage
from sdtui.worker.journal import Journal
from sdtui.worker.models import LoadedModel
from sdtui.worker.start import Start
from sdtui.worker.tape import DenoiserTape
from sdtui.worker.trajectory import TrajectoryWriter, open_trajectory


@dataclass(frozen=True)
class Part:
    """Pictures that are made together: a batch, or what memory left of it."""

    name: str
    """Of its files."""
    batch_index: int
    first_picture: int
    """Where in its batch it begins."""
    seeds: list[int]


@dataclass(frozen=True)
class Recording:
    """What is kept of a part while it is made."""

    tape: DenoiserTape
    trajectory: TrajectoryWriter
    start: Start
    trouble: str = ""
    """Why its steps are made anew, where that is so."""

    def close(self, *, sync: bool = False) -> None:
        """End it; with `sync` all of it is durable then."""
        self.trajectory.close(sync=sync)
        self.tape.close(sync=sync)


@dataclass(frozen=True)
class Recorded:
    """Opens the recordings of one job."""

    model: LoadedModel
    submit: Submit
    params: GenerationParams
    """Resolved."""
    image: InitialImage | None
    journal: Journal | None

    def open(self, part: Part, scheduler: Any) -> Recording:
        """Take up what there is of a part. Raises `JobProblem` where a branch has nothing to begin with."""
        journal = self.journal
        if journal is None or not journal.record:
            if self.submit.branch is not None:
                raise JobProblem("A branch needs recorded steps, and worker.tape is off in the settings.", "branch")
            off = "" if journal is None else "Steps are not recorded: worker.tape is off in the settings."
            return Recording(DenoiserTape(), TrajectoryWriter(), self._start(part), off)
        prints = fingerprint(self.model, self.params, part.seeds, scheduler, self.image.digest if self.image else "")
        branch = self._branch(journal, prints, scheduler)
        if branch is not None:
            prints["branch"] = branch.identity
        tape, trouble = journal.tape(part.name, prints)
        if branch is not None and branch.prefix:
            if tape is None:
                raise JobProblem(f"A branch needs recorded steps, and they cannot be kept: {trouble}.", "branch")
            branch.begin(tape)
        anew = f"The recorded steps cannot be used: {tape.begun_anew}." if tape is not None and tape.begun_anew else ""
        trajectory = TrajectoryWriter()
        if tape is not None:
            unpack = unpacker(self.model.pipe, self.params)
            trajectory = open_trajectory(journal.trajectory_path(part.name), self._facts(part, scheduler, prints), unpack)
        start = branch.start if branch is not None else self._start(part)
        why = anew or (f"Steps are not recorded: {trouble}." if trouble else "")
        return Recording(DenoiserTape(tape, trouble), trajectory, start, why)

    def _branch(self, journal: Journal, prints: dict[str, Any], scheduler: Any) -> branching.Branch | None:
        point = self.submit.branch
        if point is None:
            return None
        found = branching.plan(journal.tapes, point, self.params, prints, scheduler)
        if found.start.jump is not None and hasattr(self.model.pipe, "_unpack_latents"):
            message = f"{self.model.info.pipeline_class} packs its latents; a branch of it must keep scheduler, sigmas and steps."
            raise JobProblem(message, "scheduler")
        if self.image is not None and found.start.jump is None:
            found.start.arguments.update(self._arguments(self.image))
        return found

    def _start(self, part: Part) -> Start:
        return Start(part.seeds, self._arguments(self.image) if self.image is not None else {})

    def _arguments(self, image: InitialImage) -> dict[str, Any]:
        return {"image": image.image, "strength": self.params.strength}

    def _facts(self, part: Part, scheduler: Any, prints: dict[str, Any]) -> TrajectoryFacts:
        info, linear = self.model.info, self.model.previews.linear
        return TrajectoryFacts(
            job=self.submit.job,
            batch_index=part.batch_index,
            first_picture=part.first_picture,
            model=info.model,
            pipeline=info.pipeline_class,
            scheduler=type(scheduler).__name__,
            prediction_type=info.prediction_type,
            params=self.params,
            seeds=tuple(part.seeds),
            linear=linear.factors if linear is not None else None,
            fingerprint=fingerprint_digest(prints),
        )


def unpacker(pipe: Any, params: GenerationParams) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Flux and its kin hold latents as (B, n, C) tokens; this gives them back their rows and columns."""
    if not hasattr(pipe, "_unpack_latents"):
        return None

    def unpack(latents: torch.Tensor) -> torch.Tensor:
        if latents.ndim != 3:
            return latents
        unpacked: torch.Tensor = pipe._unpack_latents(latents, params.height, params.width, pipe.vae_scale_factor)
        return unpacked

    return unpack
