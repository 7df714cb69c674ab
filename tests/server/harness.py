"""A server in the test's own event loop, with real sockets, a real database and a real (if small) worker process."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from sdtui import settings
from sdtui.params import GenerationParams
from sdtui.protocol import (
    JOB_ENDS,
    Jobs,
    ListJobs,
    Message,
    PreviewOptions,
    Refused,
    Replay,
    ReplayDone,
    ServerStatus,
    Status,
    Submit,
)
from sdtui.server.client import Client, server_running
from sdtui.server.endpoint import Endpoint
from sdtui.server.limits import Limits
from sdtui.server.server import Server
from sdtui.server.store import Store

FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
FAKE_COMMAND = (sys.executable, str(FAKE_WORKER))
DEADLINE_S = 20.0
PATIENT = Limits(terminate_s=0.2, tidy_s=0.0)
"""For a worker that obeys: the machine may be busy."""
HASTY = Limits(cancel_s=0.2, cancel_while_loading_s=0.2, terminate_s=0.2, stop_s=0.2, pause_at_stop_s=0.2)
"""For a worker that does not."""
Wanted = TypeVar("Wanted", bound=Message)


class Served:
    """A server that runs, and how to talk to it."""

    def __init__(self, server: Server, store: Store, task: asyncio.Task[None], place: Endpoint) -> None:
        self.server = server
        self.task = task
        self._place = place
        self.store = store
        self._clients: list[Client] = []

    async def client(self, name: str = "test", *, subscribe: bool = True, previews: bool = False) -> Client:
        client = await Client.connect(name=name, subscribe=subscribe, previews=previews, start=False)
        self._clients.append(client)
        return client

    async def stop(self) -> None:
        """An orderly stop, after which another server may begin."""
        self.server.stop("the test says so")
        for client in self._clients:
            await client.close()
        async with asyncio.timeout(DEADLINE_S):
            await self.task
        self._place.close()


@contextlib.asynccontextmanager
async def serving(
    *, limits: Limits = PATIENT, configured: settings.Settings | None = None, command: tuple[str, ...] = FAKE_COMMAND
) -> AsyncIterator[Served]:
    """A server on the test's own socket and database; stopped in order at the end."""
    store = await Store.open(settings.database_path())
    server = Server(
        configured or settings.Settings(),
        store,
        worker_command=command,
        worker_log=settings.worker_log_path(),
        server_log=settings.server_log_path(),
        limits=limits,
    )
    place = Endpoint(settings.socket_path())
    task = asyncio.create_task(server.serve(place, place.open()))
    served = Served(server, store, task, place)
    try:
        await until(server_running, "a listening server")
        yield served
    finally:
        await served.stop()


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until `condition` holds; fail after the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < end, f"{what} did not come true within {DEADLINE_S:.0f} s"
        await asyncio.sleep(0.005)


def job(name: str, prompt: str = "a red cat", **changes: object) -> Submit:
    """A submission with this name and prompt."""
    submit = Submit(
        job=name, params=GenerationParams(prompt=prompt), output_dir="/pictures", preview=PreviewOptions(max_per_s=60.0)
    )
    return msgspec.structs.replace(submit, **changes)


async def events_until(client: Client, enough: Callable[[Message], bool]) -> list[Message]:
    """What the client gets, up to and with the first message that is enough."""
    got: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        async for message in client.events():
            got.append(message)
            if enough(message):
                return got
    raise AssertionError(f"the server went away after {Counter(type(message).__name__ for message in got)}")


async def first(client: Client, kind: type[Wanted]) -> Wanted:
    """The next message of this kind."""
    message = (await events_until(client, lambda message: isinstance(message, kind)))[-1]
    assert isinstance(message, kind)
    return message


async def end_of(client: Client, name: str) -> Message:
    """How a job ended."""
    got = await events_until(client, lambda message: isinstance(message, JOB_ENDS) and getattr(message, "job", "") == name)
    return got[-1]


async def status(client: Client) -> ServerStatus:
    """The server's status."""
    await client.send(Status())
    return await first(client, ServerStatus)


async def state_of(store: Store, name: str) -> str | None:
    """The state of a job as the database has it."""
    found = await store.job(name)
    return None if found is None else found.row.state


async def asked(client: Client, command: Message, kind: type[Wanted]) -> Wanted:
    """Send a command and wait for the answer of this kind; a refusal fails."""
    await client.send(command)
    got = await events_until(client, lambda message: isinstance(message, kind | Refused))
    assert isinstance(got[-1], kind), got[-1]
    return got[-1]


async def names_in_order(client: Client) -> list[str]:
    """What runs, waits and is paused, in the queue's order."""
    return [row.job for row in (await asked(client, ListJobs(which="queue", limit=1000), Jobs)).jobs]


async def record_of(client: Client, name: str) -> list[Message]:
    """All that is recorded of a job."""
    await client.send(Replay(job=name))
    got = await events_until(client, lambda message: isinstance(message, ReplayDone) and message.job == name)
    return [message for message in got if getattr(message, "job", None) == name]
