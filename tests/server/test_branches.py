"""A job that branches from another one: what is checked, what is kept for it, and what outlives what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sdtui import settings
from sdtui.params import GenerationParams
from sdtui.protocol import (
    BranchPoint,
    Cancel,
    Delete,
    DeleteEnded,
    Duplicate,
    Edit,
    EndedDeleted,
    GetJob,
    Hold,
    JobCancelled,
    JobChanged,
    JobDeleted,
    JobPaused,
    JobQueued,
    Jobs,
    JobStarted,
    ListJobs,
    Message,
    Pause,
    QueueChanged,
    Refused,
    Retry,
    StepFinished,
    Submit,
)
from sdtui.server.client import Client
from tests.server.harness import Served, asked, end_of, events_until, first, job, serving, state_of, until

POINT = BranchPoint(job="parent", step=2, batch_index=1, picture=3)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


@pytest.fixture
async def client(served: Served) -> Client:
    """A client of a held queue whose job `parent` is done."""
    connected = await served.client()
    await connected.send(job("parent"))
    await end_of(connected, "parent")
    await asked(connected, Hold(on=True), QueueChanged)
    return connected


def branch(name: str = "branch", point: BranchPoint = POINT, prompt: str = "a blue cat") -> Submit:
    return job(name, prompt, branch=point)


def steps_of(name: str) -> Path:
    return settings.tapes_dir() / name / "batch-0000.tape"


async def refusal(client: Client, command: Message) -> Refused:
    await client.send(command)
    return await first(client, Refused)


async def branches(client: Client) -> dict[str, BranchPoint | None]:
    return {row.job: row.branch for row in (await asked(client, ListJobs(), Jobs)).jobs}


async def test_a_branch_says_where_it_comes_from_also_after_its_end_and_a_restart(client: Client, served: Served) -> None:
    await asked(client, branch(), JobQueued)
    assert (await asked(client, GetJob(job="branch"), JobChanged)).row.branch == POINT
    await served.stop()
    async with serving() as again:
        late = await again.client()
        (waiting,) = late.welcome.jobs
        assert waiting.branch == POINT
        assert await branches(late) == {"branch": POINT, "parent": None}
        await late.send(Hold(on=False))
        await end_of(late, "branch")
        assert await branches(late) == {"branch": POINT, "parent": None}


async def test_the_worker_is_told_where_the_branch_begins(client: Client, served: Served) -> None:
    sent: list[Message] = []
    served.server.supervisor.send = sent.append  # type: ignore[method-assign]  # a look at what goes to the worker
    await asked(client, branch(), JobQueued)
    await asked(client, Hold(on=False), QueueChanged)
    await until(lambda: [message for message in sent if isinstance(message, Submit)])
    (submit,) = [message for message in sent if isinstance(message, Submit)]
    assert submit.branch == POINT
    del served.server.supervisor.send


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (msgspec.structs.replace(POINT, step=0), "1 step or more; it is 0"),
        (msgspec.structs.replace(POINT, batch_index=-1), "count from 0"),
        (msgspec.structs.replace(POINT, picture=-1), "count from 0"),
        (msgspec.structs.replace(POINT, job="branch"), "from itself"),
        (msgspec.structs.replace(POINT, job="never"), "no job never to branch from"),
        (msgspec.structs.replace(POINT, job="../parent\x1b[2J"), "no job '../parent"),
        (msgspec.structs.replace(POINT, job=""), "no job ''"),
    ],
)
async def test_a_branch_that_cannot_be_is_refused(client: Client, point: BranchPoint, said: str) -> None:
    refused = await refusal(client, branch(point=point))
    assert said in refused.message and "\x1b" not in refused.message
    assert (refused.field, refused.job) == ("branch", "branch")
    assert await branches(client) == {"parent": None}


async def test_without_recorded_steps_there_is_nothing_to_branch_from(client: Client) -> None:
    steps_of("parent").unlink()
    assert "recorded steps were removed" in (await refusal(client, branch())).message


async def test_a_job_that_has_not_ended_may_be_branched_from_before_it_has_steps(client: Client) -> None:
    await asked(client, job("later"), JobQueued)
    await asked(client, branch(point=BranchPoint(job="later", step=1)), JobQueued)


async def test_copies_edits_and_retries_of_a_branch_are_branches(client: Client) -> None:
    await asked(client, branch(), JobQueued)
    changed = await asked(client, Edit(job="branch", params=GenerationParams(prompt="a green cat")), JobChanged)
    assert (changed.row.params.prompt, changed.row.branch) == ("a green cat", POINT)
    copy = await asked(client, Duplicate(job="branch", new_job="copy"), JobChanged)
    assert (copy.job, copy.row.branch, copy.row.copy_of) == ("copy", POINT, "branch")
    await asked(client, Cancel(job="branch"), JobCancelled)
    assert (await asked(client, Retry(job="branch"), JobChanged)).row.branch == POINT


async def test_without_the_parent_neither_copies_nor_retries_are_begun(client: Client) -> None:
    await asked(client, branch(), JobQueued)
    await asked(client, Cancel(job="branch"), JobCancelled)
    await asked(client, Delete(job="parent"), JobDeleted)
    assert await branches(client) == {"branch": POINT}, "it is listed as before"
    for command in (Retry(job="branch"), Duplicate(job="branch", new_job="copy")):
        assert "no job parent to branch from" in (await refusal(client, command)).message


async def test_a_parent_stays_while_a_branch_of_it_has_not_ended(client: Client, served: Served) -> None:
    await asked(client, branch(), JobQueued)
    refused = await refusal(client, Delete(job="parent"))
    assert "parent" in refused.message and "job branch," in refused.message
    assert (await asked(client, DeleteEnded(), EndedDeleted)).count == 0
    assert await state_of(served.store, "parent") == "done" and steps_of("parent").exists()
    await asked(client, Pause(job="branch"), JobPaused)
    assert "branch" in (await refusal(client, Delete(job="parent"))).message
    await asked(client, Cancel(job="branch"), JobCancelled)
    assert (await asked(client, DeleteEnded(), EndedDeleted)).count == 2
    assert not steps_of("parent").exists()


async def test_the_steps_of_a_parent_are_not_tidied_away_while_a_branch_waits() -> None:
    nothing = settings.Settings(server=settings.Server(tape_budget_mb=0))
    async with serving() as served:
        client = await served.client()
        for name in ("parent", "other"):
            await client.send(job(name))
            await end_of(client, name)
        await asked(client, Hold(on=True), QueueChanged)
        await asked(client, branch(), JobQueued)
    async with serving(configured=nothing) as served:
        client = await served.client()
        await until(lambda: not steps_of("other").exists())
        assert steps_of("parent").exists()
        await asked(client, Hold(on=False), QueueChanged)
        await end_of(client, "branch")
        await until(lambda: not steps_of("parent").exists())


async def test_a_parent_that_is_cancelled_keeps_its_steps_for_a_branch_that_waits(client: Client) -> None:
    await client.send(Hold(on=False))
    await client.send(job("long", "slow 5000"))
    await events_until(client, lambda message: isinstance(message, StepFinished) and message.step_index == 3)
    await asked(client, branch(prompt="wait", point=BranchPoint(job="long", step=1)), JobQueued)
    await asked(client, Cancel(job="long"), JobCancelled)
    await events_until(client, lambda message: isinstance(message, JobStarted) and message.job == "branch")
    await client.send(job("last"))
    await client.send(Cancel(job="branch"))
    await end_of(client, "last")
    assert steps_of("long").exists()
