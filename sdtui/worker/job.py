"""One job batch by batch: taking up what an earlier worker has done, making the rest, and stopping where that loses nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sdtui.ledger import SavedPicture
from sdtui.params import GenerationParams
from sdtui.protocol import JobResumed, Message, ResumePoint, Submit
from sdtui.worker.cancellation import CancelToken, raise_if
from sdtui.worker.errors import Progress
from sdtui.worker.image_to_image import InitialImage, image_pipeline
from sdtui.worker.inspection import Inspection
from sdtui.worker.journal import Journal
from sdtui.worker.models import LoadedModel
from sdtui.worker.previews import Previewer
from sdtui.worker.probes import Probe
from sdtui.worker.recording import Part, Recorded, Recording, unpacker
from sdtui.worker.remedies import Ladder
from sdtui.worker.samplers import build_scheduler
from sdtui.worker.saving import save_images, saved_event
from sdtui.worker.sheets import Extent
from sdtui.worker.stages import Batch, StageClock, tell_image
from sdtui.worker.steps import Between, StepLog
from sdtui.worker.stepwise import run_stepwise
from sdtui.worker.whole import run_whole


@dataclass
class Job:
    """A job that runs, and what its batches share."""

    model: LoadedModel
    submit: Submit
    image: InitialImage | None
    params: GenerationParams
    """Resolved: sizes, seed and scheduler are filled in."""
    seeds: list[int]
    """One for each picture of the job."""
    safety: dict[str, Any] | None
    emit: Callable[[Message], None]
    token: CancelToken
    journal: Journal | None
    ladder: Ladder
    probe: Probe
    inspection: Inspection
    between_steps: Between = lambda _: None
    save: bool = True
    """Whether the pictures go to disk."""
    saved: dict[int, SavedPicture] = field(default_factory=dict)
    batch_index: int = 0
    steps_done: int = 0
    largest_bytes: int = 0
    _begun: bool = False
    """Whether a batch was made here; until then `after_image` has no picture to wait for."""

    @property
    def paths(self) -> list[str]:
        """The pictures that are saved, in their order."""
        return [self.saved[index].path for index in sorted(self.saved)]

    @property
    def progress(self) -> Progress:
        """What the job keeps if it stops now."""
        return Progress(self.batch_index, self.steps_done, self.paths)

    def take_up(self) -> None:
        """Tell what is done already: the pictures in the ledger, and the steps that are on the tape of the next batch."""
        if self.journal is not None:
            self.ladder.restore(self.journal.remedies)
            self.ladder.keep = self.journal.keep_remedies
            for index in range(len(self.seeds)):
                with suppress(OSError):
                    found = self.journal.ledger.find(index)
                    if found is not None:
                        self.saved[index] = found
        if self.submit.resume is not None:
            self._tell_resumed(self.submit.resume)
        for index in sorted(self.saved):
            self.emit(saved_event(self.submit.job, self.saved[index]))

    def _tell_resumed(self, resume: ResumePoint) -> None:
        part = next((part for part in self._all_parts() if self._is_missing(part)), None)
        detail = ""
        if part is not None:
            self.batch_index = part.start // self.params.batch_size
            recording = self._open(part, self._scheduler(part))
            self.steps_done, detail = recording.tape.steps_done, recording.trouble
            recording.close()
            if not (detail or self.steps_done) and resume.batch_index == self.batch_index and resume.steps_done:
                detail = "The recorded steps are gone."
        else:
            self.batch_index = self.params.batch_count - 1
        self.emit(
            JobResumed(
                job=self.submit.job,
                batch_index=self.batch_index,
                steps_done=self.steps_done,
                images_done=len(self.saved),
                detail=detail,
            )
        )

    def run(self) -> None:
        """Make and save every picture that is not saved. Raises `JobProblem`, `OutputError`, `Cancelled`, and others."""
        position = 0
        while position < len(self.seeds):
            part = self._part(position)
            if not self._is_missing(part):
                position = part.stop
                continue
            if self.batch_index != position // self.params.batch_size:
                self.batch_index, self.steps_done = position // self.params.batch_size, 0
            position = self._make(position)
            self._begun = True

    def _look(self) -> None:
        if self._begun:
            self.token.stop_between_batches()
        else:
            self.token.stop_between_steps()

    # --- parts: batches, or what memory left of them ------------------------------------------------------------

    def _part(self, position: int) -> range:
        """The pictures that are made together, from this one on: the rest of its batch, but not more than memory can hold."""
        size = self.params.batch_size
        end_of_batch = (position // size + 1) * size
        return range(position, min(position + self.ladder.batch_size, end_of_batch))

    def _all_parts(self) -> list[range]:
        parts: list[range] = []
        while not parts or parts[-1].stop < len(self.seeds):
            parts.append(self._part(parts[-1].stop if parts else 0))
        return parts

    def _is_missing(self, part: range) -> bool:
        return any(index not in self.saved for index in part)

    def _name(self, part: range) -> str:
        size = self.params.batch_size
        name = f"batch-{part.start // size:04d}"
        return name if len(part) == size else f"{name}-{part.start % size:03d}-{len(part):03d}"

    def _make(self, position: int) -> int:
        """Make and save the pictures from here; returns where the next ones begin. Memory may make them fewer on the way."""
        known = [0]
        clock = StageClock(self.submit.job, self.batch_index, self.emit)
        part = self._part(position)

        def attempt() -> None:
            nonlocal part
            part = self._part(position)
            self._make_part(part, clock, known)

        self.ladder.run(self.batch_index, lambda: clock.current, lambda: len(part), attempt)
        return part.stop

    def _make_part(self, part: range, clock: StageClock, known: list[int]) -> None:
        began = time.perf_counter()
        seeds = [self.seeds[index] for index in part]
        scheduler = self._scheduler(part)
        recording = self._open(part, scheduler)
        pipe = self._pipe(recording)
        stopping = True
        try:
            self.steps_done = recording.tape.steps_done
            self._look()
            self.probe.begin(Extent(len(seeds), self.params.height or 0, self.params.width or 0))
            self.inspection.begin(len(seeds))
            pipe.scheduler = scheduler
            batch = Batch(
                self.model, self.submit, self.params, self.batch_index, part.start, seeds, self.safety, self.emit, self.token,
                clock, began, recording.tape, self.ladder, self.journal, self.saved, self.probe, pipe, recording.start,
                self.image.digest if self.image is not None else "", self.inspection.trouble,
            )  # fmt: skip
            if self.image is not None and recording.start.jump is None:
                tell_image(batch, self.image)
            log = self._step_log(recording, max(known[0], self._known_steps(part)))
            try:
                images = run_stepwise(batch, log) if self.model.simple else run_whole(batch, log)
            finally:
                known[0] = max(known[0], log.steps_told)
                self.largest_bytes = max(self.largest_bytes, log.largest_bytes)
            raise_if(self.token)
            if self.save:
                save_images(batch, images)
            self._keep_inspected(part, seeds)
            stopping = False
        finally:
            recording.close(sync=stopping)
            self.steps_done = recording.tape.steps_done

    def _keep_inspected(self, part: range, seeds: list[int]) -> None:
        size = self.params.batch_size
        split = (part.start % size, len(part)) if len(part) != size else None
        path = self.journal.inspected_path(self.batch_index, split) if self.journal is not None else None
        self.inspection.keep(path, self.batch_index, seeds)

    def _pipe(self, recording: Recording) -> Any:
        """The model's pipeline, or its sibling that begins with a picture, or with latents."""
        if not recording.start.arguments:
            return self.model.pipe
        if self.model.image_pipe is None:
            self.model.image_pipe = image_pipeline(self.model.pipe)
        return self.model.image_pipe

    # --- what a part needs ----------------------------------------------------------------------------------------

    def _scheduler(self, part: range) -> Any:
        seeds = [self.seeds[index] for index in part]
        return build_scheduler(self.model.own_scheduler, self.model.info.schedulers, self.params, seeds)

    def _open(self, part: range, scheduler: Any) -> Recording:
        seeds = [self.seeds[index] for index in part]
        known = Part(self._name(part), part.start // self.params.batch_size, part.start % self.params.batch_size, seeds)
        return Recorded(self.model, self.submit, self.params, self.image, self.journal).open(known, scheduler)

    def _known_steps(self, part: range) -> int:
        """How many steps of this part the server has from an earlier run."""
        resume = self.submit.resume
        if resume is None or len(part) != self.params.batch_size or self.batch_index > resume.batch_index:
            return 0
        return resume.steps_done if self.batch_index == resume.batch_index else 1 << 30

    def _step_log(self, recording: Recording, known_steps: int) -> StepLog:
        params = self.params
        return StepLog(
            job=self.submit.job,
            batch_index=self.batch_index,
            device=self.model.hardware.device,
            emit=self.emit,
            previewer=Previewer(self.model.previews, self.submit.preview, (params.width or 0) * (params.height or 0)),
            token=self.token,
            tape=recording.tape,
            trajectory=recording.trajectory,
            begin=recording.start,
            between=self.between_steps,
            probe=self.probe,
            known_steps=known_steps,
            unpack=unpacker(self.model.pipe, params),
        )
