"""Which job the screen follows, and which of its events are news. No Textual here."""

from __future__ import annotations

from collections.abc import Hashable

from sdtui.protocol import (
    JOB_ENDS,
    JobStarted,
    Message,
    PromptTokens,
    StageFinished,
    StageStarted,
    StepFinished,
)


class Following:
    """Own jobs come first; while there is none at work, whatever runs is followed."""

    def __init__(self) -> None:
        self.job: str | None = None
        self.over = True
        """Whether the followed job has ended; then the next one to start is followed."""
        self.started = False
        self.own: set[str] = set()
        self._seen: set[Hashable] = set()

    def submit(self, job: str) -> bool:
        """An own job was sent; whether it is followed from now on (else it waits behind one that is)."""
        self.own.add(job)
        if self.job in self.own and not self.over:
            return False
        self.follow(job)
        return True

    def follow(self, job: str) -> None:
        """Follow this job from its beginning."""
        self.job, self.over, self.started = job, False, False
        self._seen.clear()

    def takes_over(self, event: Message) -> bool:
        """Whether a job that starts is the one to follow now."""
        if not isinstance(event, JobStarted) or event.job == self.job:
            return False
        return event.job in self.own or self.over

    def is_news(self, event: Message) -> bool:
        """Whether an event is of the followed job and was not seen: a replay may send what came live already."""
        if getattr(event, "job", None) != self.job:
            return False
        key = _key(event)
        if key in self._seen:
            return False
        self._seen.add(key)
        if isinstance(event, JobStarted):
            self.started = True
        if isinstance(event, JOB_ENDS):
            self.over = True
        return True

    @property
    def can_cancel(self) -> bool:
        """Whether there is a job at work or waiting."""
        return self.job is not None and not self.over


def _key(event: Message) -> Hashable:
    kind = type(event)
    match event:
        case StepFinished():
            return kind, event.batch_index, event.step_index
        case StageStarted() | StageFinished():
            return kind, event.batch_index, event.stage
        case PromptTokens():
            return kind, event.which
        case _ if kind in JOB_ENDS or kind is JobStarted:
            return kind
        case _:
            return kind, getattr(event, "image_index", None), getattr(event, "position", None)
