"""A function as it stands in its file: which lines can run, where its stages begin, and where its loop is."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Final

from sdtui.protocol import ExplainStage
from sdtui.scratch.explanations import explanation_of

_TITLE: Final = re.compile(r"\s*# --- (.+?) ---\s*")
_PACKAGE: Final = "sdtui"
_BLOCKS: Final = ("body", "handlers", "orelse", "finalbody")
"""What a statement of `ast` holds others in."""


@dataclass(frozen=True)
class Listing:
    """Lines are numbers in the file; a statement is called by its first one."""

    name: str
    code: CodeType
    file: str
    """From the package's folder on."""
    first_line: int
    source: str
    statement_at: dict[int, int]
    """For every line that belongs to a statement, the statement's first one; what stands in a block belongs to itself."""
    lines: tuple[int, ...]
    """Of the statements, in the order of the file."""
    stages: tuple[ExplainStage, ...]
    loop: range
    """From the line `for ...` to the last line in it; empty where there is no loop."""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Listing:
        """Read from the file that a function came from; its decorators are a part of it, and what they wrap is what runs."""
        inner = inspect.unwrap(function)
        rows, first_line = inspect.getsourcelines(inner)
        parsed = ast.increment_lineno(ast.parse("".join(rows)), first_line - 1).body[0]
        if not isinstance(parsed, ast.FunctionDef):
            raise TypeError(f"{function!r} is no function.")
        statement_at = {line: first for first, last in _statements(_without_docstring(parsed)) for line in range(first, last + 1)}
        loops = [node for node in parsed.body if isinstance(node, ast.For)]
        return cls(
            name=inner.__name__,
            code=inner.__code__,
            file=_shown(Path(inspect.getfile(inner))),
            first_line=first_line,
            source="".join(rows),
            statement_at=statement_at,
            lines=tuple(sorted(set(statement_at.values()))),
            stages=tuple(_stages(rows, first_line)),
            loop=range(loops[0].lineno, (loops[0].end_lineno or loops[0].lineno) + 1) if loops else range(0),
        )

    def stage_of(self, line: int) -> int:
        """Which stage a line is in, counted from 0; -1 before the first one."""
        return sum(stage.line < line for stage in self.stages) - 1

    def row(self, line: int) -> str:
        """A line as it stands in the file."""
        return self.source.splitlines()[line - self.first_line]

    def place_in(self, line: int, name: str) -> int:
        """Where a line names a variable; what it does not name comes after all that it names."""
        row = self.row(line)
        found = re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", row)
        return found.start() if found else len(row)

    def notes(self) -> dict[int, str]:
        """For each line why it is there."""
        return {line: explanation_of(self.row(line)) for line in self.lines}


def _without_docstring(function: ast.FunctionDef) -> list[ast.stmt]:
    return function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body


def _statements(body: Sequence[ast.stmt | ast.ExceptHandler]) -> Iterator[tuple[int, int]]:
    """First and last line of each statement; of one that holds others, those of its head."""
    for statement in body:
        parts = [part for name in _BLOCKS for part in getattr(statement, name, [])]
        last = statement.end_lineno or statement.lineno
        yield statement.lineno, min([last, *(part.lineno - 1 for part in parts)])
        yield from _statements(parts)


def _stages(rows: list[str], first_line: int) -> Iterator[ExplainStage]:
    for number, row in enumerate(rows, first_line):
        if found := _TITLE.fullmatch(row.rstrip("\n")):
            yield ExplainStage(line=number, title=found[1])


def _shown(file: Path) -> str:
    parts = file.parts
    start = len(parts) - 1 - parts[::-1].index(_PACKAGE) if _PACKAGE in parts else 0
    return "/".join(parts[start:])
