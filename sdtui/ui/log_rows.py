"""The rows of the step log: those of the job itself, and, where they are unfolded, those of its modules between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from sdtui.protocol import ModulesRan
from sdtui.ui.module_runs import DENOISERS, holders
from sdtui.ui.rows import LogRow, ModuleRow, Target

MOST_INNER: Final = 20_000
"""Rows of modules that are kept: some thirty steps where every one of 700 is looked at."""


class _Inner:
    """What the modules of a network did in a step; its rows are made when they are shown."""

    def __init__(self, at: int, event: ModulesRan) -> None:
        self.at = at
        """How many of the job's rows, dropped ones too, came before."""
        self.network = event.network
        self.event = event

    @cached_property
    def rows(self) -> list[ModuleRow]:
        """One for each module."""
        return [ModuleRow(self.network, run) for run in self.event.modules]


class LogRows:
    """`shown` is what there is to draw, in order."""

    def __init__(self) -> None:
        self.shown: list[LogRow] = []
        self.unfolded = False
        """Whether the rows of modules are shown."""
        self._own = self.shown
        self._inner: deque[_Inner] = deque()
        self._inner_count = 0
        self._dropped = 0

    @property
    def own_count(self) -> int:
        """Rows of the job itself."""
        return len(self._own)

    def append(self, rows: Sequence[LogRow]) -> None:
        """The job's own rows."""
        self._own.extend(rows)
        if self.unfolded:
            self.shown.extend(rows)

    def append_modules(self, event: ModulesRan) -> bool:
        """Rows of modules; says whether rows that were shown are gone for it."""
        inner = _Inner(self._dropped + len(self._own), event)
        self._inner.append(inner)
        self._inner_count += len(event.modules)
        if self._inner_count > MOST_INNER:
            while len(self._inner) > 1 and self._inner_count > MOST_INNER // 2:  # not a few with each step
                self._forget_oldest()
            if self.unfolded:
                self._merge()
                return True
        elif self.unfolded:
            self.shown.extend(inner.rows)
        return False

    def _forget_oldest(self) -> None:
        self._inner_count -= len(self._inner.popleft().event.modules)

    def drop(self, count: int) -> None:
        """Drop the job's oldest rows, and those of the modules between them."""
        del self._own[:count]
        self._dropped += count
        while self._inner and self._inner[0].at <= self._dropped:
            self._forget_oldest()
        if self.unfolded:
            self._merge()

    def clear(self) -> None:
        """Forget every row; modules stay folded or unfolded."""
        self._own.clear()
        self._inner.clear()
        self._inner_count = self._dropped = 0
        if self.unfolded:
            self.shown = []

    def toggle(self) -> None:
        """Show the rows of modules, or hide them."""
        self.unfolded = not self.unfolded
        if self.unfolded:
            self._merge()
        else:
            self.shown = self._own

    def _merge(self) -> None:
        merged: list[LogRow] = []
        done = 0
        for inner in self._inner:
            upto = inner.at - self._dropped
            merged += self._own[done:upto]
            merged += inner.rows
            done = upto
        self.shown = merged + self._own[done:]

    # --- finding ----------------------------------------------------------------------------------------------------

    def place_of(self, row: LogRow) -> int | None:
        """Where this very row is shown."""
        return next((place for place, other in enumerate(self.shown) if other is row), None)

    def own_before(self, place: int) -> LogRow | None:
        """The job's own row that is shown there, or the nearest above."""
        return next((row for row in reversed(self.shown[: place + 1]) if not isinstance(row, ModuleRow)), None)

    def last_of(self, target: Target) -> LogRow | None:
        """The last row about a module, or about the nearest that holds it; None where there is none about its network."""
        network, path = target
        for inner in reversed(self._inner) if path else ():
            if _same(inner.network, network):
                rows = {row.run.path: row for row in inner.rows}
                found = next((rows[name] for name in (path, *holders(path)) if name and name in rows), None)
                if found is not None:
                    return found
        return next((row for row in reversed(self._own) if row.target is not None and _same(row.target[0], network)), None)


def _same(one: str, other: str) -> bool:
    """A step's row does not know what the network that denoises is called."""
    return one == other or (one in DENOISERS and other in DENOISERS)
