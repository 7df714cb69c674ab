"""Keeps one worker alive: starts it, passes messages, notices when it dies or hangs, and starts the next one."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from sdtui.protocol import (
    JOB_STOPS,
    DownloadProgress,
    JobStarted,
    LoadModel,
    Message,
    ModelFailed,
    ModelInfo,
    ModelLoaded,
    ProtocolError,
    StepDecoded,
    WorkerDied,
    WorkerReady,
    WorkerStage,
    encode,
    read_message,
)
from sdtui.server.launch import tail
from sdtui.server.leftover import end_leftover, record_worker
from sdtui.server.limits import Limits
from sdtui.server.logfile import open_log
from sdtui.text import safe_text

_READ_LIMIT_BYTES: Final = 1 << 20
_TAIL_LINES: Final = 15
_WATCH_S: Final = 1.0
EXIT_DEVICE_BROKEN: Final = 71
"""How a worker leaves whose CUDA context is spoilt (EX_OSERR of sysexits.h); `sdtui.worker` has the same number."""
log = logging.getLogger(__name__)


class Listener(Protocol):
    """Who wants to know what the worker says and when it dies."""

    def first_model(self) -> LoadModel | None:
        """What a new worker should load, None when it has a job already."""
        ...

    def on_worker_event(self, event: Message) -> None:
        """The worker sent this."""
        ...

    def on_worker_died(self, event: WorkerDied) -> None:
        """The worker is gone; another one is being started."""
        ...

    def on_worker_given_up(self, event: WorkerDied) -> None:
        """The worker is gone, and no other is started until `Supervisor.wake`."""
        ...


class Supervisor:
    """The worker, whichever process that is just now."""

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        listener: Listener,
        limits: Limits,
        *,
        record_path: Path,
        umask: int = -1,
    ) -> None:
        self._command = tuple(command)
        self._log_path = log_path
        self._listener = listener
        self._limits = limits
        self._umask = umask
        self._record_path = record_path
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._open_stages: list[str] = []
        self._last_sign = 0.0
        self._why_killed = ""
        self._asked: LoadModel | None = None
        self._log_start = 0
        self._futile_lives = 0
        self._was_useful = False
        self._settled_at = math.inf
        self.has_given_up = False
        """Whether no worker is started until somebody asks for one."""
        self.ready = False
        """Whether the worker has said that it takes jobs."""
        self.model: ModelInfo | None = None
        self.last_load: LoadModel | None = None
        """The model that a worker last loaded without dying of it."""

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def loading(self) -> bool:
        """Whether it is busy with imports or a model, where it cannot stop at once."""
        return not self.ready or bool(self._open_stages)

    @property
    def stage(self) -> str:
        """`starting`, an unfinished stage's name, `ready` or `down`."""
        if self._process is None:
            return "down"
        if self._open_stages:
            return self._open_stages[-1]
        return "ready" if self.ready else "starting"

    def end_leftover(self) -> None:
        """End a worker that outlived the last server."""
        end_leftover(self._record_path)

    def start(self) -> asyncio.Task[None]:
        """Start the first worker. The task ends when `stop` is called; before that only by a mistake of ours."""
        self._task = asyncio.create_task(self._keep_alive())
        return self._task

    def wake(self) -> None:
        """Try again after giving up."""
        self._wake.set()

    def load(self, command: LoadModel) -> None:
        """Load a model, as soon as there is a worker that can."""
        if self.ready:
            self.send(command)
        else:
            self._asked = command
            self.wake()

    def send(self, message: Message) -> None:
        """Send a command; it is lost when the worker is just dying, and its death is reported."""
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(encode(message))

    def kill(self, why: str) -> None:
        """End this worker: SIGTERM, then SIGKILL. The next one starts."""
        if self._process is not None and (self._ending is None or self._ending.done()):
            self._why_killed = why
            log.warning("the worker (pid %s) is ended: %s", self.pid, why)
            self._ending = asyncio.create_task(_terminate(self._process, self._limits.terminate_s))

    async def stop(self) -> None:
        """End the worker for good: end of its stdin, then SIGTERM, then SIGKILL."""
        self._stopping = True
        self._wake.set()
        if self._process is not None:
            await self._let_go(self._process)
        if self._task is not None:
            await self._task

    async def _let_go(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(self._limits.stop_s):
                await process.wait()
        except TimeoutError:
            await _terminate(process, self._limits.terminate_s)

    async def _keep_alive(self) -> None:
        while not self._stopping:
            self._wake.clear()
            died = await self._one_life()
            if self._stopping:
                return
            log.error("%s", died.reason)
            settled = time.monotonic() - self._settled_at > self._limits.settled_s
            self._futile_lives = 0 if self._was_useful or settled else self._futile_lives + 1
            if self._futile_lives < self._limits.futile_lives:
                self._listener.on_worker_died(died)
                continue
            log.error("the worker died %d times without beginning a job; waiting for the next one", self._futile_lives)
            self._futile_lives = 0
            self.has_given_up = True
            self._wake.clear()  # who asked before is told now
            self._listener.on_worker_given_up(msgspec.structs.replace(died, given_up=True))
            await self._wake.wait()
            self.has_given_up = False

    async def _one_life(self) -> WorkerDied:
        """Start a worker and read what it says until it is gone."""
        self._why_killed, self._was_useful, self._settled_at = "", False, math.inf
        broken = ""
        try:
            process = await self._spawn()
        except OSError as error:
            return WorkerDied(reason=f"The worker could not be started: {error}", exit_code=None, log_tail="")
        if self._stopping:  # the stop came while it was being started
            await self._let_go(process)
        watch = asyncio.create_task(self._watch(process))
        try:
            broken = await self._read(process)
        finally:
            watch.cancel()
            self.ready = False
        if broken:
            self.kill(broken)
        # its pipe is closed: it is gone, or as good as
        code = await _reap(process, self._limits.terminate_s)
        died = self._obituary(code)
        self._process, self.model = None, None
        self._open_stages.clear()
        return died

    async def _spawn(self) -> asyncio.subprocess.Process:
        with open_log(self._log_path) as file:
            self._log_start = file.seek(0, os.SEEK_END)
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                start_new_session=True,
                limit=_READ_LIMIT_BYTES,
                umask=self._umask,
            )
        record_worker(self._record_path, process.pid)
        log.info("worker started (pid %d)", process.pid)
        self._process = process
        self._last_sign = time.monotonic()
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> str:
        """Pass on its events until it closes; why it must be ended, where it talks nonsense."""
        if process.stdout is None:
            return "it has no output"
        try:
            while (event := await read_message(process.stdout)) is not None:
                self._last_sign = time.monotonic()
                self._note(event)
                self._listener.on_worker_event(event)
                if isinstance(event, WorkerReady):
                    self._load_first()
                await asyncio.sleep(0)  # in a burst the clients' senders must have their turn
        except ProtocolError as error:
            return "" if process.returncode is not None else f"it sent what is no message: {error}"
        return ""

    def _load_first(self) -> None:
        """Not earlier: until now its imports kept it busy, and a job may have come that needs another model."""
        command = self._asked or self._listener.first_model()
        self._asked = None
        if command is not None:
            self.send(command)

    def _note(self, event: Message) -> None:
        match event:
            case WorkerStage(stage=stage, state="started"):
                self._open_stages.append(stage)
                if stage == "model":
                    self.model = None
            case WorkerStage(stage=stage):
                self._open_stages = [name for name in self._open_stages if name != stage]
            case WorkerReady():
                self.ready = True
            case JobStarted() | StepDecoded():
                self._was_useful = True
            case ModelLoaded(info=info):
                self.model, self.last_load = info, LoadModel(model=info.model)
            case ModelFailed():
                self.model = None
                self._open_stages.clear()
            case DownloadProgress() if not self._open_stages:
                self._open_stages.append("model")
        if isinstance(event, JOB_STOPS):
            self._open_stages.clear()  # a load that was cancelled does not say so by itself
        self._settled_at = math.inf if self.loading else min(self._settled_at, self._last_sign)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while True:
            await asyncio.sleep(min(_WATCH_S, self._limits.hung_s / 4))
            if process.returncode is not None:
                _kill_group(process.pid)  # a child of its own still holds the pipe open
            silent_s = time.monotonic() - self._last_sign
            if silent_s > (self._limits.hung_while_loading_s if self.loading else self._limits.hung_s):
                self.kill(f"it gave no sign of life for {silent_s:.0f} s")

    def _obituary(self, code: int) -> WorkerDied:
        lines = tail(self._log_path, _TAIL_LINES, start=self._log_start)
        if self._why_killed:
            reason = f"The worker was ended: {self._why_killed}."
        elif code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            reason = f"The worker was killed by {name}{_HINTS.get(name, '')}."
        elif code == EXIT_DEVICE_BROKEN:
            reason = "The device reported an error after which it cannot be used by the same process."
        else:
            reason = f"The worker ended by itself (exit code {code})."
        return WorkerDied(reason=safe_text(reason), exit_code=code, log_tail="\n".join(lines))


_HINTS: Final = {
    "SIGKILL": ", as the kernel does when memory runs out",
    "SIGSEGV": " (a crash in native code; often a driver)",
    "SIGBUS": " (often a model file that changed or a full disk)",
}


async def _reap(process: asyncio.subprocess.Process, patience_s: float) -> int:
    """Its exit code; a process that has closed its output but lives on is ended."""
    try:
        async with asyncio.timeout(patience_s):
            return await process.wait()
    except TimeoutError:
        await _terminate(process, patience_s)
        return await process.wait()


async def _terminate(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """SIGTERM to the process, then SIGKILL to its whole session."""
    try:
        process.terminate()
        async with asyncio.timeout(patience_s):
            await process.wait()
    except ProcessLookupError:
        return
    except TimeoutError:
        _kill_group(process.pid)
        await process.wait()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        log.debug("process group %d is gone already", pid)
