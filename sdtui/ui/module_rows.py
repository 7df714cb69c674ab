"""A module as one line of the tree: which columns there are at a width, and what stands in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

import msgspec
from rich.cells import cell_len, set_cell_size

from sdtui.protocol import ModuleRun
from sdtui.text import format_bytes, safe_text
from sdtui.ui.live_figures import LiveFigures, fault_word
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.rows import Span, figure, shape_text
from sdtui.ui.widgets.progress import bar

_SHOWN_CHARACTERS: Final = 120
"""Of a name: more than the widest column takes, and little to clean."""
_MOST_SHAPES: Final = 4
_WIDE_NAME: Final = 44
"""Cells of the first column from which two are spent for each level."""
_LEAST_NAME: Final = 12
"""Cells that are kept for a name, however deep it lies."""


class Cell(NamedTuple):
    """What a column may tell of a node, and its own width."""

    outline: Outline
    node: int
    width: int
    marked: Collection[int]
    """The nodes that a search or a comparison found."""
    live: LiveFigures | None = None
    """What the modules did, where that is shown."""


class Column(msgspec.Struct, frozen=True):
    """A column: its title, its width in cells (0 takes what is left), and what stands in it."""

    title: str
    width: int
    text: Callable[[Cell], Span | list[Span]]
    right: bool = False


def count_text(count: int) -> str:
    """A number of parameters in at most seven cells: `640`, `16.6 k`, `859.5 M`, `12.1 G`."""
    for unit, size in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if count >= size * 0.99995:
            return f"{count / size:,.1f} {unit}"
    return str(count)


def name_indent(depth: int, width_cells: int) -> tuple[str, int]:
    """The guides before a line and where its mark stands; levels that leave no room for a name are not drawn."""
    step = 2 if width_cells >= _WIDE_NAME else 1
    levels = min(depth, max(0, (width_cells - _LEAST_NAME) // step))
    return ("│ " if step == 2 else "│") * levels, levels * step


def _name(cell: Cell) -> list[Span]:
    outline, node = cell.outline, cell.node
    guides, _ = name_indent(outline.depths[node], cell.width)
    mark = ("▾ " if outline.is_unfolded(node) else "▸ ") if outline.has_children(node) else "  "
    wrong = _wrong(cell)
    room = max(1, cell.width - len(guides) - len(mark) - sum(len(text) for text, _ in wrong))
    text = _cut(safe_text(outline.name(node)[: 4 * _SHOWN_CHARACTERS], limit=_SHOWN_CHARACTERS) or "(no name)", room)
    level = cell.live.level(node) if cell.live is not None else 0
    tone = "accent" if node in cell.marked or level else "warning" if outline.modules[node].problems else "text"
    name = (text, tone if outline.depths[node] > 1 or tone != "text" else "strong")
    return [(guides, "rule"), (mark, "muted"), name, *wrong]


def _wrong(cell: Cell) -> list[Span]:
    """What is marked behind a name: a NaN that it gave, a problem of the files."""
    figures = cell.live.of(cell.node) if cell.live is not None else None
    fault = f" {fault_word(figures.fault)}" if figures is not None and figures.fault else ""
    return [*([(fault, "error")] if fault else []), *([(" !", "warning")] if cell.node in cell.outline.faulty else [])]


def _class(cell: Cell) -> Span:
    module = cell.outline.modules[cell.node]
    text = safe_text(module.class_name[: 4 * _SHOWN_CHARACTERS], limit=_SHOWN_CHARACTERS)
    return text, "muted" if module.guessed or module.class_name == "ModuleList" else "text"


def _total(cell: Cell) -> Span:
    module = cell.outline.modules[cell.node]
    return count_text(module.total_parameters) if module.total_parameters else "", "text"


def _own(cell: Cell) -> Span:
    own = cell.outline.modules[cell.node].own_parameters
    return count_text(own) if own else "", "muted"


def _share(cell: Cell) -> Span:
    if cell.node == MODEL or not cell.outline.modules[cell.node].total_parameters:
        return "", "muted"
    full, _ = bar(cell.outline.share(cell.node), cell.width)
    return (full, "secondary") if full else ("·", "rule")


def _dtype(cell: Cell) -> Span:
    dtypes = cell.outline.modules[cell.node].dtypes
    return (f"{safe_text(dtypes[0], limit=10)}{'+' if len(dtypes) > 1 else ''}" if dtypes else ""), "muted"


def _bytes(cell: Cell) -> Span:
    size = cell.outline.modules[cell.node].bytes
    return format_bytes(size) if size else "", "text"


def _shapes(cell: Cell) -> Span:
    weights = cell.outline.modules[cell.node].weights
    shown = " ".join(shape_text(weight.shape) for weight in weights[:_MOST_SHAPES])
    return shown + (" …" if len(weights) > _MOST_SHAPES else ""), "muted"


def _output(cell: Cell) -> Span:
    run = _run(cell)
    return shape_text(run.shape) if run is not None and run.shape else "", "text"


def _milliseconds(cell: Cell) -> Span:
    figures = cell.live.of(cell.node) if cell.live is not None else None
    if figures is None:
        return "", "muted"
    return figure(figures.elapsed_s * 1000, cell.width, 2), "text" if figures.run is not None else "muted"


def _time_share(cell: Cell) -> Span:
    figures = cell.live.of(cell.node) if cell.live is not None else None
    if figures is None:
        return "", "muted"
    full, _ = bar(figures.share, cell.width)
    return (full, "secondary") if full else ("·", "rule")


def _statistic(name: str, digits: int) -> Callable[[Cell], Span]:
    def tell(cell: Cell) -> Span:
        run = _run(cell)
        value = getattr(run, name) if run is not None else None
        if value is None:
            return ("–", "error") if run is not None and run.fault else ("", "muted")
        return figure(value, cell.width, digits), "muted"

    return tell


def _memory(cell: Cell) -> Span:
    run = _run(cell)
    return format_bytes(run.memory_bytes) if run is not None and run.memory_bytes else "", "muted"


def _run(cell: Cell) -> ModuleRun | None:
    figures = cell.live.of(cell.node) if cell.live is not None else None
    return figures.run if figures is not None else None


_NAME: Final = Column("module", 0, _name)
_CLASS, _SHORT_CLASS = Column("class", 24, _class), Column("class", 21, _class)
_TOTAL: Final = Column("params", 8, _total, right=True)
_OWN: Final = Column("own", 8, _own, right=True)
_SHARE, _SHORT_SHARE = Column("share", 8, _share), Column("share", 6, _share)
_DTYPE: Final = Column("dtype", 5, _dtype)
_BYTES: Final = Column("size", 8, _bytes, right=True)
_SHAPES: Final = Column("weights", 24, _shapes)
_ALL: Final = (_NAME, _CLASS, _TOTAL, _OWN, _SHARE, _DTYPE, _BYTES, _SHAPES)
_GIVEN_UP: Final[tuple[tuple[Column, Column | None], ...]] = (
    (_OWN, None),
    (_SHAPES, None),
    (_SHARE, _SHORT_SHARE),
    (_CLASS, _SHORT_CLASS),
    (_DTYPE, None),
    (_BYTES, None),
    (_SHORT_SHARE, None),
    (_SHORT_CLASS, None),
    (_TOTAL, None),
)
"""What goes, or becomes shorter, while a name would have too little room: the first one first."""
_OUTPUT: Final = Column("output", 18, _output)
_MS: Final = Column("ms", 7, _milliseconds, right=True)
_TIME, _SHORT_TIME = Column("of step", 8, _time_share), Column("step", 5, _time_share)
_MEAN: Final = Column("mean", 7, _statistic("mean", 3), right=True)
_STD: Final = Column("std", 7, _statistic("std", 3), right=True)
_ABSMAX: Final = Column("absmax", 7, _statistic("absmax", 2), right=True)
_MEMORY: Final = Column("memory", 8, _memory, right=True)
_LIVE: Final = (_NAME, _CLASS, _OUTPUT, _MS, _TIME, _MEAN, _STD, _ABSMAX, _MEMORY)
_GIVEN_UP_LIVE: Final[tuple[tuple[Column, Column | None], ...]] = (
    (_MEMORY, None),
    (_TIME, _SHORT_TIME),
    (_CLASS, None),
    (_ABSMAX, None),
    (_MEAN, None),
    (_STD, None),
    (_SHORT_TIME, None),
    (_OUTPUT, None),
    (_MS, None),
)
_NAME_ROOM: Final = 28
"""Cells that a name should have; in wide trees two fifths, up to what two cells for each level take."""
_GAP: Final = 2


def columns_for(width_cells: int, *, live: bool = False) -> tuple[Column, ...]:
    """The columns that leave room for the name; `live`: those of what the modules did."""
    columns = list(_LIVE if live else _ALL)
    wanted = _NAME_ROOM if live else max(_NAME_ROOM, min(_WIDE_NAME, width_cells * 2 // 5))
    for column, shorter in _GIVEN_UP_LIVE if live else _GIVEN_UP:
        if _room(columns, width_cells) >= wanted:
            break
        at = columns.index(column)
        columns[at : at + 1] = [] if shorter is None else [shorter]
    room = max(1, _room(columns, width_cells))
    return (msgspec.structs.replace(_NAME, width=room), *columns[1:])


def _room(columns: Sequence[Column], width_cells: int) -> int:
    """What is left for the name."""
    return width_cells - sum(column.width + _GAP for column in columns) + _GAP


def head_text(columns: Sequence[Column]) -> str:
    """The titles, that of the first over the names."""
    titles = [fit(f"  {columns[0].title}", columns[0].width)] if columns else []
    return (" " * _GAP).join([*titles, *(fit(column.title, column.width, right=column.right) for column in columns[1:])])


def line_spans(
    outline: Outline,
    node: int,
    columns: Sequence[Column],
    marked: Collection[int] = (),
    live: LiveFigures | None = None,
) -> list[Span]:
    """The line of a node, laid out."""
    spans: list[Span] = []
    for column in columns:
        told = column.text(Cell(outline, node, column.width, marked, live))
        parts = told if isinstance(told, list) else [(fit(told[0], column.width, right=column.right), told[1])]
        used = sum(cell_len(text) for text, _ in parts)
        gap = max(0, column.width - used) + (_GAP if column is not columns[-1] else 0)
        spans += [*parts[:-1], (parts[-1][0] + " " * gap, parts[-1][1])]
    return [span for span in spans if span[0]]


def fit(text: str, width_cells: int, *, right: bool = False) -> str:
    """A text in a column: with an ellipsis where it is cut, else filled up."""
    text = _cut(text, width_cells)
    gap = " " * (width_cells - cell_len(text))
    return gap + text if right else text + gap


def _cut(text: str, width_cells: int) -> str:
    return text if cell_len(text) <= width_cells else f"{set_cell_size(text, max(0, width_cells - 1))}…"
