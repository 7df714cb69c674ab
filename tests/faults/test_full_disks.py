"""Writes that fail, each in its turn, in worker and server: nothing half-written, the queue says what is wrong and goes on."""

from __future__ import annotations

import errno
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdtui.protocol import (
    JobInterrupted,
    JobResumed,
    Message,
    QueueChanged,
    Refused,
    StepFinished,
    StorageFreed,
    StorageFull,
)
from sdtui.server.client import Client
from tests.faults.house import KINDS, LONG, House, references
from tests.server.harness import first

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("faults-disk")]
KIND = "dpmpp_2m_sde"
ERRORS = ("ENOSPC", "EIO")

PART = "-0.part"
"""A job's picture before it has its name."""
PICTURE = (
    ("call:open", PART),
    ("call:fdopen-write", PART),
    ("call:fsync", PART),
    ("call:write", "saving.jsonl"),
    ("call:fdatasync", "saving.jsonl"),
    ("call:link", PART),
    ("call:write", "saved.jsonl"),
    ("call:fdatasync", "saved.jsonl"),
)
"""Every write on the way of a picture to its name; each is met once, in this order, by one picture that is tried again."""


def failing(
    points: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...], shift: int, who: str = "worker"
) -> list[dict[str, Any]]:
    errors = itertools.islice(itertools.cycle(ERRORS), shift, None)
    return [{"who": who, "at": at, "about": about, "do": do} for (at, about), do in zip(points, errors, strict=False)]


@pytest.mark.parametrize("shift", [0, 1] if LONG else [0])
async def test_each_write_of_a_picture_may_fail_and_it_is_saved_once(house: House, shift: int) -> None:
    wanted = await references(house, [KIND])
    job = house.job("full", **KINDS[KIND])
    house.plan(*failing(PICTURE, shift))
    await house.run([job])
    await house.check([job], {"full": wanted[KIND]})
    (full,), (freed,) = house.of(StorageFull, "full"), house.of(StorageFreed, "full")
    assert full.path == freed.path == str(house.pictures)
    assert "kept in memory" in full.message
    assert not house.of(JobInterrupted)


async def test_while_the_disk_is_full_the_queue_says_so_and_nothing_is_under_a_final_name(house: House) -> None:
    wanted = await references(house, [KIND])
    jobs = [house.job("first", **KINDS[KIND]), house.job("second", **KINDS[KIND])]
    room = house.home / "room"
    house.plan({"who": "worker", "at": "call:fdopen-write", "about": PART, "do": "ENOSPC", "until": str(room)})
    found: list[list[str]] = []
    troubles: list[str] = []

    def at(here: House, _client: Client, message: Message) -> None:
        if isinstance(message, QueueChanged) and message.trouble:
            troubles.append(message.trouble)
            found.append([path.name for path in here.pictures.iterdir() if path.name.startswith(("first", "second"))])
            room.touch()

    await house.run(jobs, at)
    await house.check(jobs, {job.job: wanted[KIND] for job in jobs})
    assert found[0] == []
    assert f"The disk of {house.pictures} is full" in troubles[0]
    assert house.of(QueueChanged)[-1].trouble == ""


async def test_a_worker_that_dies_while_the_disk_is_full_saves_once_when_there_is_room(house: House) -> None:
    wanted = await references(house, [KIND])
    job = house.job("dying", **KINDS[KIND])
    room = house.home / "room"
    house.plan(
        {"who": "worker", "at": "call:fsync", "about": PART, "do": "ENOSPC"},
        {"who": "worker", "at": "event:StorageFull", "do": "SIGKILL"},
        {"who": "worker", "at": "call:fsync", "about": PART, "do": "ENOSPC", "until": str(room)},
    )

    def at(_house: House, _client: Client, message: Message) -> None:
        if isinstance(message, StorageFull):
            room.touch()

    await house.run([job], at)
    await house.check([job], {"dying": wanted[KIND]})
    assert [event.steps_done for event in house.of(JobResumed)] == [4]


@pytest.mark.parametrize(("at", "about"), [("call:write", ".tape"), ("call:open", ".tape"), ("call:ftruncate", ".tape")])
@pytest.mark.parametrize("error", ERRORS if LONG else ERRORS[:1])
async def test_a_tape_that_cannot_be_written_costs_the_job_nothing(house: House, at: str, about: str, error: str) -> None:
    wanted = await references(house, [KIND])
    job = house.job("tapeless", **KINDS[KIND])
    house.plan({"who": "worker", "at": at, "about": about, "nth": 1, "do": error})
    await house.run([job])
    await house.check([job], {"tapeless": wanted[KIND]})
    assert [step.step_index for step in house.of(StepFinished, "tapeless")] == [0, 1, 2, 3]


async def test_a_torn_tape_and_then_a_death_give_the_same_picture(house: House) -> None:
    wanted = await references(house, [KIND])
    job = house.job("torn", **KINDS[KIND])
    house.plan(
        {"who": "worker", "at": "call:write", "about": ".tape", "nth": 3, "do": "EIO"},
        {"who": "worker", "at": "event:StageStarted:decode", "do": "SIGKILL"},
    )
    await house.run([job])
    await house.check([job], {"torn": wanted[KIND]})
    (resumed,) = house.of(JobResumed)
    assert 0 < resumed.steps_done < 4, "what was on the tape before the fault was used"
    told = [step.step_index for step in house.of(StepFinished, "torn")]
    missing = list(range(resumed.steps_done, 4))
    assert told[-len(missing) :] == missing, "what was lost is made and told again"
    await house.check_record("torn")


@pytest.mark.parametrize(("point", "error"), [("sql:BEGIN", "ENOSPC"), ("sql:COMMIT", "EIO"), ("sql:INSERT", "ENOSPC")])
async def test_a_database_that_cannot_be_written_holds_the_queue_and_loses_nothing(
    small_house: House, point: str, error: str
) -> None:
    room = small_house.home / "room"
    jobs = [small_house.job("first", prompt="slow 50"), small_house.job("second"), small_house.job("third")]
    planned = {"who": "server", "at": point, "do": error, "until": str(room)}
    troubles: list[str] = []
    running: set[str | None] = set()

    def at(here: House, _client: Client, message: Message) -> None:
        if isinstance(message, StepFinished) and message.step_index == 2 and message.job == "first":
            here.plan(planned)
        if isinstance(message, QueueChanged) and message.trouble:
            troubles.append(message.trouble)
            running.add(message.running)
            if message.running is None:
                room.touch()

    await small_house.run(jobs, at)
    assert {row.state for row in small_house.rows.values()} == {"done"}
    assert "cannot be written" in troubles[0] and "no job is begun until it can" in troubles[0]
    await small_house.check_record("first", "second", "third")
    assert len(running - {None}) <= 1, "no job is begun meanwhile"
    assert not small_house.planned


@pytest.mark.parametrize("error", ERRORS)
async def test_a_job_that_cannot_be_stored_is_refused_and_can_be_submitted_again(small_house: House, error: str) -> None:
    client = await Client.connect(name="test")
    small_house.plan({"who": "server", "at": "sql:INSERT", "do": error})
    await client.send(small_house.job("one", prompt="steps 1"))
    refused = await first(client, Refused)
    assert (refused.job, "could not be stored" in refused.message) == ("one", True)
    await client.close()
    await small_house.run([small_house.job("one", prompt="steps 1")])
    assert small_house.rows["one"].state == "done"


@pytest.mark.parametrize(("at", "about"), [("call:replace", "worker.json"), ("call:open", "worker.log")])
async def test_a_record_or_log_of_the_worker_that_cannot_be_written_stops_no_job(small_house: House, at: str, about: str) -> None:
    small_house.plan({"who": "server", "at": at, "about": about, "do": "ENOSPC"})
    await small_house.run([small_house.job("one", prompt="steps 1")])
    assert small_house.rows["one"].state == "done", small_house.logs()
    assert not small_house.planned


# --- a real small disk ----------------------------------------------------------------------------------------------


class SmallDisk:
    """A file system in memory, with a file that fills it."""

    def __init__(self, place: Path, size: str) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(place)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here; the failing writes above stand in for it")

    def fill(self) -> None:
        with (self.place / "filler").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def free(self) -> None:
        (self.place / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=False)


@pytest.fixture
def small_disk(house: House, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    disk = SmallDisk(house.home / request.param, "8m")
    yield disk
    disk.close()


@pytest.mark.parametrize("small_disk", ["pictures"], indirect=True)
async def test_a_real_disk_without_room_for_pictures(house: House, small_disk: SmallDisk) -> None:
    wanted = await references(house, [KIND])
    job = house.job("full", **KINDS[KIND])
    small_disk.fill()

    def at(_house: House, _client: Client, message: Message) -> None:
        if isinstance(message, StorageFull):
            assert "full" in message.message
            assert not house.files_of("full")
            small_disk.free()

    await house.run([job], at)
    await house.check([job], {"full": wanted[KIND]})


@pytest.mark.parametrize("small_disk", ["data"], indirect=True)
async def test_a_real_disk_without_room_for_database_tape_and_ledger(house: House, small_disk: SmallDisk) -> None:
    wanted = await references(house, [KIND])
    jobs = [house.job("full", **KINDS[KIND]), house.job("next", **KINDS[KIND])]

    def at(_house: House, _client: Client, message: Message) -> None:
        if isinstance(message, StepFinished) and message.job == "full" and message.step_index == 1:
            small_disk.fill()
        if isinstance(message, QueueChanged) and message.trouble:
            small_disk.free()

    await house.run(jobs, at)
    await house.check(jobs, {job.job: wanted[KIND] for job in jobs})
    await house.check_record("full", "next")
    assert any(event.trouble for event in house.of(QueueChanged))
