"""Clients that behave, and clients that do not: nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import struct
from collections.abc import AsyncIterator

import msgspec
import pytest

import sdtui
from sdtui import settings
from sdtui.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    Hello,
    JobFinished,
    JobRow,
    JobStarted,
    ListJobs,
    Message,
    PreviewReady,
    Refused,
    StepFinished,
    Welcome,
    encode,
    read_message,
)
from sdtui.server import endpoint
from sdtui.server.client import Client, ServerUnavailable
from sdtui.server.database import Database
from sdtui.server.outbox import Outbox, OutboxFull
from tests.server.harness import DEADLINE_S, PATIENT, Served, end_of, events_until, first, job, serving, status, until


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


async def raw() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(settings.socket_path())


async def answers(reader: asyncio.StreamReader) -> list[Message]:
    """Everything until the server closes."""
    messages: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        while (message := await read_message(reader)) is not None:
            messages.append(message)
    return messages


async def test_a_client_is_welcomed_with_who_and_what(served: Served) -> None:
    client = await served.client()
    welcome = client.welcome
    assert (welcome.protocol, welcome.version, welcome.pid) == (PROTOCOL_VERSION, sdtui.__version__, os.getpid())
    assert welcome.jobs == ()


async def test_the_status_says_where_everything_lies(served: Served) -> None:
    client = await served.client()
    told = await status(client)
    assert (told.clients, told.queued, told.running) == (1, 0, None)
    assert (told.socket, told.database) == (str(settings.socket_path()), str(settings.database_path()))
    assert told.uptime_s >= 0


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n", "the limit is"),
        ("huge", struct.pack(">I", 2**31), "the limit is"),
        ("text", struct.pack(">I", 5) + b"hello", "no known message"),
        ("event", encode(JobStarted(job="a", seed=1, params=job("a").params, total_images=1)), "not JobStarted"),
        ("impatient", encode(Cancel(job="a")), "first message must be a hello"),
    ],
)
async def test_who_does_not_begin_with_a_hello_is_told_and_dropped(
    served: Served, caplog: pytest.LogCaptureFixture, name: str, data: bytes, part: str
) -> None:
    reader, writer = await raw()
    writer.write(data)
    (answer,) = await answers(reader)
    assert isinstance(answer, Refused)
    assert part in answer.message
    assert f"(pid {os.getpid()})" in caplog.text
    writer.close()


@pytest.mark.parametrize("data", [b"\0\0\0\3abc", encode(JobFinished(job="one", elapsed_s=0.0, images=()))])
async def test_a_client_that_talks_nonsense_is_named_in_the_log_and_others_are_not_disturbed(
    served: Served, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    good = await served.client("good")
    reader, writer = await raw()
    writer.write(encode(Hello(client="ba\x1b[31md")) + data)
    got = await answers(reader)
    assert isinstance(got[0], Welcome)
    assert isinstance(got[-1], Refused)
    assert "client 'bad' (pid" in caplog.text
    await good.send(job("one"))
    assert isinstance(await end_of(good, "one"), JobFinished)
    writer.close()


async def test_who_leaves_in_the_middle_of_a_frame_is_forgotten(served: Served) -> None:
    _, writer = await raw()
    writer.write(encode(Hello(client="short"))[:-2])
    writer.close()
    good = await served.client()
    await until(lambda: len(served.server.connections) == 1)
    assert (await status(good)).clients == 1


async def test_who_says_nothing_is_dropped() -> None:
    async with serving(limits=msgspec.structs.replace(PATIENT, hello_s=0.1)):
        reader, writer = await raw()
        assert await answers(reader) == []
        writer.close()


async def test_another_protocol_is_refused_with_what_to_do(served: Served) -> None:
    reader, writer = await raw()
    writer.write(encode(Hello(protocol=PROTOCOL_VERSION + 1)))
    (refused,) = await answers(reader)
    assert isinstance(refused, Refused)
    assert "`sdtui server stop`" in refused.message
    writer.close()


async def test_a_client_reports_a_refusal_as_it_is(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdtui.server.server.PROTOCOL_VERSION", 99)
    said = rf"speaks protocol 99, this client {PROTOCOL_VERSION}\. Stop it with `sdtui server stop`"
    with pytest.raises(ServerUnavailable, match=said):
        await served.client()


async def test_another_user_is_turned_away(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint, "peer_credentials", lambda _socket: (4242, os.getuid() + 1))
    reader, writer = await raw()
    writer.write(encode(Hello(client="stranger")))
    got: list[Message] = []
    with contextlib.suppress(ConnectionError):
        got = await answers(reader)
    assert got == []
    assert "pid 4242) is turned away" in caplog.text
    writer.close()


async def test_one_client_too_many_is_refused() -> None:
    few = settings.Settings(server=settings.Server(max_clients=2))
    async with serving(configured=few) as served:
        await served.client()
        second = await served.client()
        with pytest.raises(ServerUnavailable, match=r"2 clients, which is its limit \(max_clients"):
            await served.client()
        await second.close()
        await until(lambda: len(served.server.connections) == 1)
        await served.client()


async def test_a_client_that_does_not_read_is_dropped_and_others_get_everything(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(limits=msgspec.structs.replace(PATIENT, outbox_bytes=500_000)) as served:
        reader, writer = await raw()
        writer.write(encode(Hello(client="sleeper")))
        await read_message(reader)
        reader._transport.pause_reading()  # asyncio would read ahead for it
        good = await served.client("good")
        await good.send(job("one", "steps 6000"))
        got = await events_until(good, lambda message: isinstance(message, JobFinished))
        assert len([message for message in got if isinstance(message, StepFinished)]) == 6000
        await until(lambda: len(served.server.connections) == 1)
        assert "client 'sleeper'" in caplog.text
        assert "it does not read" in caplog.text
        writer.close()


async def test_a_client_that_is_stuck_is_dropped_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(limits=msgspec.structs.replace(PATIENT, send_s=0.2)) as served:
        reader, writer = await raw()
        writer.write(encode(Hello(client="sleeper")))
        await read_message(reader)
        reader._transport.pause_reading()
        good = await served.client("good")
        await good.send(job("one", "steps 3000"))
        await events_until(good, lambda message: isinstance(message, JobFinished))
        await until(lambda: len(served.server.connections) == 1)
        assert "has not read for" in caplog.text
        writer.close()


async def test_previews_for_a_slow_client_are_replaced_not_queued(served: Served) -> None:
    slow = await served.client("slow", previews=True)
    slow._reader._transport.pause_reading()
    good = await served.client("good")
    frames = 300  # 64 kB each: 19 MB, more than any queue here
    await good.send(job("one", f"big {frames}"))
    await end_of(good, "one")
    slow._reader._transport.resume_reading()
    got = await events_until(slow, lambda message: isinstance(message, JobFinished))
    shown = [message.step_index for message in got if isinstance(message, PreviewReady)]
    assert 0 < len(shown) < frames / 4
    assert shown == sorted(shown)


async def test_no_preview_comes_after_the_end_of_its_job(served: Served) -> None:
    client = await served.client(previews=True)
    other = await served.client("other")
    client._reader._transport.pause_reading()  # so that a preview waits when the job ends
    await other.send(job("one", "big 100"))
    await end_of(other, "one")
    client._reader._transport.resume_reading()
    await end_of(client, "one")
    await other.send(job("two"))
    got = await events_until(client, lambda message: isinstance(message, JobFinished))
    assert not [message for message in got if isinstance(message, PreviewReady) and message.job == "one"]


async def test_closing_a_client_leaves_its_job_to_the_others(served: Served) -> None:
    leaver = await served.client("leaver", subscribe=False)
    stayer = await served.client("stayer")
    await leaver.send(job("one", "steps 200"))
    await first(leaver, JobStarted)
    await leaver.close()
    assert isinstance(await end_of(stayer, "one"), JobFinished)


async def test_sending_to_a_server_that_went_says_so() -> None:
    async with serving() as served:
        client = await Client.connect(name="test", start=False)
        served.server.stop("test")
        assert [message async for message in client.events() if isinstance(message, JobFinished)] == []
    with pytest.raises(ServerUnavailable, match="The server has gone"):
        for _ in range(100):
            await client.send(Cancel(job="a"))
    await client.close()


async def test_a_history_that_cannot_be_read_is_reported_and_the_client_stays(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Database, *_: object) -> list[JobRow]:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(Database, "jobs", broken)
    client = await served.client()
    await client.send(ListJobs())
    refused = await first(client, Refused)
    assert "sdtui.sqlite3 could not be read: database disk image is malformed" in refused.message
    assert (await status(client)).clients == 1


async def test_an_outbox_is_first_in_first_out_and_previews_come_last() -> None:
    outbox = Outbox(100, 10)
    outbox.put_preview(b"old")
    outbox.put_preview(b"new")
    outbox.put(b"one")
    outbox.put(b"two")
    assert [await outbox.get() for _ in range(3)] == [b"one", b"two", b"new"]


@pytest.mark.parametrize(("size", "count"), [(60, 1), (1, 10)])
async def test_an_outbox_has_limits_in_bytes_and_in_frames(size: int, count: int) -> None:
    outbox = Outbox(100, 10)
    for _ in range(count):
        outbox.put(b"x" * size)
    with pytest.raises(OutboxFull):
        outbox.put(b"x" * 41)


async def test_an_outbox_says_when_it_has_room_again() -> None:
    outbox = Outbox(100, 10)
    outbox.put(b"x" * 60)
    waiting = asyncio.ensure_future(outbox.room())
    await asyncio.wait((waiting,), timeout=0.01)
    assert not waiting.done()
    await outbox.get()
    await asyncio.wait_for(waiting, DEADLINE_S)


async def test_a_closed_outbox_gives_what_is_left_and_then_ends() -> None:
    outbox = Outbox(100, 10)
    outbox.put(b"last")
    outbox.put_preview(b"forgotten")
    outbox.close()
    assert [await outbox.get(), await outbox.get()] == [b"last", None]
