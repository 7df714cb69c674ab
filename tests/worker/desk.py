"""Jobs in this process with their directories on disk, stopped and taken up again as the worker does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from sdtui.protocol import Message, PreviewOptions, ResumePoint, StepFinished, Submit
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.errors import Cancelled, Stop
from sdtui.worker.generate import run_job
from sdtui.worker.journal import Journal
from sdtui.worker.models import LoadedModel

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
            return stopped.with_traceback(None)
        finally:
            journal.close()
            counting.remove()

    def _count(self, *_: Any) -> None:
        self.network_calls += 1

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def pixels(paths: Any) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in paths]


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(pixels(one), pixels(other), strict=True))


def after_step(index: int, batch: int = 0) -> Callable[[Message], bool]:
    return lambda event: isinstance(event, StepFinished) and (event.batch_index, event.step_index) == (batch, index)
