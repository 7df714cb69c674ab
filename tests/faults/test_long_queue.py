"""Ten thousand jobs wait: each command does what it does for ten. What it costs is measured by `sdtui bench queue`."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from sdtui import settings
from sdtui.protocol import (
    HEADER_BYTES,
    Cancel,
    CancelWaiting,
    JobCancelled,
    JobChanged,
    JobQueued,
    Jobs,
    ListJobs,
    Move,
    WaitingCancelled,
    encode,
)
from sdtui.server.client import Client
from sdtui.server.database import Database, Entry, QueueValue
from sdtui.server.job import Job
from sdtui.server.order import RANK_GAP
from tests.faults.house import House, kill
from tests.server.harness import asked, job

JOBS = 10_000


def fill(path: Path) -> None:
    """A database with ten thousand waiting jobs of a held queue; made in memory where that can be, as each is synced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        made = Path(directory) / "filled.sqlite3"
        database = Database(made)
        for number in range(JOBS):
            waiting = Job.new(job(f"waits-{number:05d}"), 1.0 + number)
            waiting.rank = number * RANK_GAP
            queued = JobQueued(job=waiting.name, params=waiting.row.params, position=number)
            database.add_job(waiting, Entry(number + 1, waiting.name, 1.0, queued, encode(queued)[HEADER_BYTES:]))
        database.write([QueueValue("held", "yes")])
        database.close()
        path.parent.mkdir(parents=True)
        shutil.copyfile(made, path)


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("faults-client")
async def test_ten_thousand_jobs_are_listed_moved_and_cancelled_and_outlive_the_server(small_house: House) -> None:
    fill(settings.database_path())
    names = [f"waits-{number:05d}" for number in range(JOBS)]
    client = await Client.connect(name="test")
    assert client.welcome.queue.queued == JOBS

    async def page(client: Client, offset: int) -> list[str]:
        listed = await asked(client, ListJobs(which="queue", offset=offset), Jobs)
        assert (listed.total, listed.counts["queued"]) == (len(names), len(names))
        return [row.job for row in listed.jobs]

    assert await page(client, 0) == names[:50]
    assert await page(client, 5_000) == names[5_000:5_050]
    assert await page(client, JOBS - 10) == names[-10:]

    assert (await asked(client, Move(job="waits-05000", to="first"), JobChanged)).position == 0
    names.insert(0, names.pop(5_000))
    assert (await asked(client, Move(job="waits-07000", to="up"), JobChanged)).position == 6_999
    names.insert(6_999, names.pop(7_000))
    assert (await asked(client, job("last"), JobQueued)).position == JOBS
    names.append("last")
    await asked(client, Cancel(job="waits-00010"), JobCancelled)
    names.remove("waits-00010")
    assert await page(client, 0) == names[:50]
    assert await page(client, 6_990) == names[6_990:7_040]

    assert [row.state for row in (await asked(client, ListJobs(which="ended"), Jobs)).jobs] == ["cancelled"]
    kill(client.welcome.pid, signal.SIGKILL)
    await client.close()
    client = await Client.connect(name="again")
    assert await page(client, 0) == names[:50]
    assert await page(client, JOBS - 10) == names[-10:]
    assert (await asked(client, CancelWaiting(), WaitingCancelled)).count == JOBS
    assert client.welcome.queue.held, "a held queue stays held"
    await client.close()
