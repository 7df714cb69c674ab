"""A server that says what a test wants it to, on the real socket, so that rare ends of a job can be had at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdtui.params import GenerationParams
from sdtui.protocol import PROTOCOL_VERSION, Message, Submit, Welcome, encode, read_message

Script = Callable[[Message], Sequence[Message] | None]
"""What to answer to a command; None closes the connection."""


@contextmanager
def scripted_server(socket: Path, script: Script) -> Iterator[list[Message]]:
    """Serve in a thread while the block runs; yields the commands that came."""
    commands: list[Message] = []
    ready = threading.Event()
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        welcome = Welcome(protocol=PROTOCOL_VERSION, version="0", pid=1, worker="ready", model=None, jobs=())
        writer.write(encode(welcome))
        while (command := await read_message(reader)) is not None:
            commands.append(command)
            replies = script(command)
            if replies is None:
                break
            for message in replies:
                writer.write(encode(message))
            await writer.drain()
        writer.close()

    async def serve() -> None:
        socket.parent.mkdir(mode=0o700, exist_ok=True)
        server = await asyncio.start_unix_server(answer, socket)
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield commands
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def submitted(commands: Sequence[Message]) -> GenerationParams:
    """The parameters of the one job that came."""
    (submit,) = (command for command in commands if isinstance(command, Submit))
    return submit.params
