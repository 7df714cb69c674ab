"""The record of a job, told again: in order, complete, and joined to what happens now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sdtui.protocol import (
    Cancel,
    JobCancelled,
    JobFinished,
    JobStarted,
    Message,
    PreviewReady,
    Refused,
    Replay,
    ReplayDone,
    StepFinished,
)
from sdtui.server import replay as replay_module
from sdtui.server.store import is_recorded
from tests.server.fake_worker import step
from tests.server.harness import Served, end_of, events_until, first, job, serving, until


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


async def test_a_finished_job_is_told_again_as_it_was(served: Served) -> None:
    client = await served.client(previews=True)
    await client.send(job("one", "steps 20"))
    live = await events_until(client, lambda message: isinstance(message, JobFinished))
    late = await served.client()
    await late.send(Replay(job="one"))
    again = await events_until(late, lambda message: isinstance(message, ReplayDone))
    assert [message for message in again if is_recorded(message)] == [message for message in live if is_recorded(message)]
    assert type(again[0]).__name__ == "JobQueued"
    assert not [message for message in again if isinstance(message, PreviewReady)]


@pytest.mark.parametrize("subscribe", [True, False])
async def test_a_replay_of_a_running_job_goes_over_into_its_live_events_without_gap(
    served: Served, monkeypatch: pytest.MonkeyPatch, subscribe: bool
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK", 7)  # many rounds, so that live events come in between
    total = 2000
    client = await served.client()
    await client.send(job("one", f"steps {total}"))
    await events_until(client, lambda message: isinstance(message, StepFinished) and message.step_index == 100)
    late = await served.client(subscribe=subscribe)
    await late.send(Replay(job="one"))
    got: list[Message] = []
    seen: set[type[Message]] = set()

    def both(message: Message) -> bool:
        got.append(message)
        seen.add(type(message))
        return {JobFinished, ReplayDone} <= seen

    reading = asyncio.create_task(events_until(client, lambda message: isinstance(message, JobFinished)))
    await events_until(late, both)
    await reading
    replayed = got[next(index for index, message in enumerate(got) if isinstance(message, JobStarted)) :]
    assert [message.step_index for message in replayed if isinstance(message, StepFinished)] == list(range(total))


async def test_an_event_that_comes_while_the_last_ones_are_read_is_told_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await served.client()
    await client.send(job("one", "wait"))
    await first(client, JobStarted)
    read = served.store.events
    coming = [step("one", index, 3) for index in range(3)]

    async def read_slowly(name: str, after: int, limit: int) -> list[tuple[int, bytes]]:
        rows = await read(name, after, limit)
        if coming:
            served.server.publish(coming.pop(0))
        return rows

    monkeypatch.setattr(served.store, "events", read_slowly)
    late = await served.client()
    await late.send(Replay(job="one"))
    got = await events_until(late, lambda message: isinstance(message, ReplayDone))
    assert [message.step_index for message in got if isinstance(message, StepFinished)] == [0, 1, 2]


async def test_events_are_live_after_a_replay(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "wait"))
    await until(lambda: served.server.queue.running)
    late = await served.client(subscribe=False)
    await late.send(Replay(job="one"))
    got = await events_until(late, lambda message: isinstance(message, ReplayDone))
    assert isinstance(got[0], Message)
    await client.send(Cancel(job="one"))
    assert isinstance(await end_of(late, "one"), JobCancelled)


async def test_a_waiting_job_has_a_record_too(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "wait"))
    await client.send(job("two"))
    await until(lambda: "two" in served.server.queue.waiting)
    late = await served.client(subscribe=False)
    await late.send(Replay(job="two"))
    got = await events_until(late, lambda message: isinstance(message, ReplayDone))
    assert [type(message).__name__ for message in got] == ["JobQueued", "ReplayDone"]


async def test_a_job_that_is_not_known_has_no_record(served: Served) -> None:
    client = await served.client()
    await client.send(Replay(job="nobody"))
    refused = await first(client, Refused)
    assert (refused.job, refused.message) == ("nobody", "There is no job 'nobody'.")


async def test_a_long_record_waits_for_a_client_that_reads_slowly(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await served.client()
    await client.send(job("one", "steps 3000"))
    await events_until(client, lambda message: isinstance(message, JobFinished))
    late = await served.client(subscribe=False)
    await until(lambda: len(served.server.connections) == 2)
    small = next(connection for connection in served.server.connections if not connection.subscribed)
    monkeypatch.setattr(small.outbox, "max_bytes", 300_000)  # the record has more than a megabyte
    await late.send(Replay(job="one"))
    got = await events_until(late, lambda message: isinstance(message, ReplayDone))
    assert len([message for message in got if isinstance(message, StepFinished)]) == 3000
