"""Pictures of steps: who asked gets an answer, whatever becomes of the worker, the job, and other clients."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest

from sdtui import settings
from sdtui.protocol import (
    DecodeStep,
    Delete,
    JobDeleted,
    JobFinished,
    JobStarted,
    Refused,
    StepDecoded,
    StepNotDecoded,
    WorkerDied,
    WorkerStage,
)
from sdtui.server.client import Client
from tests.server.harness import Served, asked, end_of, events_until, first, job, record_of, serving, until

HELD = 1000
"""The small worker answers this step after another one."""
Decoded = StepDecoded | StepNotDecoded


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


@pytest.fixture
async def client(served: Served) -> Client:
    """A client that wants no events but its own, and for which `old` is done."""
    connected = await served.client(subscribe=False)
    await connected.send(job("old"))
    await end_of(connected, "old")
    return connected


def step(index: int = 1, name: str = "old", **more: int) -> DecodeStep:
    return DecodeStep(job=name, step_index=index, **more)


async def answer(client: Client) -> Decoded:
    """The next answer about any step."""
    got = (await events_until(client, lambda message: isinstance(message, Decoded)))[-1]
    assert isinstance(got, Decoded)
    return got


async def answer_to(client: Client, command: DecodeStep) -> Decoded:
    """The next answer, which must be about this step."""
    got = await answer(client)
    assert (got.job, got.step_index, got.batch_index, got.picture) == (
        command.job, command.step_index, command.batch_index, command.picture,
    )  # fmt: skip
    return got


async def test_a_step_of_a_job_that_ended_long_ago_is_decoded_while_another_one_runs(served: Served, client: Client) -> None:
    await client.send(job("running", "wait"))
    await events_until(client, lambda message: isinstance(message, JobStarted) and message.job == "running")
    await client.send(step(-1, batch_index=1, picture=2))
    got = await answer_to(client, step(-1, batch_index=1, picture=2))
    assert isinstance(got, StepDecoded)
    assert got.path == str(settings.tapes_dir() / "old" / "decoded" / "batch-0001-002--001.png")
    assert served.server.queue.running is not None and served.server.queue.running.name == "running"
    assert not [message for message in await record_of(client, "old") if isinstance(message, Decoded)], "it is not recorded"
    assert len(served.server.decodings) == 0


async def test_what_cannot_be_decoded_is_told_with_the_reason(client: Client) -> None:
    await client.send(step(404))
    assert await answer_to(client, step(404)) == StepNotDecoded(
        job="old", batch_index=0, step_index=404, picture=0, message="Step 404 is not recorded."
    )


@pytest.mark.parametrize(
    ("command", "said", "field"),
    [
        (DecodeStep(job="never", step_index=1), "no job 'never'", "job"),
        (DecodeStep(job="../\x1b[2J", step_index=1), "no job '../", "job"),
        (step(-2), "count from 0", "step_index"),
        (step(picture=-1), "count from 0", "step_index"),
        (step(batch_index=-1), "count from 0", "step_index"),
    ],
)
async def test_what_never_can_be_is_refused(client: Client, served: Served, command: DecodeStep, said: str, field: str) -> None:
    await client.send(command)
    refused = await first(client, Refused)
    assert said in refused.message and "\x1b" not in refused.message
    assert (refused.field, refused.job) == (field, command.job)
    assert len(served.server.decodings) == 0


async def test_two_clients_that_ask_for_the_same_step_get_it_from_one_decoding(served: Served, client: Client) -> None:
    other = await served.client(subscribe=False)
    await client.send(step(HELD))
    await other.send(step(HELD))
    await until(lambda: [len(asked.clients) for asked in served.server.decodings._asked.values()] == [2])
    await client.send(step(1))
    for_client = [await first(client, StepDecoded), await first(client, StepDecoded)]
    (for_other,) = [await first(other, StepDecoded)]
    assert for_client[1] == for_other and for_other.elapsed_s == 1.0, "asked of the worker once"
    assert for_other.step_index == HELD, "the other client is not told what it neither follows nor asked for"


async def test_who_follows_the_job_is_told_too_and_goes_on_following_it(served: Served, client: Client) -> None:
    follower = await served.client(subscribe=False)
    watcher = await served.client()
    await follower.send(job("mine", "wait"))
    await first(follower, JobStarted)
    await client.send(step(1, "mine"))
    for one in (client, follower, watcher):
        assert isinstance(await answer_to(one, step(1, "mine")), StepDecoded)
    (connection,) = [one for one in served.server.connections if "mine" in one.jobs]
    assert connection.follows("mine")
    assert not [one for one in served.server.connections if "old" in one.jobs], "an ended job is not followed for ever"


async def test_a_worker_that_dies_of_it_is_told_to_who_asked_and_the_next_one_is_not_asked_again(
    served: Served, client: Client
) -> None:
    await client.send(step(HELD))
    await client.send(step(500))
    lost = [await first(client, StepNotDecoded), await first(client, StepNotDecoded)]
    assert {message.step_index for message in lost} == {HELD, 500}
    assert all("SIGKILL" in message.message for message in lost)
    await client.send(step(2))
    got = await answer_to(client, step(2))
    assert isinstance(got, StepDecoded) and len(served.server.decodings) == 0


async def test_a_running_job_outlives_a_decoding_that_kills_the_worker(client: Client) -> None:
    await client.send(job("long", "slow 200"))
    await first(client, JobStarted)
    await client.send(step(500))
    got = await events_until(client, lambda message: isinstance(message, JobFinished) and message.job == "long")
    (lost,) = [message for message in got if isinstance(message, StepNotDecoded)]
    assert "SIGKILL" in lost.message


async def test_what_is_asked_while_the_worker_starts_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as served:
        client = await served.client()
        await client.send(job("old"))
        await end_of(client, "old")
        monkeypatch.setenv("FAKE_WORKER_START", "hold")
        pid = served.server.supervisor.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await first(client, WorkerStage)
        await client.send(step(1))
        await until(lambda: len(served.server.decodings) == 1)
        pid = served.server.supervisor.pid
        assert pid is not None
        await until(lambda: served.server.supervisor.stage == "torch")
        os.kill(pid, signal.SIGUSR1)
        assert isinstance(await answer_to(client, step(1)), StepDecoded)


async def test_what_is_asked_while_no_worker_can_be_started_is_answered_when_that_is_given_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as served:
        client = await served.client()
        await client.send(job("old"))
        await end_of(client, "old")
        monkeypatch.setenv("FAKE_WORKER_START", "die")
        pid = served.server.supervisor.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await events_until(client, lambda message: isinstance(message, WorkerDied) and message.given_up)
        await client.send(step(1))
        got = await answer_to(client, step(1))
        assert isinstance(got, StepNotDecoded) and "exit code 9" in got.message
        monkeypatch.delenv("FAKE_WORKER_START")
        await client.send(step(1))
        assert isinstance(await answer_to(client, step(1)), StepDecoded), "somebody asked, so another worker is tried"


async def test_a_picture_of_a_job_that_was_deleted_meanwhile_goes_too(client: Client) -> None:
    await client.send(step(HELD))
    await asked(client, Delete(job="old"), JobDeleted)
    await client.send(job("new"))
    await end_of(client, "new")
    await client.send(step(1, "new"))
    got = [await answer(client), await answer(client)]
    (lost,) = [message for message in got if isinstance(message, StepNotDecoded)]
    assert (lost.job, lost.step_index) == ("old", HELD) and "deleted" in lost.message
    assert not (settings.tapes_dir() / "old").exists() and (settings.tapes_dir() / "new" / "decoded").exists()


async def test_a_client_that_leaves_before_the_answer_disturbs_nobody(served: Served, client: Client) -> None:
    hasty = await served.client(subscribe=False)
    await hasty.send(step(HELD))
    await until(lambda: len(served.server.decodings) == 1)
    await hasty.close()
    await until(lambda: len(served.server.connections) == 1)
    await client.send(step(HELD))
    await client.send(step(1))
    got = [await first(client, StepDecoded), await first(client, StepDecoded)]
    assert [message.elapsed_s for message in got] == [1.0, 1.0], "what the worker has been told is not told again"
    assert len(served.server.decodings) == 0


async def test_what_only_somebody_who_left_had_asked_for_is_not_sent_to_the_next_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WORKER_START", "hold")
    async with serving() as served:
        client, hasty = await served.client(), await served.client()
        await client.send(job("waits"))
        await until(lambda: served.server.queue.has("waits"))
        await hasty.send(step(1, "waits"))
        await until(lambda: len(served.server.decodings) == 1)
        await hasty.close()
        await until(lambda: len(served.server.decodings) == 0)


async def test_who_waits_when_the_server_is_stopped_is_told(served: Served, client: Client) -> None:
    await client.send(step(HELD))
    await until(lambda: len(served.server.decodings) == 1)
    served.server.stop("the test says so")
    got = await answer_to(client, step(HELD))
    assert isinstance(got, StepNotDecoded) and "stopped" in got.message
