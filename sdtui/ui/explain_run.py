"""What is known of a sampling function that runs line by line: which lines ran, what they made, and what exists by now."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sdtui.protocol import ExplainingStarted, LineRan, LinesRan, MadeTensor, TensorPicture
from sdtui.text import safe_text

_GUIDANCE: Final = re.compile(r"\bguidance_scale\b")
_HEADING: Final = re.compile(r"^#\s*-{2,}\s*(.*?)\s*-{2,}\s*$")


class Place(NamedTuple):
    """Where in the loop something is: `step` 0 is the first."""

    step: int
    total: int
    timestep: float | None


class Thing(NamedTuple):
    """What a name means by now, and which line made it so."""

    line: int
    what: MadeTensor | str


class Run:
    """Takes what the process tells; asks nothing and shows nothing."""

    def __init__(self, started: ExplainingStarted) -> None:
        """Nothing has run yet."""
        self.started = started
        self.text: dict[int, str] = {
            number: safe_text(text.replace("\t", "    "))
            for number, text in enumerate(started.source.splitlines(), started.first_line)
        }
        """Each line of the source, safe to show."""
        self.headings: dict[int, str] = {stage.line: safe_text(stage.title, limit=200) for stage in started.stages}
        self.next_line: int | None = started.next_line
        self.ran: dict[int, LineRan] = {}
        """The last run of each line."""
        self.last: LineRan | None = None
        self.pictured: LineRan | None = None
        """The last one that made a tensor with a picture."""
        self.things: dict[str, Thing] = {}
        """Each name once, what was made last comes last."""
        self.finished = False
        self.picture: TensorPicture | None = None
        self.guidance = started.params.guidance_scale

    def take(self, reply: LinesRan) -> None:
        """Some lines ran."""
        for line in reply.lines:
            self._take_line(line)
        self.finished = self.finished or reply.finished
        self.picture = reply.picture or self.picture

    def _take_line(self, ran: LineRan) -> None:
        self.ran[ran.line] = self.last = ran
        self.next_line = ran.next_line
        self.finished = ran.finished
        if any(tensor.picture is not None for tensor in ran.made):
            self.pictured = ran
        made: dict[str, MadeTensor | str] = {**ran.values, **{tensor.name: tensor for tensor in ran.made}}
        for name, what in made.items():
            self.things.pop(name, None)
            self.things[name] = Thing(ran.line, what)

    # --- where it stands ---------------------------------------------------------------------------------------------

    @property
    def place(self) -> Place | None:
        """Where in the loop the line is that ran last; None outside of it."""
        last = self.last
        if last is None or last.step_index is None or last.total_steps is None:
            return None
        return Place(last.step_index, last.total_steps, last.timestep)

    def stage(self, line: int | None) -> str:
        """The title of the part that a line is in; empty before the first."""
        above = [title for at, title in self.headings.items() if line is not None and at <= line]
        return above[-1] if above else ""

    def note(self, line: int) -> str:
        """Why a line is there; safe to show."""
        return safe_text(self.started.notes.get(line, ""), limit=1000)

    def others(self, line: int) -> dict[str, Thing]:
        """What exists besides that which a line made in its last run, the newest first."""
        ran = self.ran.get(line)
        own = {*(tensor.name for tensor in ran.made), *ran.values} if ran is not None else set()
        return {name: thing for name, thing in reversed(self.things.items()) if name not in own}

    # --- guidance ----------------------------------------------------------------------------------------------------

    @property
    def guidance_lines(self) -> tuple[int, ...]:
        """Lines that read `guidance_scale`."""
        return tuple(line for line in self.started.lines if _GUIDANCE.search(self.text.get(line, "")))

    @property
    def is_unguided(self) -> bool:
        """Whether the run began with a scale of 1 or less, so that the U-Net is not asked without the prompt."""
        guided = self.things.get("guided")
        return guided is not None and guided.what == "False"

    @property
    def steps_left(self) -> int:
        """How many steps a change of the guidance would still be in force for."""
        first = self._first_step_of_a_change()
        return 0 if first is None else max(0, self.started.total_steps - first)

    def in_force_from(self) -> int:
        """The first step, 1 is the first, that a guidance scale given now is in force for."""
        return (self._first_step_of_a_change() or 0) + 1

    def _first_step_of_a_change(self) -> int | None:
        if self.next_line is None or not self.guidance_lines:
            return None
        place, there = self.place, self.guidance_lines[-1]
        if place is None:
            return 0 if self.next_line <= there else None
        if self.next_line > there:
            return place.step + 1
        return place.step + (self.next_line <= self._loop_line)

    @property
    def _loop_line(self) -> int:
        return next((line for line in self.started.lines if self.text.get(line, "").lstrip().startswith("for ")), -1)


def is_heading(text: str) -> bool:
    """Whether a line of source is the comment that begins a stage."""
    return _HEADING.match(text.strip()) is not None
