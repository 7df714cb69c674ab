"""How the training says what it does: a bar on a terminal, plain lines in a pipe, JSON objects on request."""

import json
import sys
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

UNITS = {"psnr_db": "dB", "samples_per_s": "/s", "eta_s": "s left"}


class Report(Protocol):
    """Where progress goes; used as a context manager."""

    def step(self, stage: str, progress: float, figures: dict[str, float]) -> None: ...

    def say(self, stage: str, text: str) -> None: ...

    def result(self, _kind: str, figures: dict[str, object]) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_error: object) -> None: ...


def figures_text(figures: dict[str, float]) -> str:
    """ "step 100  loss 0.0123  41.0 samples/s"."""
    parts = []
    for name, value in figures.items():
        number = f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.4g}"
        parts.append(f"{name.removesuffix('_s').removesuffix('_per').replace('_', ' ')} {number}{UNITS.get(name, '')}")
    return "  ".join(parts)


def _print(line: str) -> None:
    """A whole line at once, even into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class JsonReport:
    """One object a line on stdout, its `type` says what it is."""

    def step(self, stage: str, progress: float, figures: dict[str, float]) -> None:
        self._write({"type": "train_progress", "stage": stage, "progress": round(progress, 4)} | figures)

    def say(self, stage: str, text: str) -> None:
        self._write({"type": "train_note", "stage": stage, "text": text})

    def result(self, kind: str, figures: dict[str, object]) -> None:
        self._write({"type": kind} | figures)

    def _write(self, message: dict[str, object]) -> None:
        _print(json.dumps(message))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return None


class PlainReport(JsonReport):
    """One readable line at a time, for a pipe or a log file."""

    def step(self, stage: str, progress: float, figures: dict[str, float]) -> None:
        _print(f"{stage} {progress:5.1%}  {figures_text(figures)}")

    def say(self, stage: str, text: str) -> None:
        _print(f"{stage}: {text}")

    def result(self, _kind: str, figures: dict[str, object]) -> None:
        for name, value in figures.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            _print(f"{name.replace('_', ' '):28} {shown}")


class BarReport(PlainReport):
    """A bar a stage, on a terminal."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description:12}"),
            BarColumn(24),
            TextColumn("{task.percentage:>4.0f}%  {task.fields[text]}"),
        )
        self._progress = Progress(*columns, console=Console(highlight=False))
        self._bars: dict[str, TaskID] = {}

    def step(self, stage: str, progress: float, figures: dict[str, float]) -> None:
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=1.0, text="")
        self._progress.update(self._bars[stage], completed=progress, text=figures_text(figures))

    def say(self, stage: str, text: str) -> None:
        self._progress.console.print(f"{stage}: {text}", markup=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()


def report_for(as_json: bool) -> Report:
    """JSON if asked, a bar if stdout is a terminal, else plain lines."""
    if as_json:
        return JsonReport()
    return BarReport() if sys.stdout.isatty() else PlainReport()
