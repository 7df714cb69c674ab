"""A client of the server for one command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from sdtui.cli.output import CommandError
from sdtui.protocol import Message, Refused
from sdtui.server.client import Client, ServerUnavailable

_ANSWER_S = 30.0
"""The server answers at once; it is given this long when the machine is swamped."""
Answer = TypeVar("Answer", bound=Message)


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


async def ask(client: Client, command: Message, wanted: type[Answer]) -> Answer:
    """Send a command and return the first answer of the wanted type. Raises `CommandError`."""
    await client.send(command)
    try:
        async with asyncio.timeout(_ANSWER_S):
            async for message in client.events():
                if isinstance(message, wanted):
                    return message
                if isinstance(message, Refused):
                    raise CommandError(message.message)
    except TimeoutError:
        raise CommandError(f"The server did not answer within {_ANSWER_S:.0f} s; see sdtui server log.") from None
    raise CommandError("The server went away before it answered; see sdtui server log.")
