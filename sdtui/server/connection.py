"""One client as the server sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from sdtui.protocol import Hello, Message, encode
from sdtui.server.limits import Limits
from sdtui.server.outbox import Outbox, OutboxFull
from sdtui.text import safe_text

_WRITE_BUFFER_BYTES: Final = 64 * 1024
"""What asyncio may hold back: little, so that a preview which is outdated is still ours to replace."""
log = logging.getLogger(__name__)


class Connection:
    """A client's outgoing side, and what it asked for."""

    def __init__(self, writer: asyncio.StreamWriter, pid: int, limits: Limits) -> None:
        self._send_s = limits.send_s
        self._writer = writer
        self._writer.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self.outbox = Outbox(limits.outbox_bytes, limits.outbox_frames)
        self._sender = asyncio.create_task(self._send_all())
        self.pid = pid
        self.hello: Hello | None = None
        self.counts = False
        """Whether it keeps the server from leaving; who only asks for the status does not."""
        self.jobs: set[str] = set()
        """Unfinished jobs that it submitted or asked to replay."""
        self.replaying: set[str] = set()
        """Jobs whose events come from the database just now; live ones would overtake them."""

    def __str__(self) -> str:
        name = safe_text(self.hello.client, limit=40) if self.hello else ""
        return f"client {name!r} (pid {self.pid})" if name else f"a client (pid {self.pid})"

    @property
    def subscribed(self) -> bool:
        """Whether it wants every event."""
        return self.hello is not None and self.hello.subscribe

    def follows(self, job: str) -> bool:
        """Whether it gets this job's events live."""
        return self.is_told_of(job) and job not in self.replaying

    def is_told_of(self, job: str) -> bool:
        """Whether it gets what is told of this job and recorded nowhere."""
        return self.subscribed or job in self.jobs

    def send(self, message: Message) -> None:
        """Queue a message."""
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Queue a frame; a client that is too far behind is dropped."""
        try:
            self.outbox.put(frame)
        except OutboxFull as error:
            self.drop(f"it does not read: {error}")

    def send_if_room(self, frame: bytes) -> None:
        """Queue a frame that a client may miss; one that is behind goes without, so that it never is too far behind."""
        if self.outbox.has_room:
            self.send_frame(frame)

    def send_preview(self, frame: bytes) -> None:
        """Offer a preview, which takes the place of one that still waits."""
        if self.hello is not None and self.hello.previews:
            self.outbox.put_preview(frame)

    def forget_preview(self) -> None:
        """Do not send the preview that waits."""
        self.outbox.forget_preview()

    async def room(self) -> None:
        """Wait until there is room for many more frames, or until the client is gone."""
        room = asyncio.ensure_future(self.outbox.room())
        try:
            await asyncio.wait((room, self._sender), return_when=asyncio.FIRST_COMPLETED)
        finally:
            room.cancel()
        if self._sender.done():
            raise ConnectionResetError("the client is gone")

    def drop(self, why: str) -> None:
        """End the connection at once, without sending what waits."""
        if not self._writer.transport.is_closing():
            log.warning("%s is dropped: %s", self, why)
        self._writer.transport.abort()
        self._sender.cancel()

    async def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, as far as the client takes it, and end the connection."""
        self.outbox.close()
        await asyncio.wait((self._sender,), timeout=timeout_s)
        self._sender.cancel()
        self._writer.close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    async def _send_all(self) -> None:
        with contextlib.suppress(OSError):
            while (frame := await self.outbox.get()) is not None:
                self._writer.write(frame)
                try:
                    async with asyncio.timeout(self._send_s):
                        await self._writer.drain()
                except TimeoutError:
                    self.drop(f"it has not read for {self._send_s:.0f} s")
                    return
