"""What control characters and sequences do to the characters of a screen (ECMA-48, DEC STD 070)."""

from __future__ import annotations

from collections.abc import Callable

from sdtui.bench.screen.cells import Cells


def control(cells: Cells, code: int) -> bool:
    """Carry out a C0 control character; whether it is one that programs send."""
    if code == 8:
        cells.move(cells.row, cells.column - 1)
    elif code == 9:
        cells.tab()
    elif code in (10, 11, 12):
        cells.feed_line()
    elif code == 13:
        cells.move(cells.row, 0)
    return 7 <= code <= 13


def escape(cells: Cells, sequence: bytes) -> bool:
    """Carry out `ESC` and what follows; whether it is known."""
    actions: dict[bytes, Callable[[], None]] = {
        b"7": cells.save,
        b"8": cells.restore,
        b"D": cells.feed_line,
        b"E": lambda: _next_line(cells),
    }
    if sequence in actions:
        actions[sequence]()
        return True
    return sequence in (b"=", b">", b"(B", b")B")


def _next_line(cells: Cells) -> None:
    cells.move(cells.row, 0)
    cells.feed_line()


def edit(cells: Cells, final: bytes, numbers: list[int]) -> None:
    """Carry out a control sequence without prefix. Raises `ValueError` for one that is not known, or leads off the screen."""
    first = numbers[0] if numbers else 0
    count = max(1, first)
    second = max(1, numbers[1]) if len(numbers) > 1 else 1
    actions: dict[bytes, Callable[[], None]] = {
        b"A": lambda: cells.move(cells.row - count, cells.column),
        b"B": lambda: cells.move(cells.row + count, cells.column),
        b"C": lambda: cells.move(cells.row, cells.column + count),
        b"D": lambda: cells.move(cells.row, cells.column - count),
        b"E": lambda: cells.move(cells.row + count, 0),
        b"F": lambda: cells.move(cells.row - count, 0),
        b"G": lambda: cells.move(cells.row, count - 1),
        b"H": lambda: cells.move(count - 1, second - 1),
        b"J": lambda: cells.erase_display(first),
        b"K": lambda: cells.erase_line(first),
        b"S": lambda: cells.scroll(count),
        b"X": lambda: cells.erase(cells.row, cells.column, cells.column + count),
        b"d": lambda: cells.move(count - 1, cells.column),
        b"f": lambda: cells.move(count - 1, second - 1),
        b"s": cells.save,
        b"u": cells.restore,
    }
    if final not in actions:
        raise ValueError("not known")
    actions[final]()
    if final in (b"H", b"f") and (count > cells.rows or second > cells.columns):
        raise ValueError(f"the screen has {cells.rows} rows of {cells.columns} columns")
