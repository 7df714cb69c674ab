"""The frames that wait for one client: bounded, so a client that does not read costs neither memory nor anybody's time."""

from __future__ import annotations

import asyncio
from collections import deque


class OutboxFull(Exception):
    """The client has not read for so long that the limit is reached."""


class Outbox:
    """First in, first out; of previews only the latest is kept, and it goes when nothing else waits."""

    def __init__(self, max_bytes: int, max_frames: int) -> None:
        self.max_bytes = max_bytes
        self.max_frames = max_frames
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._preview: bytes | None = None
        self._closed = False
        self._news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def put(self, frame: bytes) -> None:
        """Add a frame. Raises `OutboxFull`."""
        if self._bytes + len(frame) > self.max_bytes or len(self._frames) >= self.max_frames:
            raise OutboxFull(f"{len(self._frames):,} frames of {self._bytes:,} bytes wait")
        self._frames.append(frame)
        self._bytes += len(frame)
        if self._bytes * 2 > self.max_bytes or len(self._frames) * 2 > self.max_frames:
            self._has_room.clear()
        self._news.set()

    def put_preview(self, frame: bytes) -> None:
        """Put this preview in the place of the one that waits."""
        self._preview = frame
        self._news.set()

    def forget_preview(self) -> None:
        """Its job has ended; a preview that comes after the end would only confuse."""
        self._preview = None

    def close(self) -> None:
        """Nothing more is added; `get` returns None after the last frame."""
        self._closed = True
        self._news.set()

    @property
    def has_room(self) -> bool:
        """Whether it is at most half full."""
        return self._has_room.is_set()

    async def room(self) -> None:
        """Wait until the outbox is at most half full."""
        await self._has_room.wait()

    async def get(self) -> bytes | None:
        """The next frame, None at the end."""
        while True:
            if self._frames:
                return self._take()
            if self._preview is not None and not self._closed:
                frame, self._preview = self._preview, None
                return frame
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()

    def _take(self) -> bytes:
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        if self._bytes * 2 <= self.max_bytes and len(self._frames) * 2 <= self.max_frames:
            self._has_room.set()
        return frame
