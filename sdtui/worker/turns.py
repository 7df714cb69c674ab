"""Whose statistics are taken in which step, so that looking at every module costs a bounded share of a step."""

from __future__ import annotations

import math
from typing import Final

SHARE: Final = 0.12
"""Of the time of the network's calls in a step; with the telling and what looking does to caches it is twice that."""
MOST: Final = 8
"""Every module's statistics are taken at least once in so many steps."""


class Turns:
    """In the first step all modules have their turn; then every nth, n so that what it took at its least fits into `SHARE`."""

    def __init__(self) -> None:
        self.every = 1
        self.turn = -1
        self._taken, self._taken_s = 0, 0.0
        self._one_s = self._rest_s = self._call_s = math.inf
        """The least that one module's statistics, the rest of looking, and a step's calls without either took."""

    def begin(self) -> None:
        """The network is called for the first time in a step."""
        self.turn = (self.turn + 1) % self.every
        self._taken, self._taken_s = 0, 0.0

    def has(self, number: int) -> bool:
        """Whether the module with this number has its turn."""
        return number % self.every == self.turn

    def took(self, elapsed_s: float) -> None:
        """The statistics of one module that had its turn are taken."""
        self._taken += 1
        self._taken_s += elapsed_s

    def end(self, call_s: float, looking_s: float, modules: int) -> None:
        """A step has ended: the time of its calls by themselves, that of looking, and how many calls of modules take turns."""
        if not self._taken:
            return
        self._one_s = min(self._one_s, self._taken_s / self._taken)
        self._rest_s = min(self._rest_s, max(0.0, looking_s - self._taken_s))
        self._call_s = min(self._call_s, call_s)
        left_s = SHARE * self._call_s - self._rest_s
        every = math.ceil(self._one_s * modules / left_s) if left_s > 0 else MOST
        self.every = min(max(1, every), MOST)
