"""A job that was cut short goes on from its tape, and its pictures are those of the uninterrupted one, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from sdtui.protocol import (
    ImageSaved,
    JobFinished,
    JobResumed,
    JobStarted,
    Message,
    PreviewOptions,
    PreviewReady,
    ResumePoint,
    StageFinished,
    StepFinished,
    Submit,
)
from sdtui.tape import Tape, read_tape, steps_done
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.errors import Cancelled, Stop
from sdtui.worker.generate import run_job
from sdtui.worker.journal import Journal
from sdtui.worker.models import LoadedModel
from sdtui.worker.samplers import scheduler_choices

from .conftest import a_submit

STEPS = 5


class Desk:
    """Runs jobs in this process with their directories, as the worker does."""

    def __init__(self, model: LoadedModel, root: Path) -> None:
        self.model, self.root = model, root
        self.network_calls = 0
        self.events: list[Message] = []

    def submit(self, name: str = "j1", resume: ResumePoint | None = None, **params: Any) -> Submit:
        submit = a_submit(self.root / f"out-{name}", PreviewOptions(max_per_s=1000), **({"num_inference_steps": STEPS} | params))
        return msgspec.structs.replace(submit, job=name, resume=resume)

    def directory(self, name: str = "j1") -> Path:
        return self.root / "tapes" / name

    def run(
        self,
        submit: Submit,
        *,
        stop: Stop | None = None,
        at: Callable[[Message], bool] = lambda _: False,
        record: bool = True,
    ) -> list[str] | Cancelled:
        """Run a job, and ask it to stop at the first event for which `at` is true; its paths, or how it stopped."""
        token = CancelToken()
        self.events = []

        def emit(event: Message) -> None:
            self.events.append(event)
            if stop is not None and at(event):
                token.request(stop)

        counting = self.model.pipe.unet.conv_in.register_forward_pre_hook(self._count)
        self.network_calls = 0
        journal = Journal(self.directory(submit.job), record=record)
        try:
            return run_job(self.model, submit, emit=emit, cancelled=token, journal=journal)
        except Cancelled as stopped:
            return stopped
        finally:
            journal.close()
            counting.remove()

    def _count(self, *_: Any) -> None:
        self.network_calls += 1

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Iterator[Desk]:
    yield Desk(model, tmp_path)


def pixels(paths: Any) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in paths]


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(pixels(one), pixels(other), strict=True))


def after_step(index: int, batch: int = 0) -> Callable[[Message], bool]:
    return lambda event: isinstance(event, StepFinished) and (event.batch_index, event.step_index) == (batch, index)


def all_schedulers() -> list[str]:
    from diffusers import PNDMScheduler

    return [choice.name for choice in scheduler_choices(PNDMScheduler()) if choice.missing is None]


@pytest.mark.parametrize("scheduler", all_schedulers())
def test_every_scheduler_goes_on_bit_for_bit_from_any_step(desk: Desk, scheduler: str) -> None:
    for values in ({"guidance_scale": 4.0}, {"guidance_scale": 1.0, "batch_size": 2}):
        name = f"whole-{values['guidance_scale']}"
        whole = desk.run(desk.submit(name, scheduler=scheduler, **values))
        calls, total = desk.network_calls, desk.of(StepFinished)[0].total_steps
        for cut in sorted({0, total // 2, total - 1}):
            part = f"{scheduler}-{values['guidance_scale']}-{cut}"
            stopped = desk.run(desk.submit(part, scheduler=scheduler, **values), stop="pause", at=after_step(cut))
            assert isinstance(stopped, Cancelled) and stopped.stop == "pause"
            assert (stopped.progress.batch_index, stopped.progress.steps_done, stopped.progress.paths) == (0, cut + 1, [])
            assert desk.network_calls == cut + 1
            state = torch.get_rng_state()
            resume = ResumePoint(seed=7, steps_done=cut + 1)
            resumed = desk.run(desk.submit(part, resume, scheduler=scheduler, **values))
            assert desk.network_calls == calls - (cut + 1), "recorded steps were computed again"
            assert same(whole, resumed)
            assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
