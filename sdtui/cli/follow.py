"""Follow a job to its end, through servers that stop, die and come back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from sdtui.cli.connection import connected
from sdtui.cli.output import CommandError, note
from sdtui.protocol import (
    ENDED,
    JOB_ENDS,
    JOB_EVENTS,
    Cancel,
    DownloadProgress,
    GetJob,
    ImageSaved,
    JobCancelled,
    JobChanged,
    JobDeleted,
    JobFailed,
    JobFinished,
    JobResumed,
    Message,
    ModelFailed,
    ModelLoaded,
    PreviewReady,
    Refused,
    Replay,
    ReplayDone,
    StepDecoded,
    StepFinished,
    StepNotDecoded,
    Submit,
    WorkerDied,
    WorkerReady,
    WorkerStage,
    encode,
)
from sdtui.server.client import ServerUnavailable

if TYPE_CHECKING:
    from sdtui.cli.progress import Reporter
    from sdtui.server.client import Client

End = JobFinished | JobFailed | JobCancelled | Refused
_ABOUT_THE_WORKER: Final = (WorkerStage, WorkerReady, DownloadProgress, ModelLoaded, ModelFailed, WorkerDied)
_FUTILE: Final = 4
"""Connections in a row that brought nothing new; then something is wrong that another one will not mend."""
_PAUSE_S: Final = 0.1
"""Before the second try; twice as long before each further one."""


class Follower:
    """One job, from its beginning to the message that ends it."""

    def __init__(
        self,
        job: str,
        reporters: Sequence[Reporter],
        *,
        submit: Submit | None = None,
        previews: bool = False,
        interrupt: Literal["cancel", "leave"] = "cancel",
    ) -> None:
        """`submit`: the job is new. `interrupt`: what the first Ctrl-C does; the second always leaves."""
        self._job = job
        self._reporters = reporters
        self._submit = submit
        self._previews = previews
        self._leaves = interrupt == "leave"
        self._told = Told()
        self._client: Client | None = None
        self._asked: Literal["submit", "replay", "state"] | None = None
        """The command that is not answered yet."""
        self._end: End | None = None
        """The latest end in a record that is being sent again; a job may have been begun anew after it."""
        self._submitted = False
        self._cancelling = False
        self._sending: asyncio.Task[None] | None = None

    async def run(self) -> End:
        """The message that ended the job.

        Raises `CommandError` when there is no server, `CancelledError` when the user leaves.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, task)
        try:
            return await self._through_all_connections()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _through_all_connections(self) -> End:
        futile = 0
        while True:
            known = self._told.count
            try:
                async with connected(subscribe=True, previews=self._previews) as client:
                    end = await self._through(client)
            except CommandError as error:
                if known:
                    raise CommandError(
                        f"{error}\nJob {self._job} goes on with the next server: sdtui attach {self._job}"
                    ) from error
                raise
            finally:
                self._client = None
            if end is not None:
                return end
            futile = 0 if self._told.count > known else futile + 1
            if futile == _FUTILE:
                raise CommandError(
                    f"The server went away. What it had recorded: sdtui jobs {self._job}; why it went: sdtui server log."
                )
            note("The connection to the server broke; connecting again.")
            await asyncio.sleep(_PAUSE_S * 2**futile)

    async def _through(self, client: Client) -> End | None:
        """Follow over one connection; None when it breaks."""
        self._client = client
        if client.welcome.worker != "ready":
            self._show(WorkerStage(stage=client.welcome.worker, state="started"))
        with suppress(ServerUnavailable):
            await self._begin(client)
            async for message in client.events():
                end = await self._take(client, message)
                if end is not None:
                    return end
        return None

    async def _begin(self, client: Client) -> None:
        self._end = None
        if self._submit is not None and not self._submitted:
            await self._send_submit(client, self._submit)
            return
        self._asked = "replay"
        await client.send(Replay(job=self._job))

    async def _send_submit(self, client: Client, submit: Submit) -> None:
        self._asked = "submit"
        self._submitted = True
        await client.send(submit)

    async def _take(self, client: Client, message: Message) -> End | None:
        """Do with one message what is to be done; the end, when it is that. Raises `CommandError` for a deleted job."""
        if isinstance(message, _ABOUT_THE_WORKER):
            self._show(message)
        if getattr(message, "job", None) != self._job:
            return None
        match message:
            case Refused():
                return await self._refused(client, message)
            case ReplayDone():
                self._asked = None
                if self._end is not None:
                    self._asked = "state"
                    await client.send(GetJob(job=self._job))
                elif self._cancelling:
                    await client.send(Cancel(job=self._job))
            case JobChanged() if self._asked == "state":
                self._asked = None
                return self._end if message.row.state in ENDED else None
            case JobDeleted():
                raise CommandError(f"Job {self._job} was deleted.")
            case _ if isinstance(message, JOB_EVENTS):
                return self._event(message)
        return None

    def _event(self, message: Message) -> End | None:
        if isinstance(message, StepDecoded | StepNotDecoded):  # somebody looks at a step; the job may have ended long ago
            self._show(message)
            return None
        again = self._asked == "replay"
        if self._asked == "submit":
            self._asked = None
        if self._told.is_new(message, again=again):
            self._show(message)
        if not isinstance(message, JOB_ENDS):
            self._end = None
            return None
        self._end = message
        return None if again else message

    async def _refused(self, client: Client, message: Refused) -> End | None:
        """What a refusal means depends on what was asked; that of a cancellation which came too late means nothing."""
        asked, self._asked = self._asked, None
        if asked == "replay" and self._submit is not None and not self._told.count:
            await self._send_submit(client, self._submit)  # the server went before it had the job
            return None
        if asked == "replay" and self._told.count:
            raise CommandError(f"The server has no record of job {self._job} any more.")
        return message if asked in ("submit", "replay") else self._end

    def _show(self, message: Message) -> None:
        for reporter in self._reporters:
            reporter.show(message)

    def _interrupt(self, task: asyncio.Task[Any] | None) -> None:
        """The first signal cancels the job and waits for its end, the second leaves at once."""
        if self._leaves or self._cancelling or (self._submit is not None and not self._submitted):
            if task is not None:
                task.cancel()
            return
        note("Cancelling; Ctrl-C again leaves at once.")
        self._cancelling = True
        self._sending = asyncio.create_task(self._send_cancel())

    async def _send_cancel(self) -> None:
        """Where the connection is broken or the record is being read, it is sent after that."""
        if self._client is not None and self._asked != "replay":
            with suppress(ServerUnavailable):
                await self._client.send(Cancel(job=self._job))


class Told:
    """What was shown already: a record that is sent again, or a step that is repeated, is not shown twice."""

    def __init__(self) -> None:
        self._messages: set[int] = set()
        self._steps: set[tuple[int, int]] = set()
        self._images: set[str] = set()
        self.count = 0
        """How many messages were new."""

    def is_new(self, message: Message, *, again: bool) -> bool:
        """Whether to show a message. `again`: it comes from the record, from its beginning."""
        match message:
            case PreviewReady():
                return True
            case StepFinished():
                new = _added(self._steps, (message.batch_index, message.step_index))
            case ImageSaved():
                new = _added(self._images, message.path)
            case _:
                new = _added(self._messages, hash(encode(message)))
        self.count += new
        if new and isinstance(message, JobResumed):  # what comes from here on is computed again
            place = (message.batch_index, message.steps_done)
            self._steps = {step for step in self._steps if step < place}
        return new or not (again or isinstance(message, StepFinished | ImageSaved))


def _added(known: set[Any], item: object) -> bool:
    """Whether it was not known before."""
    before = len(known)
    known.add(item)
    return len(known) > before
