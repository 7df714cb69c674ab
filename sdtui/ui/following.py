"""Which job the screen follows, and which of its events are news. No Textual here."""

from __future__ import annotations

from collections.abc import Hashable

from sdtui.protocol import (
    JOB_ENDS,
    JOB_EVENTS,
    ImageSaved,
    JobInterrupted,
    JobPaused,
    JobQueued,
    JobStarted,
    Message,
    ModulesRan,
    PromptTokens,
    StageFinished,
    StageStarted,
    StepFinished,
)


class Following:
    """Own jobs come first; while there is none at work, whatever runs is followed, unless the user opened another."""

    def __init__(self) -> None:
        self.job: str | None = None
        self.over = True
        """Whether the followed job has ended; then the next one to start is followed."""
        self.started = False
        self.known = False
        """Whether the server has told anything of it."""
        self.paused = False
        self.pinned = False
        """Whether the user asked to see this job: no other takes its place by itself."""
        self.steps_done = 0
        """Of the batch at work."""
        self.own: set[str] = set()
        self._awaits_record = False
        self._reads_record = False
        self._at_work = False
        self._run = 0
        self._seen: set[Hashable] = set()

    def submit(self, job: str) -> bool:
        """An own job was sent; whether it is followed from now on (else it waits behind one that is)."""
        self.own.add(job)
        if self.job in self.own and not self.over and not self.pinned:
            return False
        self.follow(job)
        return True

    def follow(self, job: str, *, from_record: bool = False, pinned: bool = False) -> None:
        """Follow this job from its beginning; `from_record`: its record was asked for, and what came live is in it too."""
        self.job, self.pinned = job, pinned
        self._awaits_record = self._reads_record = from_record
        self._forget()

    def _forget(self) -> None:
        self.over = self.started = self.known = self.paused = self._at_work = False
        self.steps_done = self._run = 0
        self._seen.clear()

    def record_told(self) -> None:
        """All of the record was told; what comes now is live."""
        self._awaits_record = self._reads_record = False

    def takes_over(self, event: Message) -> bool:
        """Whether a job that starts is the one to follow now."""
        if not isinstance(event, JobStarted) or event.job == self.job or self.pinned:
            return False
        return event.job in self.own or self.over

    def begins_record(self, event: Message) -> bool:
        """Whether the record that was asked for begins with this event: what was shown before it comes again."""
        if not (self._awaits_record and isinstance(event, JobQueued) and event.job == self.job):
            return False
        self._awaits_record = False
        self._forget()
        return True

    @property
    def has_record(self) -> bool:
        """Whether nothing of a record is awaited that was not told yet."""
        return not self._reads_record

    def is_news(self, event: Message) -> bool:
        """Whether an event is of the followed job and was not seen: a record may be sent again for another screen.

        A job that was interrupted or paused starts anew, with the same stages; its steps are only told once.
        """
        if not isinstance(event, JOB_EVENTS) or getattr(event, "job", None) != self.job:
            return False
        if isinstance(event, JobStarted) and self.over and self.started:
            self._run += 1  # it was tried again
        key = self._key(event)
        if key in self._seen:
            return False
        self._seen.add(key)
        self.known = True
        self._note(event)
        return True

    def _note(self, event: Message) -> None:
        match event:
            case JobStarted():
                self.started = self._at_work = True
                self.paused = self.over = False
            case StepFinished():
                self.steps_done = event.step_index + 1
            case StageStarted(stage="denoise"):
                self.steps_done = 0
            case JobPaused() | JobInterrupted():
                self._at_work, self._run = False, self._run + 1
                self.paused = isinstance(event, JobPaused)
            case _ if isinstance(event, JOB_ENDS):
                self.over, self._at_work, self.paused = True, False, False

    def queued_again(self) -> None:
        """The job was resumed or retried: it waits, and starts anew."""
        if self.over or self.paused:
            self._run += 1
        self.over = self.paused = self._at_work = False

    @property
    def can_cancel(self) -> bool:
        """Whether there is a job at work or waiting."""
        return self.job is not None and not self.over

    @property
    def at_work(self) -> bool:
        """Whether the job is on the device."""
        return self._at_work

    def _key(self, event: Message) -> Hashable:
        kind, run = type(event), self._run
        match event:
            case StepFinished():
                return kind, event.batch_index, event.step_index
            case StageStarted() | StageFinished():
                return kind, run, event.batch_index, event.stage
            case PromptTokens():
                return kind, run, event.which
            case ModulesRan():  # told in parts where there are very many
                return kind, run, event.batch_index, event.step_index, event.network, event.modules[:1]
            case ImageSaved():
                return kind, event.image_index
            case JobStarted():
                return kind, run
            case JobPaused() | JobInterrupted() if self._at_work:
                return kind, run
            case _ if isinstance(event, JOB_ENDS):
                return kind, run
            case _:
                return kind, event
