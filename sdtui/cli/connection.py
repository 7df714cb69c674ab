"""A client of the server for one command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeVar

from sdtui.cli.output import EXIT_BAD_INPUT, CommandError
from sdtui.protocol import JobRow, Jobs, ListJobs, Message, Refused
from sdtui.server.client import Client, ServerUnavailable

_ANSWER_S: Final = 30.0
"""The server answers at once; it is given this long when the machine is swamped."""
_PAGE: Final = 500
"""Rows asked for at once; the server sends as many of them as a frame holds."""
Answer = TypeVar("Answer", bound=Message)
Which = Literal["all", "queue", "ended"]


@asynccontextmanager
async def connected(*, subscribe: bool = False, previews: bool = False, start: bool = True) -> AsyncIterator[Client]:
    """A connected client; the server is started where none answers and `start` says so. Raises `CommandError`."""
    try:
        client = await Client.connect(name="cli", subscribe=subscribe, previews=previews, start=start)
        try:
            yield client
        finally:
            await client.close()
    except ServerUnavailable as error:
        raise CommandError(str(error)) from error


async def ask(
    client: Client, command: Message, *wanted: type[Answer], job: str | None = None, patience_s: float | None = _ANSWER_S
) -> Answer:
    """Send a command and return the first answer of a wanted type, about `job` where that is given. Raises `CommandError`.

    `patience_s`: None for what is done only at the end of a step or a picture.
    """
    await client.send(command)
    try:
        async with asyncio.timeout(patience_s):
            async for message in client.events():
                if isinstance(message, wanted) and job in (None, getattr(message, "job", None)):
                    return message
                if isinstance(message, Refused):
                    raise CommandError(message.message, EXIT_BAD_INPUT)
    except TimeoutError:
        raise CommandError(f"The server did not answer within {_ANSWER_S:.0f} s; see sdtui server log.") from None
    raise CommandError("The server went away before it answered; see sdtui server log.")


async def list_jobs(client: Client, which: Which, limit: int, offset: int = 0) -> tuple[list[JobRow], Jobs]:
    """Up to `limit` rows, asked for page by page, and the last answer, whose counts are of all jobs. Raises `CommandError`."""
    rows: list[JobRow] = []
    while True:
        page = ListJobs(limit=min(_PAGE, limit - len(rows)), offset=offset + len(rows), which=which)
        answer = await ask(client, page, Jobs)
        rows += answer.jobs
        if not answer.jobs or len(rows) >= limit or offset + len(rows) >= answer.total:
            return rows[:limit], answer
