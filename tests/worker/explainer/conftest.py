"""Sessions in this process, with the tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from sdtui.params import GenerationParams
from sdtui.protocol import AdvanceTo, LineRan, MadeTensor
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.explainer.opening import open_session
from sdtui.worker.explainer.session import Session
from sdtui.worker.models import LoadedModel

PROMPT = "a red cat"


@dataclass
class Desk:
    """A session that has started, and all that it told."""

    session: Session
    params: GenerationParams
    token: CancelToken
    told: list[LineRan] = field(default_factory=list)

    def go(self, to: AdvanceTo = "line", guidance_scale: float | None = None, *, pictures: bool = True) -> list[LineRan]:
        """Advance until the line, the stage or the end is reached; the lines that ran for it."""
        lines: list[LineRan] = []
        while True:
            ran = self.session.advance(to, guidance_scale, pictures=pictures)
            lines += ran.lines
            if ran.stopped:
                self.told += lines
                return lines

    def to_the_end(self, to: AdvanceTo = "end") -> list[LineRan]:
        """Advance until the function has returned; all lines."""
        while not (self.told and self.told[-1].finished):
            self.go(to)
        return self.told

    def text(self, line: int | None) -> str:
        """A line of the function, without its indentation."""
        assert line is not None
        return self.session.listing.source.splitlines()[line - self.session.listing.first_line].strip()

    def line_of(self, text: str) -> int:
        """The line that begins so."""
        return next(line for line in self.session.listing.lines if self.text(line).startswith(text))

    def made(self, name: str) -> list[MadeTensor]:
        """All that was told of a variable."""
        return [tensor for line in self.told for tensor in line.made if tensor.name == name]


@pytest.fixture
def explain(model: LoadedModel) -> Iterator[Callable[..., Desk]]:
    """Starts a session: `explain(scheduler="euler", ...)`."""
    desks: list[Desk] = []

    def start(**params: Any) -> Desk:
        values: dict[str, Any] = {"prompt": PROMPT, "negative_prompt": "moon", "num_inference_steps": 3, "seed": 7} | params
        token = CancelToken()
        opened = open_session(model, GenerationParams(**values), token)
        opened.session.start()
        desks.append(Desk(opened.session, opened.params, token))
        return desks[-1]

    yield start
    for desk in desks:
        desk.session.drop()
    model.pipe.scheduler = model.own_scheduler
