"""What `sdtui generate` shows while it waits: a bar and the forming picture on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from sdtui.cli.log import log_lines, remedy, resumed_at
from sdtui.cli.output import note, result_json
from sdtui.cli.picture import HalfCells
from sdtui.protocol import (
    JOB_EVENTS,
    DownloadProgress,
    JobInterrupted,
    JobPaused,
    JobQueued,
    JobResumed,
    JobStarted,
    MemoryRanOut,
    Message,
    ModelLoaded,
    PreviewReady,
    StageStarted,
    StepFinished,
    StorageFreed,
    StorageFull,
    WorkerDied,
    WorkerStage,
    as_json,
)
from sdtui.terminal.picture import Frame
from sdtui.text import count_noun, format_bytes, format_seconds, safe_text

_STAGES = {
    "load": "loading the model",
    "tokens": "reading the prompt",
    "embeddings": "encoding the prompt",
    "image": "reading the initial image",
    "encode": "encoding the initial image",
    "latents": "drawing the noise",
    "timesteps": "planning the steps",
    "denoise": "denoising",
    "decode": "decoding",
    "save": "saving",
}
_WORKER_STAGES = {
    "down": "starting the worker",
    "starting": "starting the worker",
    "handshake": "starting the worker",
    "torch": "starting the worker: importing torch",
    "diffusers": "starting the worker: importing diffusers",
    "model": "loading the model",
    "warm_up": "warming up",
}


class Reporter(Protocol):
    """Something that shows a job's messages."""

    def show(self, message: Message) -> None:
        """Take one message."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Pace:
    """Steps done of all, their rate and the time that is left, from `StepFinished` alone."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self._batches = 1
        self._step_s: float | None = None

    def start(self, message: JobStarted) -> None:
        """A job of so many batches begins."""
        self._batches = max(1, message.params.batch_count)

    def step(self, message: StepFinished) -> None:
        """One step is done; recent steps weigh more in the rate."""
        self.total = message.total_steps * self._batches
        self.done = message.batch_index * message.total_steps + message.step_index + 1
        if message.replayed:
            return
        previous = message.elapsed_s if self._step_s is None else self._step_s
        self._step_s = 0.8 * previous + 0.2 * message.elapsed_s

    @property
    def rate(self) -> str:
        """`18.2 it/s`, or `3.1 s/it` for slow ones."""
        if not self._step_s:
            return ""
        return f"{1 / self._step_s:.1f} it/s" if self._step_s < 1 else f"{self._step_s:.1f} s/it"

    @property
    def left(self) -> str:
        """`12.4 s left`: the time the remaining steps take at this rate."""
        if not self._step_s or self.done == self.total:
            return ""
        return f"{format_seconds((self.total - self.done) * self._step_s)} left"


def describe(message: Message) -> str | None:
    """What is being waited for after this message, in a few words; None when it changes nothing."""
    match message:
        case WorkerStage(state="started"):
            return _WORKER_STAGES.get(message.stage, message.stage)
        case DownloadProgress():
            total = f" of {format_bytes(message.total_bytes)}" if message.total_bytes else ""
            return safe_text(f"downloading {message.file}: {format_bytes(message.done_bytes)}{total}")
        case ModelLoaded():
            return safe_text(f"{message.info.model} is loaded")
        case JobQueued() if message.position > 0:
            return f"waiting for {count_noun(message.position, 'job')}"
        case JobQueued():
            return "queued"
        case StageStarted():
            return _STAGES.get(message.stage, safe_text(message.stage))
        case WorkerDied():
            return safe_text(f"the worker died: {message.reason}")
        case _:
            return _on_the_way(message)


def _on_the_way(message: Message) -> str | None:
    """What came in a job's way, and how it goes on."""
    match message:
        case JobInterrupted():
            return safe_text(f"interrupted: {message.reason}")
        case JobResumed():
            return resumed_at(message)
        case JobPaused():
            return safe_text(f"paused; sdtui queue resume {message.job} lets it go on")
        case MemoryRanOut():
            return safe_text(f"out of memory in {message.stage}: trying {remedy(message)}")
        case StorageFull():
            return safe_text(f"waiting for room on the disk: {message.message}")
        case StorageFreed():
            return f"written after {format_seconds(message.waited_s)}"
        case _:
            return None


class LiveReporter:
    """A bar on stderr's terminal, with the picture above it and log lines above both."""

    def __init__(self, console: Console, *, pictures: bool, log: bool) -> None:
        self._pictures = pictures
        self._log = log
        self._pace = Pace()
        self._picture: HalfCells | None = None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("connecting", total=None, figures="")
        self._live = Live(self, console=console, refresh_per_second=10, transient=True, redirect_stdout=False)
        self._live.start()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The picture, when there is one, and the bar."""
        if self._picture is not None:
            yield self._picture
        yield self._progress.get_renderable()

    def show(self, message: Message) -> None:
        """Take one message."""
        if self._log:
            for line in log_lines(message):
                self._live.console.print(Text(line), soft_wrap=True)
        if (description := describe(message)) is not None:
            self._progress.update(self._task, description=description)
        if isinstance(message, JobStarted):
            self._pace.start(message)
        elif isinstance(message, StepFinished):
            self._step(message)
        elif isinstance(message, PreviewReady) and self._pictures:
            self._picture = _preview(message)

    def _step(self, message: StepFinished) -> None:
        pace = self._pace
        pace.step(message)
        figures = f"{pace.done}/{pace.total}  {pace.rate}  {pace.left}"
        self._progress.update(self._task, completed=pace.done, total=pace.total, figures=figures)

    def close(self) -> None:
        """Take the bar away."""
        self._live.stop()


def _preview(message: PreviewReady) -> HalfCells:
    return HalfCells(Frame(message.width_px, message.height_px, message.rgb))


class PlainReporter:
    """A line on stderr when what is waited for changes, and at each tenth of the steps."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._last = ""

    def show(self, message: Message) -> None:
        """Take one message."""
        if isinstance(message, JobStarted):
            self._pace.start(message)
        elif isinstance(message, StepFinished):
            self._step(message)
        description = describe(message)
        if description is not None and description != self._last and not isinstance(message, DownloadProgress):
            self._last = description
            note(description)

    def _step(self, message: StepFinished) -> None:
        tenths_before = self._pace.done * 10 // (self._pace.total or 1)
        self._pace.step(message)
        if self._pace.done * 10 // (self._pace.total or 1) != tenths_before or self._pace.done == 1:
            figures = (f"step {self._pace.done} of {self._pace.total}", self._pace.rate, self._pace.left)
            note(", ".join(filter(None, figures)))

    def close(self) -> None:
        """Nothing to leave."""


class LogReporter:
    """The whole step log as plain lines on stderr."""

    def show(self, message: Message) -> None:
        """Take one message."""
        for line in log_lines(message):
            note(line)

    def close(self) -> None:
        """Nothing to leave."""


class JsonReporter:
    """Every event of the job, previews left out, as one JSON object a line on stdout."""

    def __init__(self, write: Callable[[bytes], None] = result_json) -> None:
        self._write = write

    def show(self, message: Message) -> None:
        """Take one message."""
        if isinstance(message, JOB_EVENTS) and not isinstance(message, PreviewReady):
            self._write(as_json(message))

    def close(self) -> None:
        """Nothing to leave."""
