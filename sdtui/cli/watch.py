"""`sdtui jobs --watch`: the queue as it changes, as a table on a terminal and as lines in a pipe."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import Final

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.text import Text

from sdtui.cli.connection import Which, connected
from sdtui.cli.log import log_lines
from sdtui.cli.output import EXIT_DONE, CommandError, note, result
from sdtui.cli.rows import job_lines, state_of, summary
from sdtui.protocol import (
    JOB_EVENTS,
    JOB_STOPS,
    EndedDeleted,
    ImageSaved,
    JobChanged,
    JobDeleted,
    JobQueued,
    JobResumed,
    JobRow,
    Jobs,
    JobStarted,
    ListJobs,
    MemoryRanOut,
    Message,
    PreviewReady,
    QueueChanged,
    StepFinished,
    StorageFreed,
    StorageFull,
    WaitingCancelled,
    WorkerDied,
    as_json,
)
from sdtui.server.client import Client, ServerUnavailable
from sdtui.text import safe_text

_SETTLE_S: Final = 0.2
"""Changes come in bursts, and one list shows them all."""
_RETRY_S: Final = 0.5
"""Between two looks for a server that is gone."""
_ROWS_AROUND: Final = 4
"""Lines of the screen that are no rows of the table."""
_CHANGES_LISTS: Final = (
    *JOB_STOPS, JobQueued, JobStarted, JobChanged, JobDeleted, EndedDeleted, WaitingCancelled, QueueChanged, ImageSaved
)  # fmt: skip
_IN_LINES: Final = (
    *JOB_STOPS, JobQueued, JobStarted, JobResumed, ImageSaved, MemoryRanOut, StorageFull, StorageFreed, WorkerDied
)  # fmt: skip
"""What is worth a line; steps are not."""


def watch_jobs(limit: int, *, json: bool) -> int:
    """Show the queue until Ctrl-C; the exit code. Raises `CommandError` where no server can be started."""
    with suppress(KeyboardInterrupt):
        if not json and sys.stdout.isatty():
            asyncio.run(_watch_on_terminal(limit))
        else:
            asyncio.run(_watch_in_lines(limit, json=json))
    return EXIT_DONE


async def _watch_in_lines(limit: int, *, json: bool) -> None:
    """First what there is, then a line for each change."""
    start = True
    while True:
        try:
            async with connected(subscribe=True, start=start) as client:
                await _ask_for_lists(client, limit)
                async for message in client.events():
                    for line in [_json_of(message)] if json else lines_of(message):
                        if line:
                            result(line)
        except CommandError:
            if start:
                raise
        await _wait_for_another(quiet=not start)
        start = False


def _json_of(message: Message) -> str:
    """An event as JSON; empty for what is no news of a job or of the queue."""
    wanted = isinstance(message, (*JOB_EVENTS, *_CHANGES_LISTS, Jobs)) and not isinstance(message, PreviewReady)
    return as_json(message).decode() if wanted else ""


def lines_of(message: Message) -> list[str]:
    """What a message changes, in lines: the time, the job, and what became of it."""
    now = time.strftime("%H:%M:%S")
    if isinstance(message, Jobs):
        return [f"{now}  {row.job}  {state_of(row)}" for row in message.jobs]
    if isinstance(message, JobChanged):
        return [f"{now}  {message.job}  {state_of(message.row)}, priority {message.row.priority}"]
    if isinstance(message, JobDeleted):
        return [f"{now}  {message.job}  deleted"]
    if isinstance(message, QueueChanged) and (message.held or message.trouble):
        return [f"{now}  queue  {summary(message)}"]
    if not isinstance(message, _IN_LINES):
        return []
    job = getattr(message, "job", "worker")
    return [f"{now}  {job}  {' '.join(line.split())}" for line in log_lines(message)[:1]]


async def _watch_on_terminal(limit: int) -> None:
    """A table that is drawn anew when something changes."""
    console = Console(markup=False, highlight=False, emoji=False)
    board = Board(limit)
    start = True
    with Live(board, console=console, refresh_per_second=4, screen=False, transient=False) as live:
        while True:
            try:
                async with connected(subscribe=True, start=start) as client:
                    board.queue, board.trouble = client.welcome.queue, ""
                    await _show_on(board, client)
            except CommandError:
                if start:
                    raise
            start = False
            board.trouble = "The server is gone; waiting for another one."
            live.refresh()
            await asyncio.sleep(_RETRY_S)


async def _show_on(board: Board, client: Client) -> None:
    """Until the connection breaks."""
    asking: asyncio.Task[None] | None = asyncio.create_task(_ask_for_lists(client, board.limit))
    try:
        async for message in client.events():
            if board.take(message) and (asking is None or asking.done()):
                asking = asyncio.create_task(_ask_soon(client, board))
    finally:
        if asking is not None:
            asking.cancel()


async def _ask_soon(client: Client, board: Board) -> None:
    await asyncio.sleep(_SETTLE_S)
    await _ask_for_lists(client, board.limit)


async def _ask_for_lists(client: Client, limit: int) -> None:
    which: Which
    with suppress(ServerUnavailable):
        for which in ("ended", "queue"):
            await client.send(ListJobs(limit=limit, which=which))


async def _wait_for_another(*, quiet: bool) -> None:
    if not quiet:
        note("The server is gone; waiting for another one.")
    await asyncio.sleep(_RETRY_S)


class Board:
    """The queue as a table: what runs, waits and is paused, and below it what ended last."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.queue = QueueChanged(queued=0, running=None)
        self.trouble = ""
        self._rows: dict[str, list[JobRow]] = {"queue": [], "ended": []}

    def take(self, message: Message) -> bool:
        """Note what a message says; whether the lists must be asked for again."""
        if isinstance(message, Jobs):
            self._rows[message.which] = list(message.jobs)
            return False
        if isinstance(message, QueueChanged):
            self.queue = message
        if isinstance(message, StepFinished):
            self._rows["queue"] = [_stepped(row, message) for row in self._rows["queue"]]
        return isinstance(message, _CHANGES_LISTS)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, cut to the screen."""
        room = max(1, min(self.limit, console.size.height - _ROWS_AROUND))
        live, ended = self._rows["queue"], self._rows["ended"]
        shown = [*live[: max(1, room - min(len(ended), room // 3))]]
        shown += ended[: room - len(shown)]
        lines = [summary(self.queue).capitalize() + "."] if not self.trouble else [self.trouble]
        lines += job_lines(shown) or ["No jobs yet."]
        left = len(live) - sum(row in live for row in shown)
        if left > 0:
            lines.append(f"... and {left:,} more that wait")
        yield Group(*(Text(safe_text(line), no_wrap=True, overflow="ellipsis") for line in lines))


def _stepped(row: JobRow, message: StepFinished) -> JobRow:
    if row.job != message.job:
        return row
    return msgspec.structs.replace(
        row, batch_index=message.batch_index, steps_done=message.step_index + 1, total_steps=message.total_steps
    )
