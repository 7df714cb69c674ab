"""What becomes of a job: run, refused, cancelled, or failed with a reason."""

from __future__ import annotations

import asyncio
import os
import signal
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
    Heartbeat,
    Hold,
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobInterrupted,
    JobQueued,
    Jobs,
    JobStarted,
    ListJobs,
    LoadModel,
    Message,
    ModelLoaded,
    PreviewOptions,
    PreviewReady,
    QueueChanged,
    Refused,
    StepFinished,
    Submit,
    WorkerDied,
    WorkerReady,
    WorkerStage,
)
from sdtui.server.database import Database, Entry
from sdtui.server.job import Job
from sdtui.server.limits import Limits
from sdtui.server.store import Store
from sdtui.server.supervisor import Supervisor
from tests.server.harness import (
    DEADLINE_S,
    FAKE_COMMAND,
    HASTY,
    PATIENT,
    Served,
    asked,
    end_of,
    events_until,
    first,
    job,
    record_of,
    serving,
    state_of,
    status,
    until,
)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running


def kinds(messages: list[Message], name: str) -> list[str]:
    return [type(message).__name__ for message in messages if getattr(message, "job", None) == name]


async def test_a_job_is_told_from_the_queue_to_the_picture(served: Served) -> None:
    client = await served.client()
    await client.send(job("one"))
    got = await events_until(client, lambda message: isinstance(message, JobFinished))
    assert kinds(got, "one") == ["JobQueued", "JobStarted", *["StepFinished"] * 3, "ImageSaved", "JobFinished"]
    assert got[-1] == JobFinished(job="one", elapsed_s=0.1, images=("/pictures/one.png",))


async def test_the_worker_starts_before_any_job_and_loads_the_models_of_the_settings(served: Served) -> None:
    client = await served.client()
    await until(lambda: served.server.supervisor.model)
    late = await served.client()
    assert client.welcome.model is None or client.welcome.worker == "ready"
    assert late.welcome.worker == "ready"
    assert late.welcome.model is not None
    assert late.welcome.model.model == settings.Settings().general.model


async def test_a_finished_job_is_in_the_history_with_its_picture_and_seed(served: Served) -> None:
    client = await served.client()
    await client.send(job("one"))
    await end_of(client, "one")
    await client.send(ListJobs())
    (row,) = (await first(client, Jobs)).jobs
    assert (row.job, row.state, row.images, row.params.seed, row.params.width) == ("one", "done", ("/pictures/one.png",), 7, 128)
    assert row.started_at is not None
    assert row.finished_at is not None
    assert row.created_at <= row.started_at <= row.finished_at


async def test_jobs_run_in_the_order_they_came(served: Served) -> None:
    client = await served.client()
    await client.send(job("first", "wait"))
    got = await events_until(client, lambda message: isinstance(message, JobStarted))
    for name in ("second", "third"):
        await client.send(job(name))
    got += await events_until(client, lambda message: isinstance(message, JobQueued) and message.job == "third")
    assert [message.position for message in got if isinstance(message, JobQueued)] == [0, 1, 2]
    late = await served.client()
    assert [(row.job, row.state) for row in late.welcome.jobs] == [
        ("first", "running"),
        ("second", "queued"),
        ("third", "queued"),
    ]
    await client.send(Cancel(job="first"))
    got = await events_until(client, lambda message: isinstance(message, JobFinished) and message.job == "third")
    assert [message.job for message in got if isinstance(message, JobStarted)] == ["second", "third"]


async def test_the_queue_is_told_as_it_changes(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "wait"))
    await until(lambda: served.server.queue.running)
    await client.send(job("two"))
    got = await events_until(
        client, lambda message: isinstance(message, QueueChanged) and message.queued == 1 and message.running == "one"
    )
    assert QueueChanged(queued=0, running="one") in got


async def test_a_waiting_job_can_be_cancelled(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "wait"))
    await until(lambda: served.server.queue.running)
    await client.send(job("two"))
    await client.send(Cancel(job="two"))
    assert await end_of(client, "two") == JobCancelled(job="two")
    assert (await status(client)).running == "one"
    assert await state_of(served.store, "two") == "cancelled"


async def test_a_running_job_can_be_cancelled_and_the_worker_lives_on(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "wait"))
    await until(lambda: served.server.queue.running)
    worker = (await status(client)).worker_pid
    await client.send(Cancel(job="one"))
    assert await end_of(client, "one") == JobCancelled(job="one", latency_s=0.001)
    await client.send(job("two"))
    assert isinstance(await end_of(client, "two"), JobFinished)
    assert (await status(client)).worker_pid == worker


async def test_a_job_that_does_not_stop_is_stopped_with_its_worker() -> None:
    async with serving(limits=HASTY) as served:
        client = await served.client()
        await client.send(job("one", "deaf"))
        await first(client, JobStarted)
        worker = (await status(client)).worker_pid
        await client.send(job("two"))
        await client.send(Cancel(job="one"))
        end = await end_of(client, "one")
        assert isinstance(end, JobCancelled)
        assert end.latency_s >= HASTY.cancel_s
        assert isinstance(await end_of(client, "two"), JobFinished)
        assert (await status(client)).worker_pid != worker


async def test_a_job_is_cancelled_once() -> None:
    async with serving(limits=HASTY) as served:
        client = await served.client()
        await client.send(job("one", "deaf"))
        await first(client, JobStarted)
        for _ in range(3):
            await client.send(Cancel(job="one"))
        await end_of(client, "one")
        await client.send(Cancel(job="one"))
        got = await events_until(client, lambda message: isinstance(message, Refused))
    assert isinstance(got[-1], Refused)
    assert "ended already (cancelled)" in got[-1].message
    assert not [message for message in got if isinstance(message, JobCancelled)]


async def test_a_job_that_is_not_known_cannot_be_cancelled(served: Served) -> None:
    client = await served.client()
    await client.send(Cancel(job="nobody\x1b[31m"))
    assert (await first(client, Refused)).message == "There is no job 'nobody'."


async def test_a_killed_worker_costs_no_job(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "die 1"))
    await client.send(job("two"))
    got = await events_until(client, lambda message: isinstance(message, JobFinished) and message.job == "two")
    (died,) = [message for message in got if isinstance(message, WorkerDied)]
    assert died.exit_code == -signal.SIGKILL
    (cut,) = [message for message in got if isinstance(message, JobInterrupted)]
    assert cut.reason == "The worker was killed by SIGKILL, as the kernel does when memory runs out."
    assert (cut.attempt, cut.max_attempts) == (1, 3)
    assert cut.log_tail.splitlines()[-1] == "CUDA error: an illegal memory access"
    assert [message.job for message in got if isinstance(message, JobFinished)] == ["one", "two"], "it goes on before the next"
    steps = [message.step_index for message in got if isinstance(message, StepFinished) and message.job == "one"]
    assert steps == [0, 1, 2], "it goes on from its last step, and no step is told twice"
    assert await state_of(served.store, "one") == "done"


async def test_what_a_dead_worker_left_half_written_goes_when_its_job_ends(served: Served, home: Path) -> None:
    half = home / ".sdtui-one-0.part"
    half.touch()
    client = await served.client()
    await client.send(job("one", "die 1", output_dir=str(home)))
    assert isinstance(await end_of(client, "one"), JobFinished)
    await until(lambda: not half.exists(), "the removal of the half-written file")


async def test_a_job_under_which_every_worker_dies_fails_with_the_reason(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "die"))
    got = await events_until(client, lambda message: isinstance(message, JOB_ENDS))
    assert len([message for message in got if isinstance(message, WorkerDied)]) == settings.Server().max_attempts + 1
    failed = got[-1]
    assert isinstance(failed, JobFailed)
    assert "killed by SIGKILL" in failed.message
    assert "4 workers died under this job" in failed.message
    assert failed.detail.splitlines()[-1] == "CUDA error: an illegal memory access"
    assert await state_of(served.store, "one") == "failed"
    await client.send(job("two"))
    assert isinstance(await end_of(client, "two"), JobFinished)


async def test_nothing_is_begun_again_where_the_settings_say_so() -> None:
    once = settings.Settings(server=settings.Server(max_attempts=0))
    async with serving(configured=once) as served:
        client = await served.client()
        await client.send(job("one", "die"))
        failed = await end_of(client, "one")
        assert isinstance(failed, JobFailed)
        assert "not begun again" in failed.message


async def test_a_worker_that_talks_nonsense_is_replaced(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "garbage"))
    failed = await end_of(client, "one")
    assert isinstance(failed, JobFailed)
    assert "it sent what is no message" in failed.message
    assert (await status(client)).queued == 0
    await client.send(job("two"))
    assert isinstance(await end_of(client, "two"), JobFinished)


async def test_a_worker_without_a_sign_of_life_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WORKER_HEART", "none")
    async with serving(limits=msgspec.structs.replace(PATIENT, hung_s=0.3)) as served:
        client = await served.client()
        await client.send(job("one", "wait"))
        cut = await first(client, JobInterrupted)
        assert "no sign of life" in cut.reason


async def test_a_heartbeat_is_a_sign_of_life() -> None:
    async with serving(limits=msgspec.structs.replace(PATIENT, hung_s=0.5)) as served:
        client = await served.client()
        await client.send(job("one", "wait"))
        beats = 0

        def tenth_beat(message: Message) -> bool:
            nonlocal beats
            beats += isinstance(message, Heartbeat)
            return beats == 10

        got = await events_until(client, tenth_beat)
        assert not [message for message in got if isinstance(message, WorkerDied)]


async def test_when_no_worker_starts_the_jobs_are_kept_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WORKER_START", "die")
    async with serving() as served:
        client = await served.client()
        await until(lambda: served.server.supervisor.has_given_up)
        for name in ("one", "two"):
            await client.send(job(name))
            died = await events_until(client, lambda message: isinstance(message, WorkerDied) and message.given_up)
            assert isinstance(died[-1], WorkerDied)
            assert died[-1].log_tail.endswith("ImportError: no torch here red")
        late = await served.client()
        assert late.welcome.queue.queued == 2
        assert "No worker can be started" in late.welcome.queue.trouble
        assert "exit code 9" in late.welcome.queue.trouble
        monkeypatch.delenv("FAKE_WORKER_START")
        await client.send(job("three"))
        got = await events_until(client, lambda message: isinstance(message, JobFinished) and message.job == "three")
        assert [message.job for message in got if isinstance(message, JobFinished)] == ["one", "two", "three"]
        assert served.server.queue.status().trouble == ""


async def test_a_job_under_which_no_worker_gets_to_work_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as served:
        client = await served.client()
        await until(lambda: served.server.supervisor.model)
        await client.send(Hold(on=True))
        for name, prompt in (("bad", "spoilt"), ("good", "a cat")):
            await client.send(job(name, prompt))
        await client.send(Hold(on=False))
        failed = await end_of(client, "bad")
        assert isinstance(failed, JobFailed)
        assert isinstance(await end_of(client, "good"), JobFinished)


async def test_a_worker_command_that_does_not_exist_is_named() -> None:
    async with serving(command=("/nonexistent/python",)) as served:
        client = await served.client()
        await client.send(job("one"))
        await first(client, JobQueued)
        await until(lambda: "/nonexistent/python" in served.server.queue.status().trouble)
        assert await state_of(served.store, "one") == "queued"


async def test_a_job_waits_for_the_worker_and_can_be_cancelled_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_WORKER_START", "hold")
    async with serving() as served:
        client = await served.client(subscribe=False)
        await until(lambda: served.server.supervisor.stage == "torch")
        assert (await served.client()).welcome.worker == "torch"
        for name in ("one", "two"):
            await client.send(job(name))
        await client.send(Cancel(job="one"))
        assert await end_of(client, "one") == JobCancelled(job="one")
        worker = (await status(client)).worker_pid
        assert worker is not None
        os.kill(worker, signal.SIGUSR1)
        got = await events_until(client, lambda message: isinstance(message, JobFinished))
        assert kinds(got, "one") == []
        assert WorkerStage(stage="torch", state="finished") in got, "who waits for a job wants to know what it waits for"


async def test_a_client_that_does_not_subscribe_gets_its_own_jobs_alone(served: Served) -> None:
    mine = await served.client("mine", subscribe=False, previews=True)
    other = await served.client("other")
    await other.send(job("theirs"))
    await end_of(other, "theirs")
    await mine.send(job("mine", "wait"))
    await first(mine, PreviewReady)
    await mine.send(Cancel(job="mine"))
    await other.send(job("theirs2"))
    await end_of(other, "theirs2")
    await mine.send(ListJobs())
    got = await events_until(mine, lambda message: isinstance(message, Jobs))
    assert {getattr(message, "job", None) for message in got} == {None, "mine"}
    assert not [message for message in got if isinstance(message, Heartbeat | QueueChanged)]


async def test_a_model_can_be_loaded_before_it_is_needed(served: Served) -> None:
    client = await served.client()
    await until(lambda: served.server.supervisor.model)
    await client.send(LoadModel(model="owner/name"))
    got = await events_until(client, lambda message: isinstance(message, ModelLoaded) and message.info.model == "owner/name")
    assert isinstance(got[-1], ModelLoaded)


async def test_a_new_worker_loads_what_the_last_one_had(served: Served) -> None:
    client = await served.client()
    await client.send(LoadModel(model="owner/name"))
    await events_until(client, lambda message: isinstance(message, ModelLoaded) and message.info.model == "owner/name")
    os.kill((await status(client)).worker_pid or 0, signal.SIGKILL)
    await first(client, WorkerReady)
    assert (await first(client, ModelLoaded)).info.model == "owner/name"


@pytest.mark.parametrize(
    ("submit", "field", "part"),
    [
        (job("a", ""), "prompt", "Prompt is empty"),
        (job("a", "x" * 100_000), "prompt", "100,000 characters"),
        (job("a", params=GenerationParams(prompt="a", width=7)), "width", "it is 7"),
        (job("a", params=GenerationParams(prompt="a", scheduler="eular")), "scheduler", "'euler'"),
        (job("a", params=GenerationParams(prompt="a", model="./here")), "model", "absolute"),
        (job("a", output_dir="pictures"), "output", "absolute"),
        (job("a", output_dir="/a\0b"), "output", "absolute"),
        (job("../a"), "job", "letters, digits"),
        (job(""), "job", "letters, digits"),
        (job("a", preview=PreviewOptions(max_px=100_000)), "preview", "1024 px"),
        (job("a", preview=PreviewOptions(max_per_s=float("nan"))), "preview", "60 frames"),
    ],
)
async def test_a_wrong_job_is_refused_by_field(served: Served, submit: Submit, field: str, part: str) -> None:
    client = await served.client()
    await client.send(submit)
    refused = await first(client, Refused)
    assert (refused.field, refused.job) == (field, submit.job)
    assert part in refused.message
    assert await served.store.jobs("all", 10) == []


async def test_a_name_is_taken_once(served: Served) -> None:
    client = await served.client()
    await client.send(job("one"))
    await end_of(client, "one")
    await client.send(job("one"))
    refused = await first(client, Refused)
    assert (refused.field, refused.message) == ("job", "There is a job one already.")


async def test_taking_a_name_twice_does_not_cut_the_owner_off(served: Served) -> None:
    client = await served.client(subscribe=False)
    for _ in range(2):
        await client.send(job("one", "wait"))
    await first(client, Refused)
    await client.send(Cancel(job="one"))
    assert isinstance(await end_of(client, "one"), JobCancelled)


async def test_a_job_that_cannot_be_stored_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Database, job: Job, entry: Entry) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Database, "add_job", full)
    client = await served.client()
    await client.send(job("one"))
    refused = await first(client, Refused)
    assert refused.job == "one"
    assert "could not be stored" in refused.message
    assert "disk is full" in refused.message
    assert not served.server.queue.busy


async def test_a_full_queue_says_so() -> None:
    few = settings.Settings(server=settings.Server(max_queued=3))
    async with serving(configured=few) as served:
        client = await served.client()
        await client.send(job("running", "wait"))
        await until(lambda: served.server.queue.running)
        for name in ("one", "two", "three"):
            await client.send(job(name))
        refused = await first(client, Refused)
        assert refused.job == "three"
        assert "3 jobs wait already" in refused.message
        assert "max_queued" in refused.message


async def test_previews_go_only_to_who_wants_them(served: Served) -> None:
    watcher = await served.client("watcher", previews=True)
    reader = await served.client("reader")
    await watcher.send(job("one", "wait"))
    await first(watcher, PreviewReady)
    await watcher.send(Cancel(job="one"))
    got = await events_until(reader, lambda message: isinstance(message, JobCancelled))
    assert not [message for message in got if isinstance(message, PreviewReady)]


async def test_who_comes_late_gets_the_latest_preview(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "wait"))
    await until(lambda: served.server.queue.running and served.server.queue.running.preview)
    late = await served.client(previews=True)
    assert (await first(late, PreviewReady)).job == "one"


async def test_at_an_orderly_stop_the_running_job_is_cut_short_and_goes_on_with_the_next_server() -> None:
    async with serving() as served:
        client = await served.client()
        await client.send(job("one", "slow 300"))
        await events_until(client, lambda message: isinstance(message, StepFinished) and message.step_index == 5)
        await client.send(job("two"))
        await until(lambda: len(served.server.queue.waiting))
        served.server.stop("test")
        cut = await first(client, JobInterrupted)
        assert (cut.job, cut.attempt) == ("one", 0)
    async with serving() as served:
        client = await served.client()
        await until(lambda: not served.server.queue.busy)
        rows = (await asked(client, ListJobs(), Jobs)).jobs
        assert [(row.job, row.state) for row in rows] == [("two", "done"), ("one", "done")]
        told = await record_of(client, "one")
        steps = [message.step_index for message in told if isinstance(message, StepFinished)]
        assert steps == list(range(300)), "each step is recorded once, over both servers"
        assert len([message for message in told if isinstance(message, ImageSaved)]) == 1


async def test_a_server_is_stopped_although_the_worker_does_not_listen() -> None:
    async with serving(limits=HASTY) as served:
        client = await served.client()
        await client.send(job("one", "deaf"))
        await first(client, JobStarted)
    store = await Store.open(settings.database_path())
    assert await state_of(store, "one") == "interrupted"
    await store.close()


async def test_a_server_stays_as_long_as_it_has_a_job_and_then_leaves_by_itself() -> None:
    hasty = settings.Settings(server=settings.Server(idle_timeout_s=0.1))
    async with serving(configured=hasty) as served:
        client = await served.client()
        await client.send(job("one", "wait"))
        await first(client, JobStarted)
        await client.close()
        done, _ = await asyncio.wait({served.task}, timeout=0.5)
        assert not done, "it left although a job runs"
        served.server.queue.cancel(Cancel(job="one"))
        await asyncio.wait_for(asyncio.shield(served.task), DEADLINE_S)


async def test_asking_for_the_status_does_not_keep_a_server() -> None:
    hasty = settings.Settings(server=settings.Server(idle_timeout_s=0.3))
    async with serving(configured=hasty) as served:
        client = await served.client(subscribe=False)
        told = await status(client)
        assert 0 < told.idle_s < DEADLINE_S
        assert told.idle_timeout_s == 0.3
        await asyncio.wait_for(asyncio.shield(served.task), DEADLINE_S)


async def test_a_stop_that_comes_while_the_worker_is_being_started_ends_it() -> None:
    async with serving() as served:
        await served.server.supervisor.stop()
        again = Supervisor(
            FAKE_COMMAND, settings.worker_log_path(), served.server, HASTY, record_path=settings.worker_record_path()
        )
        again.start()
        await asyncio.sleep(0)
        assert again.pid is None, "it is still being started"
        await asyncio.wait_for(again.stop(), DEADLINE_S)
        assert again.pid is None


def test_the_stated_times_are_the_ones_users_are_told() -> None:
    assert (Limits().cancel_s, Limits().cancel_while_loading_s, Limits().hung_s) == (2.0, 10.0, 30.0)


async def test_steps_and_pictures_are_counted_once(served: Served) -> None:
    client = await served.client()
    await client.send(job("one", "steps 500"))
    got = await events_until(client, lambda message: isinstance(message, JobFinished))
    assert [message.step_index for message in got if isinstance(message, StepFinished)] == list(range(500))
    assert len([message for message in got if isinstance(message, ImageSaved)]) == 1
