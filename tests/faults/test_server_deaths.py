"""The server dies at every stage, inside its transactions, and at any moment: a new client starts the next one, which goes on."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from sdtui.protocol import (
    JOB_EVENTS,
    Hold,
    ImageSaved,
    JobFailed,
    JobQueued,
    Jobs,
    JobStarted,
    ListJobs,
    Message,
    StageStarted,
    StepFinished,
)
from sdtui.server.client import Client, ServerUnavailable
from tests.faults.house import KINDS, LONG, MOMENTS, SEED, House, gone, kill, references
from tests.server.harness import asked

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("faults-server")]


def stage(name: str) -> Any:
    return lambda message: isinstance(message, StageStarted) and message.stage == name


STAGES = {
    "start": lambda message: isinstance(message, JobStarted),
    "load": stage("load"),
    "tokens": stage("tokens"),
    "embeddings": stage("embeddings"),
    "latents": stage("latents"),
    "denoise": stage("denoise"),
    "step": lambda message: isinstance(message, StepFinished) and message.step_index == 1,
    "decode": stage("decode"),
    "save": stage("save"),
    "picture": lambda message: isinstance(message, ImageSaved),
}
"""What a client sees of a job, in the order in which one that is begun again and again comes by."""


class Killer:
    """Kills at each thing of a list, as soon as the client sees it; `victims` picks who dies."""

    def __init__(self, job: str, at: list[str], victims: str = "server") -> None:
        self.job, self.at, self.victims = job, list(at), victims
        self.killed: list[int] = []

    def __call__(self, house: House, _client: Client, message: Message) -> None:
        if self.at and getattr(message, "job", None) == self.job and STAGES[self.at[0]](message):
            if house.server_pid in self.killed:
                return  # it is dead, and this is what it sent before
            if self.victims == "both" and not house.worker_pid:
                return  # it is not known yet
            self.at.pop(0)
            self.killed += [pid for pid in (house.worker_pid, house.server_pid) if pid]
            if self.victims == "both":
                kill(house.worker_pid, signal.SIGKILL)
            kill(house.server_pid, signal.SIGKILL)


async def test_a_server_that_dies_at_every_stage_loses_nothing(house: House) -> None:
    kind = "ddim, two batches"
    wanted = await references(house, [kind])
    job, after = house.job("dying", **KINDS[kind]), house.job("after", **KINDS[kind])
    stages = list(STAGES) if LONG else ["start", "load", "latents", "step", "save", "picture"]
    killer = Killer("dying", stages)
    await house.run([job, after], killer)
    assert not killer.at
    await house.check([job, after], {"dying": wanted[kind], "after": wanted[kind]})
    await house.check_record("dying", "after")
    assert house.rows["dying"].attempts == 0, "the server's death is not the job's fault"
    assert house.rows["dying"].finished_at < house.rows["after"].started_at, "a job that was cut short goes on first"  # type: ignore[operator]
    for pid in killer.killed:
        await gone(pid)


async def test_both_die_at_once_and_nothing_is_lost(house: House) -> None:
    kind = "dpmpp_2m_sde"
    wanted = await references(house, [kind])
    job = house.job("both", **KINDS[kind])
    killer = Killer("both", ["step", "decode", "picture"] if LONG else ["step"], "both")
    await house.run([job], killer)
    assert not killer.at
    await house.check([job], {"both": wanted[kind]})
    await house.check_record("both")


async def test_a_server_that_dies_inside_its_transactions_leaves_a_database_that_opens(house: House) -> None:
    kind = "heun"
    wanted = await references(house, [kind])
    jobs = [house.job(f"cut-{number}", **KINDS[kind]) for number in range(2)]
    points = [("sql:BEGIN", 1), ("sql:COMMIT", 2), ("sql:COMMITTED", 3), ("sql:INSERT", 2), ("sql:UPDATE", 3), ("sql:COMMIT", 7)]
    points = points if LONG else points[1:5]
    house.plan(*({"who": "server", "at": at, "nth": nth, "do": "SIGKILL"} for at, nth in points))
    house.end()
    await house.run(jobs)
    await house.check(jobs, {job.job: wanted[kind] for job in jobs})
    await house.check_record(*(job.job for job in jobs))


async def test_every_acknowledged_job_is_there_after_the_server_died_among_many_submits(small_house: House) -> None:
    client = await Client.connect(name="first")
    await client.send(Hold(on=True))
    small_house.plan({"who": "server", "at": "sql:COMMIT", "nth": 120, "do": "SIGKILL"})
    names = [f"many-{number:03d}" for number in range(300)]
    try:
        for name in names:
            await client.send(small_house.job(name))
    except ServerUnavailable:
        pass  # it has died by now
    acknowledged = [message.job async for message in client.events() if isinstance(message, JobQueued)]
    await client.close()
    assert not small_house.planned
    again = await Client.connect(name="again")
    listed = await asked(again, ListJobs(which="queue", limit=1000), Jobs)
    there = [row.job for row in listed.jobs]
    assert len(acknowledged) >= 100
    assert there[: len(acknowledged)] == acknowledged, "in the order in which they came"
    assert len(there) <= len(acknowledged) + 1, "at most the one that was stored but not told"
    await again.close()


async def test_killed_at_random_moments_server_and_worker_lose_nothing(house: House) -> None:
    kinds = list(KINDS)[:: 1 if LONG else 2]
    wanted = await references(house, kinds)
    chance = random.Random(SEED)
    jobs = [house.job(f"random-{number}", **KINDS[kinds[number % len(kinds)]]) for number in range(max(MOMENTS, len(kinds)))]
    moments = [(chance.randrange(1, 40), victim) for victim in _victims(chance, MOMENTS)]
    """So many messages are seen before each death."""
    dead: set[int] = set()
    left = [moments[0][0]]

    def at(here: House, _client: object, message: Message) -> None:
        if not moments or here.server_pid in dead or not isinstance(message, JOB_EVENTS):
            return
        left[0] -= 1
        if left[0] > 0 or not here.worker_pid:
            return
        _, victim = moments.pop(0)
        left[0] = moments[0][0] if moments else 0
        if victim != "server":
            kill(here.worker_pid, chance.choice((signal.SIGKILL, signal.SIGSEGV)))
        if victim != "worker":
            dead.add(here.server_pid)
            kill(here.server_pid, signal.SIGKILL)

    print(f"SDTUI_FAULTS_SEED={SEED}")  # noqa: T201  # shown when it fails, to try the same again
    await house.run(jobs, at)
    assert not moments
    await house.check(jobs, {job.job: wanted[kinds[number % len(kinds)]] for number, job in enumerate(jobs)})
    await house.check_record(*(job.job for job in jobs))
    assert not house.of(JobFailed)


def _victims(chance: random.Random, count: int) -> list[str]:
    """Each kind at least once, as far as there are enough."""
    victims = ["server", "both", "worker"] * (count // 3 + 1)
    chance.shuffle(first := victims[:3])
    return [*first, *chance.choices(victims, k=count)][:count]
