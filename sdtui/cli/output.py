"""Where the commands write: results to stdout, all else to stderr; and the error that ends a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from sdtui.text import safe_text

EXIT_DONE: Final = 0
EXIT_BAD_INPUT: Final = 2
EXIT_FAILED: Final = 3
EXIT_CANCELLED: Final = 130
EXIT_READER_LEFT: Final = 141
"""As a shell reports a program that was ended by SIGPIPE."""


class CommandError(Exception):
    """Ends a command with a message for the user and an exit code."""

    def __init__(self, message: str, code: int = EXIT_FAILED, *, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail
        """A traceback of another process, shown with `--debug`."""


def result(text: str) -> None:
    """One line of result on stdout, at once. On a terminal it is made safe; in a pipe it goes out byte for byte."""
    if sys.stdout.isatty():
        text = safe_text(text)
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text) + b"\n")
    sys.stdout.buffer.flush()


def result_json(line: bytes) -> None:
    """One JSON object as a line on stdout, at once."""
    sys.stdout.flush()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """A line for the user on stderr, made safe."""
    sys.stderr.write(safe_text(text) + "\n")
    sys.stderr.flush()


def complain(message: str) -> None:
    """An error on stderr, with the program's name; further lines stand below it."""
    for number, line in enumerate(message.splitlines() or [""]):
        note(f"sdtui: {line}" if number == 0 else f"       {line}")


def table(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Rows as lines of aligned columns, two spaces apart; the columns in `right` are aligned to the right."""
    clean = [[safe_text(cell) for cell in row] for row in rows]
    if not clean:
        return []
    widths = [max(len(row[column]) for row in clean) for column in range(len(clean[0]))]
    to_right = frozenset(right)
    return ["  ".join(_pad(row[i], width, i in to_right) for i, width in enumerate(widths)).rstrip() for row in clean]


def _pad(cell: str, width: int, to_right: bool) -> str:
    return cell.rjust(width) if to_right else cell.ljust(width)


def leave_quietly(*, terminal: bool = False) -> None:
    """After the reader of stdout has gone: point stdout at nothing, so that the flush at exit does not complain.

    `terminal`: what has gone is the terminal, and stderr with it.
    """
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr) if terminal else (sys.stdout,):
        os.dup2(nothing, stream.fileno())
