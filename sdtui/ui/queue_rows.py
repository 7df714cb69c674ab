"""A job as one line of the queue: which columns there are at a width, and what stands in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
from rich.cells import cell_len, set_cell_size

from sdtui.protocol import ENDED, JobRow, JobState
from sdtui.text import format_seconds, safe_text
from sdtui.ui.rows import Span
from sdtui.ui.widgets.progress import bar

MARKS: Final[dict[JobState, str]] = {
    "running": "►",
    "queued": "·",
    "interrupted": "↻",
    "paused": "‖",
    "done": "✓",
    "failed": "✗",
    "cancelled": "–",
}
TONES: Final[dict[JobState, str]] = {
    "running": "accent",
    "queued": "text",
    "interrupted": "warning",
    "paused": "warning",
    "done": "success",
    "failed": "error",
    "cancelled": "muted",
}
WORDS: Final[dict[JobState, str]] = {"running": "runs", "queued": "waits"}
"""Where the state's own name is no verb; the others are called what they are."""
_SHOWN_CHARACTERS: Final = 300
"""Of a prompt: more than the widest line takes, and little to clean."""


class Cell(NamedTuple):
    """What a column may tell of a job: its place among those that wait (from 1; 0 where it does not), and its own width."""

    row: JobRow
    place: int
    width: int


class Column(msgspec.Struct, frozen=True):
    """A column: its title, its width in cells (0 takes what is left), and what stands in it."""

    title: str
    width: int
    text: Callable[[Cell], Span | list[Span]]
    """A text and its tone; or several, which fill the width exactly."""
    right: bool = False


def state_word(state: JobState) -> str:
    """A state as people say it."""
    return WORDS.get(state, state)


def share_done(row: JobRow) -> float | None:
    """How much of a begun job is done, from 0 to 1; None where that is not known."""
    if not row.total_steps:
        return None
    batches = max(1, row.params.batch_count)
    return (row.batch_index * row.total_steps + row.steps_done) / (row.total_steps * batches)


def time_text(row: JobRow, now: float) -> str:
    """How long it took, runs already, or waits."""
    if row.state in ENDED:
        if row.started_at is None or row.finished_at is None:
            return ""
        return _took(max(0.0, row.finished_at - row.started_at))
    since = row.started_at if row.state == "running" and row.started_at is not None else row.created_at
    seconds = max(0.0, now - since)
    return f"{seconds:.0f} s" if row.state == "running" and seconds < 60 else _age(seconds)


def _took(seconds: float) -> str:
    """In at most seven cells: `24.8 s`, `2m 05s`, `1h 12m`."""
    if round(seconds, 1) < 60:
        return format_seconds(seconds)
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def _age(seconds: float) -> str:
    """In one unit: what waits changes slowly, and the eye should not be drawn to it."""
    if seconds < 60:
        return "<1 min"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} d"


def size_text(row: JobRow) -> str:
    """Size of the pictures and steps, as far as the user said."""
    params = row.params
    size = f"{params.width or '–'}×{params.height or '–'}" if params.width or params.height else ""
    return " · ".join(part for part in (size, f"{params.num_inference_steps}") if part)


def _mark(cell: Cell) -> Span:
    return MARKS[cell.row.state], TONES[cell.row.state]


def _state(cell: Cell) -> Span:
    return f"{MARKS[cell.row.state]} {state_word(cell.row.state)}", TONES[cell.row.state]


def _place(cell: Cell) -> Span:
    return (str(cell.place) if cell.place else ""), "muted"


def _job(cell: Cell) -> Span:
    return safe_text(cell.row.job)[-cell.width :], "muted"


def _priority(cell: Cell) -> Span:
    return (f"{cell.row.priority:+d}" if cell.row.priority else ""), "text"


def _progress(cell: Cell) -> Span | list[Span]:
    share = share_done(cell.row)
    if share is None or cell.row.state in ENDED:
        return "", "muted"
    figures = f"{cell.row.steps_done}/{cell.row.total_steps}"
    room = cell.width - len(figures) - 1
    if cell.row.state != "running" or room < 4:
        return figures.rjust(cell.width), TONES[cell.row.state]
    full, empty = bar(share, room)
    return [(full, "accent"), (empty, "rule"), (f" {figures}", "accent")]


def _prompt(cell: Cell) -> Span:
    text = safe_text(cell.row.params.prompt[:_SHOWN_CHARACTERS])
    return text, "muted" if cell.row.state in ENDED else "text"


def _size(cell: Cell) -> Span:
    return size_text(cell.row), "muted"


def _seed(cell: Cell) -> Span:
    return ("random" if cell.row.params.seed is None else str(cell.row.params.seed)), "muted"


def _time(cell: Cell) -> Span:
    return time_text(cell.row, time.time()), "muted"


def _pictures(cell: Cell) -> Span:
    return (str(len(cell.row.images)) if cell.row.images else ""), "muted"


_STATE: Final = Column("state", 13, _state)
_MARK: Final = Column("", 1, _mark)
_PLACE: Final = Column("place", 5, _place, right=True)
_JOB, _SHORT_JOB = Column("job", 20, _job), Column("job", 4, _job)
_PRIORITY: Final = Column("prio", 4, _priority, right=True)
_PROGRESS, _SHORT_PROGRESS = Column("progress", 20, _progress), Column("progress", 12, _progress)
_PROMPT: Final = Column("prompt", 0, _prompt)
_SIZE: Final = Column("size · steps", 14, _size, right=True)
_SEED: Final = Column("seed", 10, _seed, right=True)
_TIME: Final = Column("time", 8, _time, right=True)
_PICTURES: Final = Column("pics", 4, _pictures, right=True)
_ALL: Final = (_STATE, _PLACE, _JOB, _PRIORITY, _PROGRESS, _PROMPT, _SIZE, _SEED, _TIME, _PICTURES)
_GIVEN_UP: Final[tuple[tuple[Column, Column | None], ...]] = (
    (_JOB, _SHORT_JOB),
    (_SEED, None),
    (_PROGRESS, _SHORT_PROGRESS),
    (_SIZE, None),
    (_STATE, _MARK),
)
"""What goes, or becomes shorter, while a prompt would have too little room: the first one first."""
_PROMPT_ROOM: Final = 30
_LEAST_ROOM: Final = 12
"""With less room than this for a prompt, a tiny terminal, figures go too."""
_GAP: Final = 2


def columns_for(width_cells: int, *, priorities: bool) -> tuple[Column, ...]:
    """The columns that leave room for the prompt; the one for priorities only where any job has one."""
    columns = [column for column in _ALL if priorities or column is not _PRIORITY]
    for column, shorter in _GIVEN_UP:
        if _room(columns, width_cells) >= _PROMPT_ROOM:
            break
        at = columns.index(column)
        columns[at : at + 1] = [] if shorter is None else [shorter]
    for column in (_PICTURES, _TIME, _SHORT_PROGRESS):
        if _room(columns, width_cells) < _LEAST_ROOM:
            columns.remove(column)
    room = max(1, _room(columns, width_cells))
    return tuple(msgspec.structs.replace(column, width=room) if column is _PROMPT else column for column in columns)


def _room(columns: Sequence[Column], width_cells: int) -> int:
    """What is left for the prompt."""
    return width_cells - sum(column.width + _GAP for column in columns) + _GAP


def head_text(columns: Sequence[Column]) -> str:
    """The titles."""
    return (" " * _GAP).join(_fit(column.title, column) for column in columns)


def line_spans(row: JobRow, place: int, columns: Sequence[Column]) -> list[Span]:
    """The line of a job, laid out."""
    spans: list[Span] = []
    for column in columns:
        told = column.text(Cell(row, place, column.width))
        spans += told if isinstance(told, list) else [(_fit(told[0], column), told[1])]
        spans.append((" " * _GAP, "muted"))
    return spans[:-1]


def _fit(text: str, column: Column) -> str:
    length = cell_len(text)
    if length > column.width:
        return f"{set_cell_size(text, max(0, column.width - 1))}…"
    gap = " " * (column.width - length)
    return gap + text if column.right else text + gap
