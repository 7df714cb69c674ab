"""The database: what a job leaves behind, whatever happens to the server."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from sdtui import settings
from sdtui.params import GenerationParams
from sdtui.protocol import (
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobPaused,
    JobQueued,
    JobStarted,
    Message,
    StepFinished,
    decode,
    encode,
)
from sdtui.server import store as store_module
from sdtui.server.database import Database, Entry
from sdtui.server.job import Job
from sdtui.server.schema import SCHEMA_VERSION, DatabaseError
from sdtui.server.store import Store, is_recorded
from tests.server.fake_worker import preview, step
from tests.server.harness import job, state_of, until

PARAMS = GenerationParams(prompt="a red cat", seed=7)
SAVED = ImageSaved(job="one", path="/a.png", seed=7, image_index=0, width_px=128, height_px=128, size_bytes=9, elapsed_s=0.1)
STARTED = JobStarted(job="one", seed=7, params=PARAMS, total_images=1)


@pytest.fixture
def path(home: Path) -> Path:
    return settings.database_path()


def put(path: Path, data: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    path.chmod(mode)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(path: Path) -> bytes:
    return path.read_bytes()


def record(store: Store, *events: Message) -> None:
    for event in events:
        store.record(event, "one", encode(event))


async def with_job(path: Path) -> Store:
    store = await Store.open(path)
    assert await add(store, "one")
    return store


async def add(store: Store, name: str) -> bool:
    submit = job(name)
    return await store.add_job(Job.new(submit, 1.0), JobQueued(job=name, params=submit.params, position=0))


async def test_the_database_is_private(path: Path) -> None:
    store = await with_job(path)
    files = list(path.parent.iterdir())
    assert {file.name for file in files} == {"sdtui.sqlite3", "sdtui.sqlite3-wal", "sdtui.sqlite3-shm"}
    assert set(map(mode, files)) == {0o600}
    await store.close()


async def test_a_database_that_was_open_to_others_is_closed_to_them(path: Path) -> None:
    put(path, b"", mode=0o644)
    await (await Store.open(path)).close()
    assert mode(path) == 0o600


async def test_the_state_of_a_job_follows_from_its_events(path: Path) -> None:
    store = await with_job(path)
    assert await state_of(store, "one") == "queued"
    store.change("one", state="running", started_at=2.0)
    record(store, STARTED)
    assert await state_of(store, "one") == "running"
    record(store, step("one", 0, 1), SAVED, JobFinished(job="one", elapsed_s=1.0, images=("/a.png",)))
    (row,) = await store.jobs("all", 10)
    assert (row.state, row.images, row.params, row.reason) == ("done", ("/a.png",), PARAMS, None)
    await store.close()


@pytest.mark.parametrize(
    ("end", "state", "reason"),
    [(JobFailed(job="one", message="no memory"), "failed", "no memory"), (JobCancelled(job="one"), "cancelled", None)],
)
async def test_a_job_that_ends_otherwise_says_how(path: Path, end: Message, state: str, reason: str | None) -> None:
    store = await with_job(path)
    record(store, end)
    (row,) = await store.jobs("all", 10)
    assert (row.state, row.reason) == (state, reason)
    assert row.finished_at is not None
    await store.close()


async def test_events_come_back_as_they_went_in_and_in_order(path: Path) -> None:
    store = await with_job(path)
    events = [STARTED, *(step("one", index, 50) for index in range(50)), SAVED]
    record(store, *events)
    stored = await store.events("one", 0, 1000)
    assert [decode(payload) for _, payload in stored][1:] == events
    numbers = [number for number, _ in stored]
    assert numbers == sorted(set(numbers))
    assert await store.events("one", numbers[-2], 1000) == stored[-1:]
    await store.close()


def test_previews_are_not_recorded() -> None:
    assert not is_recorded(preview("one", 0))
    assert is_recorded(step("one", 0, 1))


async def test_steps_are_written_in_batches_and_states_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[type]] = []
    write = Database.write

    def noted(self: Database, entries: list[Entry]) -> None:
        batches.append([type(entry.event) for entry in entries if isinstance(entry, Entry)])
        write(self, entries)

    monkeypatch.setattr(Database, "write", noted)
    store = await with_job(path)
    for index in range(100):
        record(store, step("one", index, 100))
        await asyncio.sleep(0)
    await until(lambda: batches)
    record(store, step("one", 100, 101), STARTED)
    await until(lambda: len(batches) == 2)
    assert batches == [[StepFinished] * 100, [StepFinished, JobStarted]]
    await store.close()


async def test_a_job_name_is_taken_once(path: Path) -> None:
    store = await with_job(path)
    assert not await add(store, "one")
    assert len(await store.events("one", 0, 10)) == 1
    await store.close()


async def test_a_new_server_gets_all_that_has_not_ended(path: Path) -> None:
    store = await with_job(path)
    for name in ("two", "three", "four"):
        await add(store, name)
    store.change("one", state="running", started_at=2.0)
    record(store, STARTED, step("one", 0, 20), step("one", 1, 20), SAVED)
    store.record(JobPaused(job="two", steps_done=0), "two", encode(JobPaused(job="two", steps_done=0)))
    store.record(JobCancelled(job="four"), "four", encode(JobCancelled(job="four")))
    await store.close()
    store = await Store.open(path)
    one, two, three = await store.unended()
    assert (one.row.state, one.row.steps_done, one.row.total_steps, one.seed, one.row.images) == (
        "running",
        2,
        20,
        7,
        ("/a.png",),
    )
    assert one.submit == job("one")
    assert (two.row.state, three.row.state) == ("paused", "queued")
    assert not three.begun
    await store.close()


async def test_what_failed_to_be_written_comes_before_what_came_after_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await with_job(path)
    write = Database.write
    fail = True

    def first_fails(self: Database, entries: list[Entry]) -> None:
        nonlocal fail
        if fail:
            fail = False
            raise sqlite3.OperationalError("disk I/O error")
        write(self, entries)

    monkeypatch.setattr(Database, "write", first_fails)
    store.change("one", state="running")
    failing = asyncio.create_task(store.flush())
    await asyncio.sleep(0)
    record(store, JobFinished(job="one", elapsed_s=1.0, images=()))
    await failing
    assert "disk I/O error" in store.trouble
    assert await state_of(store, "one") == "done"
    assert store.trouble == ""
    await store.close()


async def test_a_job_whose_end_cannot_be_written_is_told_as_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Database, entries: list[Entry]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    store = await with_job(path)
    store.change("one", state="running")
    await store.flush()
    write = Database.write
    monkeypatch.setattr(Database, "write", full)
    record(store, JobFailed(job="one", message="no memory"))
    (row,) = await store.jobs("all", 10)
    assert (row.state, row.reason) == ("failed", "no memory")
    assert row.finished_at is not None
    assert await state_of(store, "one") == "failed"
    monkeypatch.setattr(Database, "write", write)
    await store.close()


async def test_a_write_that_can_never_succeed_costs_no_other(path: Path) -> None:
    store = await with_job(path)
    record(store, STARTED)
    store.record(JobCancelled(job="nobody"), "nobody", encode(JobCancelled(job="nobody")))
    store.change("one", nonsense=1)
    record(store, JobFinished(job="one", elapsed_s=1.0, images=()))
    assert await state_of(store, "one") == "done"
    assert store.trouble == ""
    assert not store.pending
    await store.close()


async def test_a_picture_that_is_told_twice_is_recorded_once(path: Path) -> None:
    store = await with_job(path)
    record(store, SAVED, SAVED)
    (row,) = await store.jobs("all", 10)
    assert row.images == ("/a.png",)
    await store.close()


async def test_numbers_go_on_after_a_restart(path: Path) -> None:
    store = await with_job(path)
    record(store, STARTED)
    await store.close()
    store = await Store.open(path)
    record(store, SAVED)
    assert [number for number, _ in await store.events("one", 0, 10)] == [1, 2, 3]
    await store.close()


async def test_a_full_disk_costs_nothing_once_there_is_room_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await with_job(path)
    write = Database.write

    def full(self: Database, entries: list[Entry]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Database, "write", full)
    monkeypatch.setattr(store_module, "RETRY_S", 0.01)
    record(store, STARTED)
    await until(lambda: "database or disk is full" in caplog.text)
    monkeypatch.setattr(Database, "write", write)
    await until(lambda: not store.pending)
    record(store, SAVED, JobFinished(job="one", elapsed_s=1.0, images=("/a.png",)))
    assert [type(decode(payload)) for _, payload in await store.events("one", 0, 10)] == [
        JobQueued,
        JobStarted,
        ImageSaved,
        JobFinished,
    ]
    await store.close()


async def test_while_the_disk_is_full_the_oldest_steps_go_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await with_job(path)
    write = Database.write

    def full(self: Database, entries: list[Entry]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Database, "write", full)
    monkeypatch.setattr(store_module, "MAX_PENDING", 12)
    record(store, STARTED, *(step("one", index, 20) for index in range(20)), SAVED)
    await store.flush()
    monkeypatch.setattr(Database, "write", write)
    stored = [decode(payload) for _, payload in await store.events("one", 1, 100)]
    assert stored == [STARTED, *(step("one", index, 20) for index in range(10, 20)), SAVED]
    await store.close()


async def test_a_newer_database_is_refused_and_left_alone(path: Path) -> None:
    await (await Store.open(path)).close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    before = contents(path)
    with pytest.raises(
        DatabaseError, match=rf"has version {SCHEMA_VERSION + 1}; this sdtui \(.*\) knows versions up to {SCHEMA_VERSION}"
    ):
        await Store.open(path)
    assert contents(path) == before


async def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    put(path, b"a picture, or a text" * 500)
    with pytest.raises(DatabaseError, match="file is not a database") as caught:
        await Store.open(path)
    assert str(path) in str(caught.value)


async def test_a_directory_in_its_place_is_named(path: Path) -> None:
    put(path / "file", b"")
    with pytest.raises(DatabaseError, match="cannot be opened"):
        await Store.open(path)
