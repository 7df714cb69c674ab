"""A client's end of a process of its own: it is started when something is asked, and ended when nothing was for a while.

Requests and replies are numbered messages over the process's stdin and stdout; its stderr is a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import msgspec

from sdtui import settings
from sdtui.protocol import Message, ProtocolError, encode, read_message
from sdtui.server.launch import tail
from sdtui.server.logfile import open_log

_END_S: Final = 2.0
_READ_LIMIT_BYTES: Final = 1 << 20


class CompanionError(Exception):
    """A request that got no answer; one sentence for the user."""


class Numbered(Protocol):
    """A request or a reply; a reply has the number of its request."""

    @property
    def request(self) -> int:
        """Chosen by the client's end."""


Reply = TypeVar("Reply", bound=Numbered)


class Companion(Generic[Reply]):
    """One process at a time, whichever that is just now; belongs to one event loop. A subclass says which process, and types."""

    name: ClassVar[str]
    """In sentences and as the log's: `inspector`."""
    replies: ClassVar[Any]
    """The union of the replies' classes."""
    error: ClassVar[type[CompanionError]] = CompanionError
    """What is raised."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log_path: Path | None,
        idle_s: float | None,
        patience_s: float | None,
        on_message: Callable[[Message], None] = lambda _: None,
    ) -> None:
        """`idle_s`, `patience_s`: None waits for ever. `on_message` is given what answers no request."""
        self._command = tuple(command)
        self._log_path = log_path or settings.server_log_path().with_name(f"{self.name}.log")
        self._idle_s = idle_s
        self._patience_s = patience_s
        self._on_message = on_message
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._last = 0
        self._idle: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        """Those that read from a process or see to its end."""
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process id; None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process now, so that its imports are done when the first request comes. Raises `error`."""
        async with self._starting:
            if self._process is None:
                await self._spawn()
        self._rest()

    async def ask(self, message: Any) -> Reply:
        """The reply to a message, whose number is chosen here; which reply that is, a subclass sees to. Raises `error`."""
        await self.start()
        process = self._process
        if process is None or process.stdin is None:
            raise self.error(f"The {self.name} ended before it was asked.")
        self._last += 1
        number = self._last
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            process.stdin.write(encode(msgspec.structs.replace(message, request=number)))
            async with asyncio.timeout(self._patience_s):
                return await waiting
        except ProtocolError as error:
            raise self.error(str(error)) from error
        except TimeoutError as error:
            self._end(process)
            raise self.error(f"The {self.name} did not answer within {self._patience_s:g} s, and was ended.") from error
        finally:
            self._waiting.pop(number, None)
            self._rest()

    async def close(self) -> None:
        """End the process; whoever still waits gets an `error`. A later request starts another one."""
        if self._idle is not None:
            self._idle.cancel()
        async with self._starting:
            if self._process is not None:
                self._end(self._process)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _spawn(self) -> None:
        try:
            with open_log(self._log_path) as file:
                self._log_start = file.seek(0, os.SEEK_END)
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=file,
                    start_new_session=True,  # ctrl+c in the terminal is not for it
                    limit=_READ_LIMIT_BYTES,
                )
        except OSError as error:
            raise self.error(f"The {self.name} could not be started: {error}") from error
        self._process = process
        self._keep(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out replies until the process ends."""
        why = f"The {self.name} ended"
        try:
            while process.stdout is not None and (message := await read_message(process.stdout)) is not None:
                self._take(message)
        except ProtocolError as error:
            why = f"The {self.name} sent what is no message ({error})"
        if self._process is process:  # else it is known that it ends, and why
            lines = tail(self._log_path, 1, start=self._log_start)
            self._fail(f"{why}. Its log ends with: {lines[0]}" if lines else f"{why}.")
            self._end(process)

    def _take(self, message: Message) -> None:
        if not isinstance(message, self.replies):
            self._on_message(message)
            return
        waiting = self._waiting.get(message.request)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def _end(self, process: asyncio.subprocess.Process) -> None:
        """From now on this is no process of ours; it is seen to that it ends."""
        if self._process is process:
            self._process = None
        self._keep(_let_go(process))
        self._fail(f"The {self.name} was ended.")

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail(self, why: str) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self.error(why))

    def _rest(self) -> None:
        """Begin to wait anew for the time when nobody needs it."""
        if self._idle is not None:
            self._idle.cancel()
        if self._idle_s is not None:
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle)

    def _end_idle(self) -> None:
        if self._process is not None and not self._waiting:
            self._end(self._process)


async def _let_go(process: asyncio.subprocess.Process) -> None:
    """The end of its stdin ends it; if not, a signal does."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
