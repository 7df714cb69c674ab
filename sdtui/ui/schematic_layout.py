"""Where the boxes of a plan stand in cells, the lines between them, and the text of each box. No Textual here, and no colours."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, Literal, NamedTuple

from rich.cells import cell_len, set_cell_size

from sdtui.text import safe_text
from sdtui.ui.schematic_plan import Block, Plan

Kind = Literal["wire", "edge", "name", "size", "cell", "value", "gap"]
_HEIGHTS: Final = ((4, 3), (4, 2), (4, 1), (3, 1), (3, 0), (1, 1), (1, 0))
"""Heights of a box and of the gap below it, the roomiest first; a box of one line has no border."""
_WIDEST_BOX: Final = 46
_WIDEST_U: Final = 150
_LEAST_MIDDLE: Final = 6
"""Cells between the boxes of the lowest level of a U."""
_ROOMY, _TIGHT = 100, 60
"""Cells from which each level of a U stands two cells further in, or one."""
_NAME, _SHORT_NAME, _SIZE = 13, 8, 12
_LONG: Final = 38
"""Cells of a box of one line from which names have more room."""


class Box(NamedTuple):
    """A box in cells."""

    number: int
    """Of its block in the plan."""
    x: int
    y: int
    width: int
    height: int


class Wire(NamedTuple):
    """A piece of a line between boxes, in one line of cells."""

    x: int
    text: str


class Layout(NamedTuple):
    """Boxes in the plan's order, the wires of each line, and how high all of it is."""

    boxes: tuple[Box, ...]
    wires: dict[int, list[Wire]]
    height: int


class Piece(NamedTuple):
    """Text of a box in one line: what it is, and for a cell which."""

    text: str
    kind: Kind
    part: int = -1


def lay_out(plan: Plan, width: int, height: int) -> Layout:
    """Boxes as high as fit into `height`; where not even flat ones do, it is higher than that."""
    tall, gap = next(
        ((tall, gap) for tall, gap in _HEIGHTS if plan.rows * tall + (plan.rows - 1) * gap <= height),
        (1, 0) if height < 8 else (1, 1),
    )
    used = min(width, _WIDEST_U)
    left = (width - used) // 2
    is_u = any(block.side != "middle" for block in plan.blocks)
    boxes = tuple(
        Box(number, left + x, block.row * (tall + gap), wide, tall)
        for number, block in enumerate(plan.blocks)
        for x, wide in [_place(plan, block, used) if is_u else _in_flow(used)]
    )
    wires: dict[int, list[Wire]] = {}
    for one, other in plan.skips:
        _across(wires, boxes[one], boxes[other])
    _flows(plan, boxes, wires)
    return Layout(boxes, wires, plan.rows * (tall + gap) - gap)


def _place(plan: Plan, block: Block, width: int) -> tuple[int, int]:
    """The column and the width of a box in a U."""
    step = 2 if width >= _ROOMY else 1 if width >= _TIGHT else 0
    inmost = step * max(other.row for other in plan.blocks if other.side != "middle")
    wide = max(1, min(_WIDEST_BOX, (width - 2 * inmost - (_LEAST_MIDDLE if step else 2)) // 2))
    if block.side == "middle":
        return (width - wide) // 2, wide
    return (step * block.row if block.side == "left" else width - wide - step * block.row), wide


def _in_flow(width: int) -> tuple[int, int]:
    wide = min(width, 2 * _WIDEST_BOX)
    return (width - wide) // 2, wide


# --- lines between boxes ----------------------------------------------------------------------------------------------


def _across(wires: dict[int, list[Wire]], left: Box, right: Box) -> None:
    """A line from a box to the one beside it."""
    start, length = left.x + left.width, right.x - left.x - left.width
    if length > 1:
        wires.setdefault(left.y + left.height // 2, []).append(Wire(start, "─" * (length - 1) + "▶"))


def _flows(plan: Plan, boxes: tuple[Box, ...], wires: dict[int, list[Wire]]) -> None:
    """Lines from each box to the one that runs after it."""
    for before, after in pairwise(boxes):
        one, other = plan.blocks[before.number], plan.blocks[after.number]
        if one.side == other.side:
            _straight(wires, before, after)
        elif one.side == "left" and other.side == "middle":
            _round(wires, before, after)
        elif one.side == "middle" and other.side == "right":
            _round(wires, after, before)
        elif (one.side, other.side, one.row) == ("left", "right", other.row):
            _across(wires, before, after)


def _straight(wires: dict[int, list[Wire]], before: Box, after: Box) -> None:
    """Down to the next box, or up to it."""
    upper, lower = (before, after) if before.y < after.y else (after, before)
    x = max(upper.x, lower.x) + 2
    lines = range(upper.y + upper.height, lower.y)
    for y in lines:
        end = "▼" if before is upper and y == lines[-1] else "▲" if before is lower and y == lines[0] else "│"
        wires.setdefault(y, []).append(Wire(x, end))


def _round(wires: dict[int, list[Wire]], upper: Box, middle: Box) -> None:
    """Round the corner between a side of the U and its lowest box."""
    y = middle.y + middle.height // 2
    comes = upper.x < middle.x
    x = upper.x + 2 if comes else upper.x + upper.width - 3
    for above in range(upper.y + upper.height, y):
        wires.setdefault(above, []).append(Wire(x, "│" if comes or above > upper.y + upper.height else "▲"))
    if comes and middle.x - x > 1:
        wires.setdefault(y, []).append(Wire(x, "╰" + "─" * (middle.x - x - 2) + "▶"))
    elif not comes and x >= middle.x + middle.width:
        wires.setdefault(y, []).append(Wire(middle.x + middle.width, "─" * (x - middle.x - middle.width) + "╯"))


# --- the text of a box --------------------------------------------------------------------------------------------------


class Words(NamedTuple):
    """What a box tells of its block."""

    size: str
    """Resolution and channels."""
    value: str
    about: str = ""
    """Told where there is room for it."""


def box_line(block: Block, box: Box, dy: int, words: Words, *, marked: bool) -> list[Piece]:
    """A line of a box, exactly as wide as it is; `marked`: with a heavy border."""
    size, value = words.size, words.value
    if box.height == 1:
        return _flat(block, box.width, size, value, marked=marked)
    corners, rule, side = ("┏┓┗┛", "━", "┃") if marked else ("╭╮╰╯", "─", "│")
    inner = box.width - 4
    if dy == 0:
        name = _cut(safe_text(block.name[:200], limit=60), max(1, inner - (cell_len(size) + 2 if size else 0)))
        size = size if cell_len(name) + 2 + cell_len(size) <= inner else ""
        line = rule * max(0, inner - cell_len(name) - (cell_len(size) + 2 if size else 0))
        tail = [Piece(f" {size}", "size"), Piece(f" {corners[1]}", "edge")] if size else [Piece(corners[1], "edge")]
        fill = f" {line}{'' if size else rule}" if size else f" {line}"
        return _exactly([Piece(f"{corners[0]} ", "edge"), Piece(name, "name"), Piece(fill, "edge"), *tail], box.width)
    if dy == box.height - 1:
        return [Piece(corners[2] + rule * (box.width - 2) + corners[3], "edge")]
    apart = box.height > 3  # the value has a line of its own
    if dy == 1:
        pieces = _cells(block, inner - (0 if apart else cell_len(value) + 1))
        told = "" if apart else value
    else:
        told = value
        pieces = [Piece(_cut(safe_text(words.about[:200], limit=60), max(0, inner - cell_len(value) - 1)), "size")]
    used = sum(cell_len(piece.text) for piece in pieces)
    filling = [Piece(" " * max(0, inner - used - cell_len(told)), "gap"), Piece(told, "value")]
    inside = _exactly([*pieces, *filling], max(0, inner))
    return [Piece(f"{side} ", "edge"), *inside, Piece(f" {side}", "edge")]


def _flat(block: Block, width: int, size: str, value: str, *, marked: bool) -> list[Piece]:
    """A box in one line: name, size, cells, value, as far as they fit."""
    edge = Piece("┃" if marked else "▌", "edge")
    name_width = _NAME if width >= _LONG else _SHORT_NAME
    name = f"{set_cell_size(_cut(safe_text(block.name[:200], limit=60), name_width), name_width)} "
    room = width - 1 - cell_len(name)
    shown = f"{size:<{_SIZE}} " if room > _SIZE else ""
    room -= cell_len(shown)
    told = f" {value}" if width >= _LONG and room > cell_len(value) + len(block.parts) else ""
    room -= cell_len(told)
    cells = _cells(block, min(room, max(1, 2 * len(block.parts) - 2)))
    used = sum(cell_len(piece.text) for piece in cells)
    pieces = [edge, Piece(name, "name"), Piece(shown, "size"), *cells, Piece(" " * (room - used), "gap"), Piece(told, "value")]
    return _exactly([piece for piece in pieces if piece.text], width)


def _cells(block: Block, room: int) -> list[Piece]:
    """The cells of what is in a block, as wide as there is room for; those for which there is none are counted."""
    count = len(block.parts)
    if not count or room < 1:
        return []
    if 4 * count - 1 <= room:
        pieces = []
        for number, part in enumerate(block.parts):
            pieces += [Piece(f" {part.letter} ", "cell", number), *([Piece(" ", "gap")] if number < count - 1 else [])]
        return pieces
    if 2 * count - 1 <= room:
        pieces = []
        for number, part in enumerate(block.parts):
            pieces += [Piece(part.letter, "cell", number), *([Piece(" ", "gap")] if number < count - 1 else [])]
        return pieces
    if count <= room:
        return [Piece(part.letter, "cell", number) for number, part in enumerate(block.parts)]
    more = f"+{count}"
    shown = max(0, room - len(more))
    pieces = [Piece(part.letter, "cell", number) for number, part in enumerate(block.parts[:shown])]
    return [*pieces, Piece(f"+{count - shown}"[:room], "gap")]


def _exactly(pieces: list[Piece], width: int) -> list[Piece]:
    """Cut, or filled up, to a width."""
    found: list[Piece] = []
    left = width
    for piece in pieces:
        text = piece.text if cell_len(piece.text) <= left else set_cell_size(piece.text, left)
        if text:
            found.append(piece._replace(text=text))
        left -= cell_len(text)
    return [*found, *([Piece(" " * left, "gap")] if left else [])]


def _cut(text: str, width: int) -> str:
    if width < 1:
        return ""
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"
