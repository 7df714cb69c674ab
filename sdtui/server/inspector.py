"""A client's end of the inspector: the process is started when something is asked, and ended when nothing was for a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, overload

import msgspec

from sdtui import settings
from sdtui.protocol import (
    CompareWeights,
    DryRunDone,
    InspectionFailed,
    InspectorReply,
    InspectorRequest,
    MeasureWeight,
    ModulesRead,
    PickleRead,
    ProtocolError,
    ReadModules,
    ReadPickle,
    ReadSource,
    RunDry,
    SourceRead,
    WeightMeasured,
    WeightsCompared,
    encode,
    read_message,
)
from sdtui.server.launch import tail
from sdtui.server.logfile import open_log

COMMAND: Final = (sys.executable, "-m", "sdtui.worker.inspector")
IDLE_S: Final = 60.0
"""torch takes some 400 MB of memory, which nobody should miss for longer."""
PATIENCE_S: Final = 180.0
"""The first answer waits for the imports, 10 s on a busy machine; the largest dry run takes as long again."""
_END_S: Final = 2.0
_READ_LIMIT_BYTES: Final = 1 << 20
_Request = TypeVar("_Request", bound=InspectorRequest)


class InspectorError(Exception):
    """A request that got no answer; one sentence for the user."""


class Inspector:
    """One inspector process at a time, whichever that is just now; belongs to one event loop."""

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        *,
        log_path: Path | None = None,
        idle_s: float = IDLE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._command = tuple(command)
        self._log_path = log_path or settings.server_log_path().with_name("inspector.log")
        self._idle_s = idle_s
        self._patience_s = patience_s
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[InspectorReply]] = {}
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
        """Start the process now, so that its imports are done when the first request comes. Raises `InspectorError`."""
        async with self._starting:
            if self._process is None:
                await self._spawn()
        self._rest()

    @overload
    async def request(self, message: ReadModules) -> ModulesRead: ...
    @overload
    async def request(self, message: ReadPickle) -> PickleRead: ...
    @overload
    async def request(self, message: RunDry) -> DryRunDone: ...
    @overload
    async def request(self, message: MeasureWeight) -> WeightMeasured: ...
    @overload
    async def request(self, message: CompareWeights) -> WeightsCompared: ...
    @overload
    async def request(self, message: ReadSource) -> SourceRead: ...
    async def request(self, message: InspectorRequest) -> InspectorReply:
        """The reply to a message, whose number is chosen here. Raises `InspectorError` where there is none."""
        await self.start()
        process = self._process
        if process is None or process.stdin is None:
            raise InspectorError("The inspector ended before it was asked.")
        self._last += 1
        number = self._last
        waiting: asyncio.Future[InspectorReply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            process.stdin.write(encode(_numbered(message, number)))
            async with asyncio.timeout(self._patience_s):
                reply = await waiting
        except ProtocolError as error:
            raise InspectorError(str(error)) from error
        except TimeoutError as error:
            self._end(process)
            raise InspectorError(f"The inspector did not answer within {self._patience_s:g} s, and was ended.") from error
        finally:
            self._waiting.pop(number, None)
            self._rest()
        if isinstance(reply, InspectionFailed):
            raise InspectorError(reply.message)
        return reply

    async def close(self) -> None:
        """End the process; whoever still waits gets an `InspectorError`. A later request starts another one."""
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
            raise InspectorError(f"The inspector could not be started: {error}") from error
        self._process = process
        self._keep(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out replies until the process ends."""
        why = "The inspector ended"
        try:
            while process.stdout is not None and (reply := await read_message(process.stdout)) is not None:
                if isinstance(reply, InspectorReply):
                    self._hand_over(reply)
        except ProtocolError as error:
            why = f"The inspector sent what is no message ({error})"
        if self._process is process:  # else it is known that it ends, and why
            lines = tail(self._log_path, 1, start=self._log_start)
            self._fail(f"{why}. Its log ends with: {lines[0]}" if lines else f"{why}.")
            self._end(process)

    def _hand_over(self, reply: InspectorReply) -> None:
        waiting = self._waiting.get(reply.request)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    def _end(self, process: asyncio.subprocess.Process) -> None:
        """From now on this is no inspector of ours; it is seen to that it ends."""
        if self._process is process:
            self._process = None
        self._keep(_let_go(process))
        self._fail("The inspector was ended.")

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail(self, why: str) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(InspectorError(why))

    def _rest(self) -> None:
        """Begin to wait anew for the time when nobody needs it."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle)

    def _end_idle(self) -> None:
        if self._process is not None and not self._waiting:
            self._end(self._process)


def _numbered(message: _Request, number: int) -> _Request:
    return msgspec.structs.replace(message, request=number)


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
