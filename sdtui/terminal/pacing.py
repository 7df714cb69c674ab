"""How much a line carries, and when the next frame may go: learnt from how long each frame took to be acknowledged.

A frame is acknowledged when the terminal answers a question that was written behind it, so buffers on the way (the
pseudo-terminal's, ssh's window, the network's) are all drained by then. One frame is in flight at most.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

FRAME_S: Final = 0.1
"""A frame should be through in this time: five a second then leave half of the line to text."""
_SHARE: Final = 0.5
"""The most of the line's time that pictures take; what is typed must still be echoed at once."""
_LEAST_BYTES: Final = 1_500
_MOST_BYTES: Final = 1 << 20
_UNMEASURABLE_S: Final = 0.004
"""What drains faster than this is as fast as the machine; a rate would be noise."""
_SMOOTHING: Final = 0.4
LOST_S: Final = 3.0
"""An acknowledgement that has not come so long after it was due is not waited for any longer."""
_SLOWEST_BYTES_PER_S: Final = 10_000.0
"""Of a line that is not known: 80 kilobits a second. Giving up too early would let pictures pile up on it."""
_SEEN: Final = 12
"""Frames behind the shown rate: steady, and yet follows a change within seconds."""
_NEAR_S: Final = 0.03
"""A round trip within one machine or one house."""
_STILL_PATIENCE_S: Final = 0.3
"""A finished picture that takes longer than this is preceded by a small one."""


class Pacer:
    """Knows the line to one terminal. All sizes in bytes as written, all times in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, latency_s: float | None = None) -> None:
        """`latency_s`: a round trip that was measured before, as by the probe."""
        self._clock = clock
        self.latency_s = latency_s
        """The quickest answer so far."""
        self.bytes_per_s: float | None = None
        """None until a frame was slow enough to tell."""
        self._sent: tuple[float, int] | None = None
        self._due_at = 0.0
        self._frames: deque[tuple[float, int]] = deque(maxlen=_SEEN)

    @property
    def patience_s(self) -> float:
        """How long after it was sent the frame in flight is waited for."""
        size_bytes = self._sent[1] if self._sent is not None else 0
        slowly = _SLOWEST_BYTES_PER_S if self.bytes_per_s is None else self.bytes_per_s / 4
        return LOST_S + (self.latency_s or 0.0) + size_bytes / max(slowly, 1.0)

    @property
    def in_flight(self) -> bool:
        """Whether a frame was sent that the terminal has not acknowledged; one that seems lost counts no longer."""
        return self._sent is not None and self._clock() - self._sent[0] < self.patience_s

    def wait_s(self) -> float:
        """How long until the line may carry another frame; while one is in flight, until it would count as lost."""
        now = self._clock()
        if self._sent is not None:
            started, size_bytes = self._sent
            if now < started + self.patience_s:
                return started + self.patience_s - now
            # The line is slow beyond measure, or somebody swallowed the answer: go on with less.
            self._sent = None
            self._learn(size_bytes / (now - started))
        return max(0.0, self._due_at - now)

    def sent(self, size_bytes: int, *, live: bool = True) -> None:
        """A picture of this size was handed to the line; 0 for a question alone, which measures the round trip.

        `live`: it is one of many, and counts in the figures.
        """
        now = self._clock()
        self._sent = now, size_bytes
        if live:
            self._frames.append((now, size_bytes))

    def acknowledged(self) -> None:
        """The terminal has drawn it."""
        if self._sent is None:
            return
        now = self._clock()
        started, size_bytes = self._sent
        self._sent = None
        elapsed_s = now - started
        if self.latency_s is None or elapsed_s < self.latency_s:
            # The first frame tells nothing of the rate unless the round trip was known before: send an empty one first.
            self.latency_s = elapsed_s
        drain_s = elapsed_s - self.latency_s
        if drain_s > _UNMEASURABLE_S and size_bytes >= _LEAST_BYTES:
            self._learn(size_bytes / drain_s)
        elif self.bytes_per_s is not None and drain_s <= _UNMEASURABLE_S:
            self._learn(self.bytes_per_s * 2)  # it has become faster than can be told
        self._due_at = now + drain_s * (1 - _SHARE) / _SHARE

    def _learn(self, bytes_per_s: float) -> None:
        known = self.bytes_per_s
        self.bytes_per_s = bytes_per_s if known is None else known + _SMOOTHING * (bytes_per_s - known)

    def budget_bytes(self) -> int:
        """What a live frame may take now."""
        if self.bytes_per_s is None:
            return _MOST_BYTES
        return int(min(_MOST_BYTES, max(_LEAST_BYTES, self.bytes_per_s * FRAME_S)))

    def is_slow_for(self, size_bytes: int) -> bool:
        """Whether so many bytes would keep the user waiting for a picture; of a line far away that is not known, yes."""
        if self.bytes_per_s is None:
            return self.latency_s is not None and self.latency_s > _NEAR_S
        return size_bytes / self.bytes_per_s > _STILL_PATIENCE_S

    def figures(self) -> tuple[int, float] | None:
        """Bytes a frame and frames a second, over the last few frames; None while there are too few."""
        if len(self._frames) < 3:
            return None
        span_s = self._frames[-1][0] - self._frames[0][0]
        if span_s <= 0 or self._clock() - self._frames[-1][0] > LOST_S:
            return None
        mean_bytes = sum(size for _, size in self._frames) / len(self._frames)
        return round(mean_bytes), (len(self._frames) - 1) / span_s
