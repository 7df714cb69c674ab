"""The server: clients on one side, queue, history and worker on the other."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sqlite3
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import sdtui
from sdtui.protocol import (
    JOB_ENDS,
    JOB_STOPS,
    PROTOCOL_VERSION,
    DecodeStep,
    EndedDeleted,
    GetJob,
    Heartbeat,
    Hello,
    JobDeleted,
    JobEvent,
    ListJobs,
    LoadModel,
    Message,
    ModulesRan,
    PreviewReady,
    ProtocolError,
    QueueChanged,
    QueueCommand,
    Refused,
    Replay,
    ServerStatus,
    Shutdown,
    Status,
    StepDecoded,
    StepNotDecoded,
    Submit,
    WaitingCancelled,
    Welcome,
    WorkerDied,
    WorkerEvent,
    WorkerReady,
    encode,
    read_message,
)
from sdtui.server import endpoint
from sdtui.server.commands import QueueCommands
from sdtui.server.connection import Connection
from sdtui.server.decoding import Decodings
from sdtui.server.initial_images import InitialImages
from sdtui.server.limits import Limits
from sdtui.server.queue import JobQueue
from sdtui.server.replay import fitting, replay
from sdtui.server.store import Store, is_recorded
from sdtui.server.supervisor import Supervisor
from sdtui.server.tapes import MIB, Tapes
from sdtui.settings import Settings, SettingsError, initial_dir, runtime_dir, tapes_dir, worker_record_path

_WELCOME_JOBS: Final = 50
"""A client that wants to see more of the queue asks for it."""
log = logging.getLogger(__name__)


class Server:
    """One user's server. `serve` runs until `stop` is called, a client asks for it, or nobody needs it any more."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        worker_command: Sequence[str],
        worker_log: Path,
        server_log: Path,
        worker_umask: int = -1,
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._server_log = server_log
        self._limits = limits or Limits()
        self._started_at = time.monotonic()
        self._idle_since = time.monotonic()
        self._leave: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()
        self.connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._endpoint: endpoint.Endpoint | None = None
        self.supervisor = Supervisor(
            worker_command, worker_log, self, self._limits, umask=worker_umask, record_path=worker_record_path()
        )
        tapes = Tapes(tapes_dir(), settings.server.tape_budget_mb * MIB)
        self.queue = JobQueue(store, tapes, self.supervisor, emit=self.publish, limits=self._limits, settings=settings.server)
        self._commands = QueueCommands(self.queue, store, tapes)
        self.decodings = Decodings(self.supervisor, self.queue, store, tapes, tell=self._tell_of_step)
        self._initial_images = InitialImages(initial_dir(), store)

    async def serve(self, place: endpoint.Endpoint, listener: socket.socket) -> None:
        """Take clients on a socket that `place` has bound, until told to stop, then end everything in order."""
        self._endpoint = place
        self.supervisor.end_leftover()
        self.queue.restore(await self._store.unended(), await self._store.queue_values())
        self._initial_images.prune_later()
        self.supervisor.start().add_done_callback(self._on_supervisor_ended)
        self._listening = await self._listen(listener)
        keeper = asyncio.create_task(self._keep_reachable(place))
        self._note_activity()
        try:
            await self._stop.wait()
        finally:
            keeper.cancel()
            self._listening.close()
            await self._end()

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        server = await asyncio.start_unix_server(self._on_client, sock=listener, backlog=128)
        log.info("server %s (pid %d) listens on %s", sdtui.__version__, os.getpid(), listener.getsockname())
        return server

    async def _keep_reachable(self, place: endpoint.Endpoint) -> None:
        """Make the socket again where it was removed, as at a logout; leave where everything was."""
        trouble = ""
        while not self._stop.is_set():
            await asyncio.sleep(self._limits.socket_check_s)
            try:
                if not self._store.path.exists():
                    self.stop(f"its database {self._store.path} is gone")
                elif place.is_lost():
                    runtime_dir()
                    listener = place.open()
                    self._listening.close()
                    self._listening = await self._listen(listener)
                trouble = ""
            except (endpoint.EndpointError, SettingsError, OSError) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    log.warning("the server cannot be reached: %s", error)

    def stop(self, why: str) -> None:
        """Begin an orderly stop."""
        log.info("stopping: %s", why)
        self._stop.set()

    def _on_supervisor_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("the supervisor failed", exc_info=error)
            self.stop("it cannot keep a worker")

    async def _end(self) -> None:
        """The running job is cut short, the worker ends, clients get what is left for them."""
        if self._leave is not None:
            self._leave.cancel()
        await self.queue.stop()
        await self.supervisor.stop()
        await self.queue.end()
        await self.decodings.end()
        await self._initial_images.end()
        await self._store.close()
        await asyncio.gather(*(connection.close() for connection in self.connections))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        log.info("stopped")

    # --- clients ----------------------------------------------------------------------------------------------------

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid = endpoint.peer_credentials(writer.get_extra_info("socket"))
        if uid != os.getuid():
            log.warning("a process of user %d (pid %d) is turned away: this server is user %d's", uid, pid, os.getuid())
            writer.transport.abort()
            return
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        connection = Connection(writer, pid, self._limits)
        try:
            await self._converse(connection, reader)
        except ProtocolError as error:
            log.warning("%s is dropped: %s", connection, error)
            connection.send(Refused(message=f"That is no message of sdtui's: {error}"))
        except OSError as error:
            log.info("%s is gone: %s", connection, error)
        finally:
            self.connections.discard(connection)
            self.decodings.forget(connection)
            self._note_activity()
            await connection.close()

    async def _converse(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        try:
            async with asyncio.timeout(self._limits.hello_s):
                hello = await read_message(reader)
        except TimeoutError:
            log.warning("%s is dropped: it did not say hello within %.0f s", connection, self._limits.hello_s)
            return
        if hello is None:
            return
        refused = self._check_hello(hello)
        if refused is not None or not isinstance(hello, Hello):
            log.warning("%s is refused: %s", connection, refused.message if refused else "no hello")
            connection.send(refused or Refused(message="The first message must be a hello."))
            return
        connection.hello = hello
        self._welcome(connection)
        while (message := await read_message(reader)) is not None:
            try:
                if not await self._carry_out(connection, message):
                    return
            except sqlite3.Error as error:
                log.error("%s for %s failed: %s", type(message).__name__, connection, error)
                job = getattr(message, "job", None)
                connection.send(Refused(message=f"The history {self._store.path} could not be read: {error}.", job=job))

    def _check_hello(self, hello: Message) -> Refused | None:
        if not isinstance(hello, Hello):
            return Refused(message=f"The first message must be a hello, not {type(hello).__name__}.")
        if hello.protocol != PROTOCOL_VERSION:
            return Refused(
                message=f"The running server (sdtui {sdtui.__version__}, pid {os.getpid()}) speaks protocol {PROTOCOL_VERSION}, "
                f"this client {hello.protocol}. Stop it with `sdtui server stop`; the next start takes the installed version."
            )
        if len(self.connections) >= self._settings.server.max_clients:
            limit = self._settings.server.max_clients
            return Refused(
                message=f"The server has {limit} clients, which is its limit (max_clients in [server] of the settings)."
            )
        return None

    def _welcome(self, connection: Connection) -> None:
        connection.counts = connection.subscribed
        connection.send(
            Welcome(
                protocol=PROTOCOL_VERSION,
                version=sdtui.__version__,
                pid=os.getpid(),
                worker=self.supervisor.stage,
                model=self.supervisor.model,
                jobs=fitting(self.queue.rows(_WELCOME_JOBS)),
                queue=self.queue.status(),
            )
        )
        self.connections.add(connection)
        self._note_activity()
        running = self.queue.running
        if running is not None and running.preview is not None and connection.subscribed:
            connection.send_preview(encode(running.preview))

    async def _carry_out(self, connection: Connection, command: Message) -> bool:
        """Do what a client asks; False when it talks nonsense and must go."""
        if not isinstance(command, Status):
            connection.counts = True
            self._note_activity()
        refused: Refused | None = None
        match command:
            case Submit():
                refused = await self._submit(connection, command)
            case _ if isinstance(command, QueueCommand):
                refused = await self._change_queue(connection, command)
            case ListJobs():
                connection.send(await self._commands.list(command))
            case GetJob():
                connection.send(await self._commands.get(command))
            case Replay(job=job):
                self._start_replay(connection, job)
            case DecodeStep():
                refused = await self.decodings.ask(connection, command)
            case Status():
                connection.send(self._status())
            case LoadModel():
                self.supervisor.load(command)
            case Shutdown():
                self.stop(f"{connection} asked for it")
            case _:
                log.warning("%s is dropped: it sent a %s, which is no command", connection, type(command).__name__)
                connection.send(Refused(message=f"{type(command).__name__} is not for a client to send here."))
                return False
        if refused is not None:
            log.info("%s: refused: %s", connection, refused.message)
            connection.send(refused)
        return True

    async def _change_queue(self, connection: Connection, command: QueueCommand) -> Refused | None:
        """Who changes a job follows it from then on; the others who follow it are told too."""
        job = getattr(command, "new_job", None) or getattr(command, "job", None)
        followed = job is None or job in connection.jobs
        if job is not None:
            connection.jobs.add(job)
        answer = await self._commands.carry_out(command)
        if isinstance(answer, Refused):
            if job is not None and not followed:
                connection.jobs.discard(job)
            return answer
        about_all = isinstance(answer, QueueChanged | WaitingCancelled | EndedDeleted)
        if answer is not None and about_all and not connection.subscribed:
            connection.send(answer)
        if answer is not None:
            self.publish(answer)
        if isinstance(answer, JobDeleted | EndedDeleted):
            self._initial_images.prune_later()
        return None

    async def _submit(self, connection: Connection, submit: Submit) -> Refused | None:
        followed = submit.job in connection.jobs
        connection.jobs.add(submit.job)  # before it is queued: the first events come at once
        refused = await self.queue.submit(submit)
        if refused is not None and not followed:
            connection.jobs.discard(submit.job)
        return refused

    def _start_replay(self, connection: Connection, job: str) -> None:
        if job in connection.replaying:
            return
        task = asyncio.create_task(replay(connection, self._store, job, self.queue.has))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _status(self) -> ServerStatus:
        running = self.queue.running
        return ServerStatus(
            version=sdtui.__version__,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started_at,
            idle_s=0.0 if self._needed else time.monotonic() - self._idle_since,
            idle_timeout_s=self._settings.server.idle_timeout_s,
            clients=len(self.connections),
            queued=len(self.queue.waiting),
            running=None if running is None else running.name,
            worker_pid=self.supervisor.pid,
            worker=self.supervisor.stage,
            socket=str(self._endpoint.path) if self._endpoint else "",
            database=str(self._store.path),
            log=str(self._server_log),
        )

    # --- events -----------------------------------------------------------------------------------------------------

    def publish(self, event: Message) -> None:
        """Record an event if it belongs to a job's record, and send it to everybody who follows."""
        frame = encode(event)
        job: str | None = getattr(event, "job", None)
        if job is not None and is_recorded(event):
            self._store.record(event, job, frame)
        for connection in list(self.connections):
            if isinstance(event, PreviewReady):
                if connection.follows(event.job):
                    connection.send_preview(frame)
                continue
            if connection.follows(job) if job is not None else self._wants(connection, event):
                (connection.send_if_room if isinstance(event, ModulesRan) else connection.send_frame)(frame)
        if isinstance(event, JOB_STOPS):
            self._forget_previews()
        if isinstance(event, (*JOB_ENDS, JobDeleted)):
            self._forget(event.job)
        if isinstance(event, QueueChanged):
            self._note_activity()

    def _tell_of_step(self, answer: StepDecoded | StepNotDecoded, asked_by: Collection[Connection]) -> None:
        """Send what became of a step's picture, which is recorded nowhere, to who follows the job and who asked."""
        frame = encode(answer)
        for connection in list(self.connections):
            if connection in asked_by or connection.is_told_of(answer.job):
                connection.send_frame(frame)

    @staticmethod
    def _wants(connection: Connection, event: Message) -> bool:
        """Who only follows its own jobs still wants to know what the worker does before they begin."""
        return connection.subscribed or (bool(connection.jobs) and not isinstance(event, Heartbeat | QueueChanged))

    def _forget_previews(self) -> None:
        for connection in self.connections:
            connection.forget_preview()

    def _forget(self, job: str) -> None:
        for connection in self.connections:
            if job not in connection.replaying:
                connection.jobs.discard(job)

    # --- the worker -------------------------------------------------------------------------------------------------

    def first_model(self) -> LoadModel | None:
        """The last good model, else the one of the settings; a job that runs brings its own."""
        if self.queue.running is not None:
            return None
        return self.supervisor.last_load or LoadModel(model=self._settings.general.model)

    def on_worker_event(self, event: Message) -> None:
        """Pass on what the worker says."""
        if isinstance(event, StepDecoded | StepNotDecoded):
            self.decodings.on_answer(event)
            return
        if isinstance(event, JobEvent | Refused):
            self.queue.on_job_event(event)
            return
        if not isinstance(event, WorkerEvent):
            log.warning("the worker sent a %s, which is not for it to send", type(event).__name__)
            return
        self.publish(event)
        if isinstance(event, WorkerReady):
            self.queue.on_worker_ready()
            self.decodings.on_worker_ready()

    def on_worker_died(self, event: WorkerDied) -> None:
        """Tell everybody; the running job goes on with the next one."""
        self.publish(event)
        self.queue.on_worker_died(event)
        self.decodings.on_worker_gone(event.reason, for_good=False)

    def on_worker_given_up(self, event: WorkerDied) -> None:
        """Tell everybody; no job can run."""
        self.publish(event)
        self.queue.on_worker_given_up(event)
        self.decodings.on_worker_gone(event.reason, for_good=True)

    # --- leaving ----------------------------------------------------------------------------------------------------

    @property
    def _needed(self) -> bool:
        return self.queue.busy or any(connection.counts for connection in self.connections)

    def _note_activity(self) -> None:
        """Start or stop the clock that runs while nobody needs the server."""
        if self._needed:
            if self._leave is not None:
                self._leave.cancel()
                self._leave = None
        elif self._leave is None and not self._stop.is_set():
            self._idle_since = time.monotonic()
            timeout_s = self._settings.server.idle_timeout_s
            self._leave = asyncio.get_running_loop().call_later(timeout_s, self.stop, f"nobody needed it for {timeout_s:.0f} s")
