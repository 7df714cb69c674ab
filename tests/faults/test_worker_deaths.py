"""The worker dies at every point of a job, and at any moment: no job is lost, no picture made twice, no bit differs."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from sdtui.protocol import JobFailed, JobInterrupted, JobResumed, Message
from tests.faults.house import KINDS, LONG, MOMENTS, SEED, STEPS, House, kill, references

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("faults-worker")]

PICTURES = "/pictures/"
"""The warm-up saves a picture too, elsewhere."""
POINTS = (
    "event:JobStarted",
    "event:StageStarted:load",
    "event:JobResumed",
    *(("event:StageFinished:load",) if LONG else ()),
    "event:StageStarted:tokens",
    "event:StageStarted:embeddings",
    "event:StageStarted:latents",
    "event:StageStarted:denoise",
    *(("event:StepFinished:0",) if LONG else ()),
    "event:StepFinished:2",
    *(("event:StageFinished:denoise",) if LONG else ()),
    "event:StageStarted:decode",
    "event:StageStarted:save",
    "call:fdopen-write",
    "call:link",
    "done:link",
    *(("event:ImageSaved:0",) if LONG else ()),
    "event:ImageSaved:1",
    "event:JobFinished",
)
"""In the order in which a job that is begun again and again comes by; never three in a row before `JobStarted` is told."""


def deaths(points: tuple[str, ...], signals: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"who": "worker", "at": at, "about": PICTURES if "call" in at or "done" in at else "", "do": do}
        for at, do in zip(points, itertools.cycle(signals), strict=False)
    ]


@pytest.mark.parametrize("signals", [("SIGKILL", "SIGSEGV"), *([("SIGSEGV", "SIGKILL")] if LONG else [])], ids="-".join)
async def test_a_worker_that_dies_at_every_point_of_a_job_loses_nothing(house: House, signals: tuple[str, ...]) -> None:
    kind = "euler_a, a batch of two"
    wanted = await references(house, [kind])
    job = house.job("dying", **KINDS[kind])
    house.plan(*deaths(POINTS, signals))
    await house.run([job])
    await house.check([job], {"dying": wanted[kind]})
    await house.check_record("dying")
    cut = house.of(JobInterrupted, "dying")
    assert len(cut) == len(POINTS) == house.rows["dying"].attempts
    assert [signals[index % 2] in event.reason for index, event in enumerate(cut)] == [True] * len(cut)
    assert max(event.steps_done for event in house.of(JobResumed)) == STEPS, "the pictures were made from the whole tape"


async def test_with_every_kind_of_scheduler_the_picture_is_the_same_bit_for_bit(house: House) -> None:
    kinds = [name for index, name in enumerate(KINDS) if LONG or index % 2]
    wanted = await references(house, kinds)
    jobs = {f"cut-{number}": kind for number, kind in enumerate(kinds)}
    submits = [house.job(name, **KINDS[kind]) for name, kind in jobs.items()]
    points = ("event:StepFinished:1", "event:StepFinished:3", "event:StageStarted:denoise", "event:StageStarted:save")
    house.plan(*deaths(points * len(jobs) if LONG else points[:2] * (len(jobs) // 2), ("SIGKILL",)))
    await house.run(submits)
    await house.check(submits, {name: wanted[kind] for name, kind in jobs.items()})
    await house.check_record(*jobs)


async def test_killed_at_random_moments_it_loses_nothing(house: House) -> None:
    kinds = list(KINDS)
    wanted = await references(house, kinds)
    chance = random.Random(SEED)
    jobs = [house.job(f"random-{number}", **KINDS[kinds[number % len(kinds)]]) for number in range(max(MOMENTS, len(kinds)))]
    skip = [chance.randrange(1, 40) for _ in range(MOMENTS)]
    """So many messages are seen before each death."""

    def at(here: House, _client: object, message: Message) -> None:
        if skip and getattr(message, "job", None) and here.worker_pid:
            skip[0] -= 1
            if skip[0] <= 0:
                skip.pop(0)
                kill(here.worker_pid, chance.choice((9, 11)))

    print(f"SDTUI_FAULTS_SEED={SEED}")  # noqa: T201  # shown when it fails, to try the same again
    await house.run(jobs, at)
    assert not skip
    await house.check(jobs, {job.job: wanted[kinds[number % len(kinds)]] for number, job in enumerate(jobs)})
    await house.check_record(*(job.job for job in jobs))
    assert not house.of(JobFailed)
