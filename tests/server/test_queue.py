"""What clients may do to the queue, and that all of it is still so after a restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sdtui import settings
from sdtui.params import GenerationParams
from sdtui.protocol import (
    JOB_ENDS,
    Cancel,
    CancelWaiting,
    Delete,
    DeleteEnded,
    Duplicate,
    Edit,
    EndedDeleted,
    GetJob,
    Hold,
    ImageSaved,
    JobCancelled,
    JobChanged,
    JobDeleted,
    JobFailed,
    JobFinished,
    JobPaused,
    JobQueued,
    JobResumed,
    Jobs,
    JobStarted,
    ListJobs,
    Message,
    Move,
    Pause,
    QueueChanged,
    Refused,
    Replay,
    Resume,
    ResumePoint,
    Retry,
    SetPriority,
    StepFinished,
    StorageFreed,
    StorageFull,
    WaitingCancelled,
)
from sdtui.server import store as store_module
from sdtui.server.client import Client
from sdtui.server.database import Database, Entry
from sdtui.server.job import Job
from sdtui.server.store import Store
from tests.server.harness import (
    Served,
    asked,
    end_of,
    events_until,
    first,
    job,
    names_in_order,
    record_of,
    serving,
    state_of,
    until,
)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


@pytest.fixture
async def client(served: Served) -> Client:
    """A client of a held queue with the jobs a, b, c and d."""
    connected = await served.client()
    await hold(connected, on=True)
    for name in "abcd":
        await asked(connected, job(name), JobQueued)
    return connected


async def refusal(client: Client, command: Message) -> Refused:
    await client.send(command)
    return await first(client, Refused)


async def hold(client: Client, *, on: bool) -> None:
    """Hold the queue or let it go on, and wait until that is told."""
    await client.send(Hold(on=on))
    await events_until(client, lambda message: isinstance(message, QueueChanged) and message.held is on)


async def until_step(client: Client, name: str, index: int) -> None:
    await events_until(
        client, lambda message: isinstance(message, StepFinished) and message.job == name and message.step_index == index
    )


# --- order ----------------------------------------------------------------------------------------------------------


async def test_the_queue_is_listed_in_the_order_in_which_it_will_run(client: Client) -> None:
    await asked(client, SetPriority(job="c", priority=5), JobChanged)
    changed = await asked(client, Move(job="d", to="up"), JobChanged)
    assert (changed.position, changed.row.priority) == (2, 0)
    assert await names_in_order(client) == ["c", "a", "d", "b"]
    await hold(client, on=False)
    got = await events_until(client, lambda message: isinstance(message, JobFinished) and message.job == "b")
    assert [message.job for message in got if isinstance(message, JobStarted)] == ["c", "a", "d", "b"]


async def test_a_job_moved_past_one_of_another_priority_takes_that(client: Client) -> None:
    await asked(client, SetPriority(job="c", priority=5), JobChanged)
    changed = await asked(client, Move(job="d", to="first"), JobChanged)
    assert (changed.position, changed.row.priority) == (0, 5)
    assert await names_in_order(client) == ["d", "c", "a", "b"]


async def test_order_priority_and_hold_outlive_the_server(client: Client, served: Served) -> None:
    await asked(client, SetPriority(job="c", priority=5), JobChanged)
    await asked(client, Move(job="d", to="first"), JobChanged)
    await asked(client, Move(job="a", to="last"), JobChanged)
    before = await names_in_order(client)
    await served.stop()
    async with serving() as again:
        late = await again.client()
        assert late.welcome.queue.held
        assert late.welcome.queue.queued == 4
        assert await names_in_order(late) == before == ["d", "c", "b", "a"]


async def test_a_submission_with_a_priority_goes_before_the_others(client: Client) -> None:
    queued = await asked(client, job("urgent", priority=1), JobQueued)
    assert queued.position == 0
    assert (await names_in_order(client))[0] == "urgent"


@pytest.mark.parametrize("command", [SetPriority(job="a", priority=101), job("x", priority=-101)])
async def test_a_priority_out_of_range_is_refused(client: Client, command: Message) -> None:
    refused = await refusal(client, command)
    assert refused.field == "priority"
    assert "from -100 to 100" in refused.message


async def test_a_page_of_a_long_queue_is_what_was_asked_for(client: Client) -> None:
    page = await asked(client, ListJobs(which="queue", limit=2, offset=1), Jobs)
    assert ([row.job for row in page.jobs], page.total, page.offset, page.which) == (["b", "c"], 4, 1, "queue")
    assert page.counts == {"queued": 4}
    assert (await asked(client, ListJobs(which="queue", limit=2, offset=4), Jobs)).jobs == ()


async def test_running_waiting_and_paused_jobs_are_one_list(client: Client) -> None:
    await asked(client, Pause(job="b"), JobPaused)
    await asked(client, job("run", "wait", priority=1), JobQueued)
    await hold(client, on=False)
    await events_until(client, lambda message: isinstance(message, JobStarted) and message.job == "run")
    assert await names_in_order(client) == ["run", "a", "c", "d", "b"]
    for offset, expected in ((0, ["run", "a"]), (1, ["a", "c"]), (3, ["d", "b"]), (4, ["b"])):
        page = await asked(client, ListJobs(which="queue", limit=2, offset=offset), Jobs)
        assert [row.job for row in page.jobs] == expected


async def test_only_the_server_says_where_a_job_goes_on(served: Served) -> None:
    client = await served.client()
    point = ResumePoint(seed=1, batch_index=0, steps_done=2)
    await client.send(job("one", resume=point))
    got = await events_until(client, lambda message: isinstance(message, JobFinished))
    assert [message.step_index for message in got if isinstance(message, StepFinished)] == [0, 1, 2]
    assert not [message for message in got if isinstance(message, JobResumed)]


async def test_a_job_that_was_given_to_a_worker_goes_on_though_nothing_of_it_was_recorded(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "steps 5"))
    await end_of(client, "one")
    found = await served.store.job("one")
    assert found is not None
    lost = Job(found.submit, msgspec.structs.replace(found.row, steps_done=0, attempts=0), seed=None)
    assert lost.for_worker().resume == ResumePoint(), "the worker has the seed and the steps, the server need not know them"
    assert Job.new(found.submit, 1.0).for_worker().resume is None


# --- hold, pause, resume --------------------------------------------------------------------------------------------


async def test_a_held_queue_begins_nothing_until_it_is_told_to_go_on(served: Served, client: Client) -> None:
    assert served.server.queue.running is None
    await hold(client, on=False)
    assert isinstance(await end_of(client, "d"), JobFinished)


async def test_holding_does_not_touch_the_running_job(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "slow 50"))
    await client.send(job("two"))
    await until_step(client, "one", 3)
    await hold(client, on=True)
    assert isinstance(await end_of(client, "one"), JobFinished)
    assert served.server.queue.running is None
    assert await state_of(served.store, "two") == "queued"


async def test_a_paused_job_frees_the_worker_and_goes_on_from_its_step(served: Served, home: Path) -> None:
    client = await served.client()
    await client.send(job("long", "slow 300", output_dir=str(home)))
    await until_step(client, "long", 10)
    paused = await asked(client, Pause(job="long"), JobPaused)
    assert 11 <= paused.steps_done < 300
    await client.send(job("short"))
    assert isinstance(await end_of(client, "short"), JobFinished)
    row = (await asked(client, GetJob(job="long"), JobChanged)).row
    assert (row.state, row.steps_done, row.total_steps) == ("paused", paused.steps_done, 300)
    await asked(client, Resume(job="long"), JobChanged)
    resumed = await first(client, JobResumed)
    assert resumed.steps_done == paused.steps_done
    await end_of(client, "long")
    steps = [message.step_index for message in await record_of(client, "long") if isinstance(message, StepFinished)]
    assert steps == list(range(300))
    assert (home / "long.png").read_bytes() == b"picture"


async def test_a_paused_job_is_paused_after_a_restart_too(client: Client, served: Served) -> None:
    await asked(client, Pause(job="b"), JobPaused)
    await served.stop()
    async with serving() as again:
        late = await again.client()
        assert late.welcome.queue.paused == 1
        await hold(late, on=False)
        await end_of(late, "d")
        assert await state_of(again.store, "b") == "paused"
        await asked(late, Resume(job="b"), JobChanged)
        assert isinstance(await end_of(late, "b"), JobFinished)


async def test_pausing_what_cannot_be_paused_says_why(client: Client, served: Served) -> None:
    await asked(client, Pause(job="b"), JobPaused)
    assert "is paused already" in (await refusal(client, Pause(job="b"))).message
    assert "no job 'nobody'" in (await refusal(client, Pause(job="nobody"))).message
    assert "is not paused" in (await refusal(client, Resume(job="a"))).message
    await client.send(Cancel(job="a"))
    await end_of(client, "a")
    assert "ended already (cancelled)" in (await refusal(client, Pause(job="a"))).message
    assert "ended already (cancelled)" in (await refusal(client, Resume(job="a"))).message


async def test_a_worker_that_dies_while_it_should_pause_leaves_a_paused_job(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "deaf"))
    await first(client, JobStarted)
    await client.send(Pause(job="one"))
    await until(lambda: served.server.queue.running and served.server.queue.running.asked)
    served.server.supervisor.kill("a test")
    assert (await first(client, JobPaused)).job == "one"
    assert served.server.queue.paused.keys() == {"one"}
    found = await served.store.job("one")
    assert found is not None
    assert found.row.attempts == 1, "that worker's death counts"


# --- cancelling -----------------------------------------------------------------------------------------------------


async def test_cancelling_after_the_step_keeps_the_steps_for_another_try(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "slow 300"))
    await until_step(client, "one", 10)
    await client.send(Cancel(job="one", when="after_step"))
    cancelled = await end_of(client, "one")
    assert isinstance(cancelled, JobCancelled)
    assert cancelled.kept_steps >= 11
    changed = await asked(client, Retry(job="one"), JobChanged)
    assert (changed.row.state, changed.row.finished_at, changed.row.steps_done) == ("queued", None, cancelled.kept_steps)
    assert (await first(client, JobResumed)).steps_done == cancelled.kept_steps
    assert isinstance(await end_of(client, "one"), JobFinished)
    steps = [message.step_index for message in await record_of(client, "one") if isinstance(message, StepFinished)]
    assert steps == list(range(300))


async def test_cancelling_at_once_takes_the_steps_away(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "slow 300"))
    await until_step(client, "one", 10)
    await client.send(Cancel(job="one"))
    assert await end_of(client, "one") == JobCancelled(job="one", latency_s=0.001)
    tape = settings.tapes_dir() / "one" / "batch-0000.tape"
    await until(lambda: not tape.exists(), "the removal of the tape")
    await asked(client, Retry(job="one"), JobChanged)
    assert (await first(client, JobResumed)).steps_done == 0
    assert isinstance(await end_of(client, "one"), JobFinished)


async def test_cancelling_after_the_picture_lets_it_be_finished(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "slow 50"))
    await until_step(client, "one", 3)
    await client.send(Cancel(job="one", when="after_image"))
    assert isinstance(await end_of(client, "one"), JobFinished)


async def test_a_stronger_request_takes_the_place_of_a_weaker_one(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "slow 1000"))
    await until_step(client, "one", 3)
    for when in ("after_image", "now", "after_step"):
        await client.send(Cancel(job="one", when=when))
    end = await end_of(client, "one")
    assert isinstance(end, JobCancelled)
    assert end.kept_steps == 0


async def test_everything_that_waits_can_be_cancelled_at_once(client: Client, served: Served) -> None:
    await asked(client, Pause(job="b"), JobPaused)
    assert (await asked(client, CancelWaiting(), WaitingCancelled)).count == 3
    assert [await state_of(served.store, name) for name in "abcd"] == ["cancelled", "paused", "cancelled", "cancelled"]


# --- retry, duplicate, edit, delete ---------------------------------------------------------------------------------


async def test_a_failed_job_is_tried_again_under_its_own_name(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "die 4"))
    assert isinstance(await end_of(client, "one"), JobFailed)
    changed = await asked(client, Retry(job="one"), JobChanged)
    assert (changed.row.attempts, changed.row.reason) == (0, None)
    await client.send(Cancel(job="one"))
    await end_of(client, "one")


@pytest.mark.parametrize(("name", "part"), [("a", "has not ended"), ("nobody", "no job 'nobody'"), ("done", "is done")])
async def test_what_cannot_be_tried_again_is_refused(client: Client, served: Served, name: str, part: str) -> None:
    if name == "done":
        await asked(client, job("done", priority=1), JobQueued)
        await hold(client, on=False)
        await end_of(client, "done")
    assert part in (await refusal(client, Retry(job=name))).message


async def test_a_copy_takes_the_seed_that_was_drawn_or_a_new_one(served: Served) -> None:
    client = await served.client()
    await client.send(job("one"))
    await end_of(client, "one")
    copy = await asked(client, Duplicate(job="one", new_job="two"), JobChanged)
    assert (copy.row.params.seed, copy.row.params.prompt, copy.row.copy_of) == (7, "a red cat", "one")
    copy = await asked(client, Duplicate(job="one", new_job="three", same_seed=False), JobChanged)
    assert copy.row.params.seed is None
    await end_of(client, "three")
    found = await served.store.job("two")
    assert found is not None
    assert found.row.copy_of == "one"


async def test_a_copy_needs_a_name_of_its_own_and_something_to_copy(client: Client) -> None:
    assert "There is a job b already" in (await refusal(client, Duplicate(job="a", new_job="b"))).message
    assert "no job 'nobody'" in (await refusal(client, Duplicate(job="nobody", new_job="x"))).message
    assert "letters" in (await refusal(client, Duplicate(job="a", new_job="../x"))).message


async def test_a_job_that_waits_can_be_edited_and_runs_as_edited(client: Client, served: Served) -> None:
    params = GenerationParams(prompt="steps 5")
    changed = await asked(client, Edit(job="b", params=params), JobChanged)
    assert (changed.row.params.prompt, changed.position) == ("steps 5", 1)
    await served.stop()
    async with serving() as again:
        late = await again.client()
        await hold(late, on=False)
        got = await events_until(late, lambda message: isinstance(message, JobFinished) and message.job == "b")
        assert len([message for message in got if isinstance(message, StepFinished) and message.job == "b"]) == 5


async def test_a_wrong_edit_is_refused_by_field_and_changes_nothing(client: Client, served: Served) -> None:
    refused = await refusal(client, Edit(job="b", params=GenerationParams(prompt="a", width=7)))
    assert refused.field == "width"
    found = await served.store.job("b")
    assert found is not None
    assert found.row.params.prompt == "a red cat"


async def test_a_job_that_was_begun_cannot_be_edited(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "slow 500"))
    await until_step(client, "one", 3)
    edit = Edit(job="one", params=GenerationParams(prompt="other"))
    assert "was begun already" in (await refusal(client, edit)).message
    await asked(client, Pause(job="one"), JobPaused)
    assert "Duplicate it" in (await refusal(client, edit)).message
    await client.send(Cancel(job="one"))
    await end_of(client, "one")
    assert "ended already" in (await refusal(client, edit)).message


async def test_a_record_is_deleted_with_its_tape_and_its_pictures_stay(served: Served, home: Path) -> None:
    client = await served.client()
    await client.send(job("one", output_dir=str(home)))
    await end_of(client, "one")
    assert (settings.tapes_dir() / "one").is_dir()
    await asked(client, Delete(job="one"), JobDeleted)
    assert await served.store.job("one") is None
    assert await served.store.events("one", 0, 100) == []
    assert not (settings.tapes_dir() / "one").exists()
    assert (home / "one.png").exists()
    assert "no job 'one'" in (await refusal(client, Replay(job="one"))).message
    await client.send(job("one"))
    assert isinstance(await end_of(client, "one"), JobFinished), "its name is free again"


async def test_a_job_that_has_not_ended_is_not_deleted(client: Client) -> None:
    assert "cancel it first" in (await refusal(client, Delete(job="a"))).message
    assert "no job 'nobody'" in (await refusal(client, Delete(job="nobody"))).message


async def test_all_ended_jobs_are_deleted_and_the_others_stay(client: Client, served: Served) -> None:
    await asked(client, job("done", priority=1), JobQueued)
    await asked(client, Pause(job="b"), JobPaused)
    for name in "cd":
        await client.send(Cancel(job=name))
        await end_of(client, name)
    assert (await asked(client, DeleteEnded(older_than_s=3600), EndedDeleted)).count == 0
    assert (await asked(client, DeleteEnded(), EndedDeleted)).count == 2
    assert {row.job for row in await served.store.jobs("all", 10)} == {"done", "a", "b"}


# --- who is told ----------------------------------------------------------------------------------------------------


async def test_other_clients_see_what_one_does(client: Client, served: Served) -> None:
    other = await served.client("other")
    await client.send(Move(job="c", to="first"))
    changed = await first(other, JobChanged)
    assert (changed.job, changed.position) == ("c", 0)
    await client.send(Cancel(job="c"))
    assert (await end_of(other, "c")) == JobCancelled(job="c")
    await client.send(Delete(job="c"))
    assert (await first(other, JobDeleted)).job == "c"


async def test_a_client_that_does_not_subscribe_is_answered(client: Client, served: Served) -> None:
    quiet = await served.client("quiet", subscribe=False)
    assert (await asked(quiet, GetJob(job="a"), JobChanged)).position == 0
    assert (await asked(quiet, Move(job="a", to="last"), JobChanged)).position == 3
    assert (await asked(quiet, Pause(job="b"), JobPaused)).job == "b"
    assert (await asked(quiet, Resume(job="b"), JobChanged)).position == 0
    await hold(quiet, on=False)
    assert (await asked(quiet, CancelWaiting(), WaitingCancelled)).count <= 4
    await until(lambda: not served.server.queue.busy)
    assert (await asked(quiet, DeleteEnded(), EndedDeleted)).count == 4
    assert "no job 'a'" in (await refusal(quiet, GetJob(job="a"))).message


async def test_a_job_as_it_is_now_can_be_asked_for_in_any_state(client: Client) -> None:
    await asked(client, Pause(job="b"), JobPaused)
    await client.send(Cancel(job="c"))
    await end_of(client, "c")
    found = [await asked(client, GetJob(job=name), JobChanged) for name in "abcd"]
    assert [(changed.row.state, changed.position) for changed in found] == [
        ("queued", 0),
        ("paused", None),
        ("cancelled", None),
        ("queued", 1),
    ]


async def test_ended_jobs_are_listed_the_latest_first(client: Client) -> None:
    for name in ("c", "a"):
        await client.send(Cancel(job=name))
        await end_of(client, name)
    page = await asked(client, ListJobs(which="ended"), Jobs)
    assert ([row.job for row in page.jobs], page.total) == (["a", "c"], 2)
    page = await asked(client, ListJobs(limit=1, offset=3), Jobs)
    assert ([row.job for row in page.jobs], page.total) == (["a"], 4)


# --- disks ----------------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_told_and_the_queue_goes_on_when_there_is_room(served: Served, home: Path) -> None:
    client = await served.client()
    await client.send(job("one", "full", output_dir=str(home)))
    await client.send(job("two", output_dir=str(home)))
    assert "no room" in (await first(client, StorageFull)).message
    await until(lambda: "no room" in served.server.queue.status().trouble)
    late = await served.client()
    assert "no room" in late.welcome.queue.trouble
    (home / "room").touch()
    got = await events_until(client, lambda message: isinstance(message, JobFinished) and message.job == "two")
    assert len([message for message in got if isinstance(message, StorageFreed)]) == 1
    assert {message.job for message in got if isinstance(message, ImageSaved)} == {"one", "two"}
    assert served.server.queue.status().trouble == ""


async def test_nothing_is_begun_while_the_database_cannot_be_written(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Database, entries: list[Entry]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    client = await served.client()
    await hold(client, on=True)
    await asked(client, job("one"), JobQueued)
    monkeypatch.setattr(store_module, "RETRY_S", 0.05)
    write = Database.write
    monkeypatch.setattr(Database, "write", full)
    await client.send(Hold(on=False))
    got = await events_until(client, lambda message: isinstance(message, QueueChanged) and message.trouble != "")
    assert isinstance(got[-1], QueueChanged)
    assert "database or disk is full" in got[-1].trouble
    assert "no job is begun until it can" in got[-1].trouble
    assert served.server.queue.running is None
    monkeypatch.setattr(Database, "write", write)
    assert isinstance(await end_of(client, "one"), JobFinished)
    assert served.server.queue.status().trouble == ""
    assert await state_of(served.store, "one") == "done"


# --- many -----------------------------------------------------------------------------------------------------------


async def test_a_held_queue_does_not_keep_the_server() -> None:
    hasty = settings.Settings(server=settings.Server(idle_timeout_s=0.1))
    async with serving(configured=hasty) as served:
        client = await served.client()
        await hold(client, on=True)
        await asked(client, job("one"), JobQueued)
        await client.close()
        await asyncio.wait_for(asyncio.shield(served.task), 20)
    store = await Store.open(settings.database_path())
    assert await state_of(store, "one") == "queued"
    await store.close()


async def test_thousands_of_jobs_wait_and_leave(served: Served) -> None:
    client = await served.client()
    await hold(client, on=True)
    for number in range(2_000):
        await client.send(job(f"job-{number}"))
    await events_until(client, lambda message: isinstance(message, QueueChanged) and message.queued == 2_000)
    page = await asked(client, ListJobs(which="queue", limit=3, offset=1_997), Jobs)
    assert ([row.job for row in page.jobs], page.total) == (["job-1997", "job-1998", "job-1999"], 2_000)
    await asked(client, Move(job="job-1500", to="first"), JobChanged)
    await client.send(CancelWaiting())
    got = await events_until(client, lambda message: isinstance(message, WaitingCancelled))
    assert len([message for message in got if isinstance(message, JOB_ENDS)]) == 2_000
