"""What a sampling function did, as text: each line of it with what it made, and of the loop the first and the last step."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from sdtui.cli.output import table
from sdtui.protocol import ExplainingStarted, LineRan, MadeTensor
from sdtui.text import format_seconds

_WIDTH: Final = 110
"""Of notes; the function's own lines have up to 130 characters."""
_NOTE: Final = "        # "
_MADE: Final = "        "
_FEATURED: Final = "latents"
"""What of a step is shown in one line."""


class Transcript:
    """Turns what an explainer tells into lines of text, one after the other."""

    def __init__(self, *, every_step: bool, notes: bool) -> None:
        """`notes`: with the reason of each line, where it stands for the first time."""
        self._every_step = every_step
        self._with_notes = notes
        self._rows: dict[int, str] = {}
        self._notes: dict[int, str] = {}
        self._titles: dict[int, str] = {}
        self._step: int | None = None
        self._head: int | None = None
        """The line of the loop's head."""
        self._elapsed_s = 0.0
        """Of the step."""

    def begin(self, started: ExplainingStarted) -> list[str]:
        """The function stands before its first line."""
        self._rows = dict(enumerate(started.source.splitlines(), started.first_line))
        self._notes = dict(started.notes) if self._with_notes else {}
        self._titles = {stage.line: stage.title for stage in started.stages}
        given = ", ".join(f"{name}={value}" for name, value in started.given.items())
        where = f"{started.file}, on {started.device_name}, in {started.dtype}"
        return [f"{started.function} of {where}", f"{started.function}(pipe, {given})", ""]

    def line(self, ran: LineRan) -> list[str]:
        """A line has run."""
        lines = list(self._title(ran.line))
        in_full = self._is_in_full(ran)
        if ran.step_index is not None and ran.step_index != self._step:
            self._step, self._head, self._elapsed_s = ran.step_index, ran.line, 0.0
            if in_full:
                lines += [f"step {ran.step_index + 1} of {ran.total_steps}, t = {ran.timestep:g}"]
        self._elapsed_s += ran.elapsed_s
        if in_full:
            lines += [*self._source(ran), *_values(ran), *_tensors(ran)]
        elif _ends_step(ran):
            lines.append(self._short(ran))
        if _ends_step(ran) and in_full:
            lines.append("")
        return lines

    def _is_in_full(self, ran: LineRan) -> bool:
        return self._every_step or ran.step_index is None or ran.step_index in (0, (ran.total_steps or 0) - 1)

    def _title(self, line: int) -> Iterator[str]:
        """The title of the stage that this line begins."""
        for titled in [titled for titled in self._titles if titled < line]:
            yield from ("", f"--- {self._titles.pop(titled)} ---", "")

    def _source(self, ran: LineRan) -> Iterator[str]:
        yield f"{ran.line:>5}  {self._rows.get(ran.line, '').rstrip().removeprefix('    ')}"
        if text := self._notes.pop(ran.line, ""):
            yield from textwrap.wrap(text, _WIDTH, initial_indent=_NOTE, subsequent_indent=_NOTE)
        if ran.line == self._head and ran.step_index is None:
            yield f"{_MADE}no timestep is left"

    def _short(self, ran: LineRan) -> str:
        """A whole step in one line."""
        latents = next((made for made in ran.made if made.name == _FEATURED), None)
        figures = f"latents {'  '.join(filter(None, _figures(latents)))}  " if latents is not None else ""
        digits = len(str(ran.total_steps))
        step = (ran.step_index or 0) + 1
        return (
            f"step {step:>{digits}} of {ran.total_steps}, t = {ran.timestep or 0:g}  {figures}{format_seconds(self._elapsed_s)}"
        )


def _ends_step(ran: LineRan) -> bool:
    """Whether the loop's head comes next."""
    return ran.step_index is not None and ran.next_line is not None and ran.next_line < ran.line


def _values(ran: LineRan) -> Iterator[str]:
    for name, value in ran.values.items():
        yield f"{_MADE}{name} = {value}" if name != "return" else f"{_MADE}returns {value}"


def _tensors(ran: LineRan) -> Iterator[str]:
    for row in table([_row(made) for made in ran.made]):
        yield f"{_MADE}{row}"
    for made in ran.made:
        for number, words in enumerate(made.words):
            yield f"{_MADE}{made.name}[{number}] = {' '.join(words)}"


def _row(made: MadeTensor) -> tuple[str, ...]:
    shape = f"({', '.join(map(str, made.shape))}{',' * (len(made.shape) == 1)})"
    where = "numpy" if made.device == "numpy" else f"on {made.device}"
    changed = "written into" if made.how == "changed" else ""
    return (made.name, shape, made.dtype, where, *_figures(made), changed)


def _figures(made: MadeTensor) -> tuple[str, str, str, str]:
    """Least, mean and greatest of the finite numbers, and how many are none."""
    named = (("min", made.low), ("mean", made.mean), ("max", made.high))
    low, mean, high = (f"{name} {value:.4g}" if value is not None else "" for name, value in named)
    return low, mean, high, f"! {made.faults:,} not finite" if made.faults else ""
