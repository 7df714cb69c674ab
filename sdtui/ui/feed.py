"""The connection to the server: one task that reads events and posts them to whoever asked, and finds the server again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Final, Protocol

from textual.message import Message as UiMessage
from textual.message_pump import MessagePump

from sdtui.protocol import (
    GetJob,
    Heartbeat,
    JobChanged,
    Message,
    ModelLoaded,
    PreviewReady,
    ProtocolError,
    QueueChanged,
    Refused,
    Replay,
    ReplayDone,
    Welcome,
)
from sdtui.text import safe_text
from sdtui.ui.module_runs import ModuleRuns

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 10.0
"""Waits double between tries: at once for a restart, calm for a machine that has no server."""
_LASTING: Final = (QueueChanged, Heartbeat, ModelLoaded)
"""The latest of each is told to a screen that is made later."""


class Connection(Protocol):
    """What the UI needs of a client; `sdtui.server.client.Client` is the real one."""

    welcome: Welcome

    async def send(self, command: Message) -> None:
        """Send a command."""

    def events(self) -> AsyncIterator[Message]:
        """Everything the server sends, until it goes."""
        ...

    async def close(self) -> None:
        """Close the connection."""


class Connect(Protocol):
    """How a connection is made."""

    def __call__(self, *, name: str, subscribe: bool = True, previews: bool = False) -> Awaitable[Connection]:
        """Connect, starting a server where there is none."""
        ...


class NotConnected(Exception):
    """A command was given while there is no server; the text is for the user."""


class FeedState(UiMessage, bubble=False):
    """The connection changed: `connecting`, `connected` or `lost`."""

    def __init__(self, state: str, reason: str = "", welcome: Welcome | None = None, retry_s: float = 0.0) -> None:
        super().__init__()
        self.state = state
        self.reason = reason
        self.welcome = welcome
        self.retry_s = retry_s


class FeedEvent(UiMessage, bubble=False):
    """An event of the server; `replayed`: from a job's record, or its refusal, asked for by whichever screen."""

    def __init__(self, event: Message, *, replayed: bool = False) -> None:
        super().__init__()
        self.event = event
        self.replayed = replayed


class FeedFrame(UiMessage, bubble=False):
    """A preview; a newer one takes the place of one that was not looked at yet."""

    def __init__(self, event: PreviewReady) -> None:
        super().__init__()
        self.event = event

    def can_replace(self, message: UiMessage) -> bool:
        """Only another frame."""
        return isinstance(message, FeedFrame)


class Feed:
    """Reads the server's events for as long as the app runs."""

    def __init__(self, connect: Connect, name: str = "ui") -> None:
        self._connect = connect
        self._name = name
        self._connection: Connection | None = None
        self._listeners: list[MessagePump] = []
        self._viewers: list[MessagePump] = []
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self._replaying: set[str] = set()
        self._looked_up: set[str] = set()
        self._latest: dict[type[Message], Message] = {}
        self.runs = ModuleRuns()
        """What the modules of the last inspected job did, whether or not a screen shows it."""
        self.last = FeedState("connecting")

    def listen(self, pump: MessagePump) -> None:
        """Post every event but previews to `pump`, and each change of the connection, the latest one at once."""
        self._listeners.append(pump)
        pump.post_message(self._copy(self.last))
        for event in self._latest.values():
            pump.post_message(FeedEvent(event))

    def view(self, pump: MessagePump) -> None:
        """Post previews to `pump`."""
        self._viewers.append(pump)

    def retry(self) -> None:
        """Do not wait for the next try."""
        self._wake.set()

    async def send(self, command: Message) -> None:
        """Send a command, after the try to connect that is under way, if one is. Raises `NotConnected`."""
        await self._tried.wait()
        if self._connection is None:
            raise NotConnected(self.last.reason or "There is no connection to the server yet.")
        if isinstance(command, Replay):
            self._replaying.add(command.job)
        elif isinstance(command, GetJob):
            self._looked_up.add(command.job)
        try:
            await self._connection.send(command)
        except (OSError, ProtocolError) as error:
            raise NotConnected(f"The server is gone: {safe_text(str(error))}") from error

    async def run(self) -> None:
        """Connect, read, and connect again, until cancelled."""
        wait_s = FIRST_WAIT_S
        while True:
            self._announce(FeedState("connecting"))
            started = time.monotonic()
            reason = await self._one_connection()
            if time.monotonic() - started > LONGEST_WAIT_S:
                wait_s = FIRST_WAIT_S  # it was up for a while: not a server that fails to start
            self._announce(FeedState("lost", reason, retry_s=wait_s))
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), wait_s)
                wait_s = FIRST_WAIT_S
            except TimeoutError:
                wait_s = min(LONGEST_WAIT_S, wait_s * 2)

    async def _one_connection(self) -> str:
        try:
            connection = await self._connect(name=self._name, subscribe=True, previews=True)
        except Exception as error:  # whatever keeps the server away, the app stays open and says so
            return safe_text(str(error), multiline=True) or type(error).__name__
        self._connection = connection
        try:
            self.runs.take_welcome(connection.welcome)
            self._announce(FeedState("connected", welcome=connection.welcome))
            async for event in connection.events():
                self._post(event)
        except (OSError, ProtocolError) as error:
            return f"The connection to the server broke: {safe_text(str(error))}"
        finally:
            self._connection = None
            self._replaying.clear()
            self._looked_up.clear()
            self._latest.clear()
            await connection.close()
        return "The server has gone."

    def _post(self, event: Message) -> None:
        if isinstance(event, PreviewReady):
            for pump in self._viewers:
                pump.post_message(FeedFrame(event))
            return
        if isinstance(event, _LASTING):
            self._latest[type(event)] = event
        job = getattr(event, "job", None)
        replayed = job is not None and (job in self._replaying or (isinstance(event, Refused) and job in self._looked_up))
        if isinstance(event, ReplayDone | Refused) and job is not None:
            self._replaying.discard(job)
        if isinstance(event, JobChanged | Refused):
            self._looked_up.discard(event.job or "")
        if not replayed:
            self.runs.take(event)
        for pump in self._listeners:
            pump.post_message(FeedEvent(event, replayed=replayed))

    def _announce(self, state: FeedState) -> None:
        self.last = state
        if state.state == "connecting":
            self._tried.clear()
        else:
            self._tried.set()
        for pump in self._listeners:
            pump.post_message(self._copy(state))

    @staticmethod
    def _copy(state: FeedState) -> FeedState:
        return FeedState(state.state, state.reason, state.welcome, state.retry_s)
