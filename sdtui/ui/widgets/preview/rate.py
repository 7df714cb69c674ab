"""How often something happens."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

_SEEN: Final = 12
"""Enough for a steady figure, few enough to follow a change within a second."""


class Rate:
    """Events a second over the last few events."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=_SEEN)

    def tick(self) -> float | None:
        """Count one event; the rate, or None while there are too few."""
        self._times.append(self._clock())
        span = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / span if len(self._times) > 2 and span > 0 else None
