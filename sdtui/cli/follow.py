"""Submit a job and follow it to its end; Ctrl-C cancels it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from sdtui.cli.connection import connected
from sdtui.cli.output import CommandError, note
from sdtui.protocol import (
    JOB_ENDS,
    Cancel,
    DownloadProgress,
    JobCancelled,
    JobFailed,
    JobFinished,
    Message,
    ModelFailed,
    ModelLoaded,
    Refused,
    Submit,
    WorkerDied,
    WorkerReady,
    WorkerStage,
)

if TYPE_CHECKING:
    from sdtui.cli.progress import Reporter
    from sdtui.server.client import Client

End = JobFinished | JobFailed | JobCancelled | Refused
_ABOUT_THE_WORKER: Final = (WorkerStage, WorkerReady, DownloadProgress, ModelLoaded, ModelFailed, WorkerDied)


class Follower:
    """One job of this command, from `Submit` to the message that ends it."""

    def __init__(self, submit: Submit, reporters: Sequence[Reporter]) -> None:
        self._submit = submit
        self._reporters = reporters
        self._client: Client | None = None
        self._cancelling: asyncio.Task[None] | None = None

    async def run(self) -> End:
        """The message that ended the job. Raises `CommandError` when the server goes, `CancelledError` on a second Ctrl-C."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, task)
        try:
            wants_previews = self._submit.preview.method != "off"
            async with connected(subscribe=True, previews=wants_previews) as client:
                self._client = client
                if client.welcome.worker != "ready":
                    self._show(WorkerStage(stage=client.welcome.worker, state="started"))
                await client.send(self._submit)
                return await self._follow(client)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _follow(self, client: Client) -> End:
        async for message in client.events():
            if isinstance(message, Refused):
                if message.job == self._submit.job and self._cancelling is None:
                    return message
            elif getattr(message, "job", None) == self._submit.job or isinstance(message, _ABOUT_THE_WORKER):
                self._show(message)
                if isinstance(message, JOB_ENDS):
                    return message
        raise CommandError(
            f"The server went away. What it had recorded: sdtui jobs {self._submit.job}; why it went: sdtui server log."
        )

    def _show(self, message: Message) -> None:
        for reporter in self._reporters:
            reporter.show(message)

    def _interrupt(self, task: asyncio.Task[Any] | None) -> None:
        """The first signal cancels the job and waits for its end, the second leaves at once."""
        if self._client is None or self._cancelling is not None:
            if task is not None:
                task.cancel()
            return
        note("Cancelling; Ctrl-C again leaves at once.")
        self._cancelling = asyncio.create_task(self._client.send(Cancel(job=self._submit.job)))
