"""All three processes as users have them: client, server, and the worker with torch and the model that ships."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from sdtui.params import GenerationParams
from sdtui.protocol import (
    JOB_ENDS,
    BranchPoint,
    Cancel,
    DecodeStep,
    GetJob,
    ImageSaved,
    JobCancelled,
    JobChanged,
    JobFinished,
    JobInterrupted,
    JobResumed,
    Message,
    PreviewReady,
    Replay,
    ReplayDone,
    StepDecoded,
    StepFinished,
    StepNotDecoded,
    Submit,
    WorkerReady,
)
from sdtui.server.client import Client, server_running, stop_server
from sdtui.server.store import is_recorded
from tests.server.harness import status

WEIGHTS = Path(__file__).parents[2] / "sdtui" / "weights" / "model_index.json"
DEADLINE_S = 150.0
"""torch and diffusers are imported once; on a busy machine that takes most of this."""

pytestmark = pytest.mark.skipif(not WEIGHTS.exists(), reason="the model that ships is not there")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    connected = await Client.connect(name="test", previews=True)
    yield connected
    await connected.close()
    await stop_server()


async def events_until(client: Client, enough: Callable[[Message], bool]) -> list[Message]:
    got: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        async for message in client.events():
            got.append(message)
            if enough(message):
                return got
    raise AssertionError("the server went away")


def size_of(path: str) -> int:
    return Path(path).stat().st_size


def pixels_of(path: str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def submit(name: str, steps: int, output_dir: Path) -> Submit:
    params = GenerationParams(prompt="a red cat in the desert", num_inference_steps=steps, seed=7)
    return Submit(job=name, params=params, output_dir=str(output_dir))


async def test_a_prompt_becomes_a_picture_and_a_killed_worker_costs_nothing(client: Client, home: Path) -> None:
    await client.send(submit("one", 3, home / "pictures"))
    told = await events_until(client, lambda message: isinstance(message, JOB_ENDS))
    assert isinstance(told[-1], JobFinished), told[-1]
    (saved,) = [message for message in told if isinstance(message, ImageSaved)]
    assert size_of(saved.path) == saved.size_bytes
    assert [message.step_index for message in told if isinstance(message, StepFinished)] == [0, 1, 2]
    assert [message for message in told if isinstance(message, PreviewReady)]
    await client.send(Replay(job="one"))
    again = await events_until(client, lambda message: isinstance(message, ReplayDone))
    assert [message for message in again if is_recorded(message)] == [message for message in told if is_recorded(message)]

    await client.send(submit("two", 1000, home / "pictures"))
    await events_until(client, lambda message: isinstance(message, StepFinished))
    await client.send(Cancel(job="two"))
    assert isinstance((await events_until(client, lambda message: isinstance(message, JOB_ENDS)))[-1], JobCancelled)

    await client.send(submit("three", 60, home / "pictures"))
    await events_until(client, lambda message: isinstance(message, StepFinished) and message.step_index == 20)
    worker = (await status(client)).worker_pid
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    told = await events_until(client, lambda message: isinstance(message, JOB_ENDS))
    assert isinstance(told[-1], JobFinished), told[-1]
    (cut,) = [message for message in told if isinstance(message, JobInterrupted)]
    assert "SIGKILL" in cut.reason
    (resumed,) = [message for message in told if isinstance(message, JobResumed)]
    assert resumed.steps_done > 20
    assert [message.pid for message in told if isinstance(message, WorkerReady)] != [worker]
    assert server_running() == client.welcome.pid

    await client.send(submit("four", 60, home / "pictures"))
    undisturbed = (await events_until(client, lambda message: isinstance(message, JOB_ENDS)))[-1]
    assert isinstance(undisturbed, JobFinished)
    assert pixels_of(undisturbed.images[0]) == pixels_of(told[-1].images[0]), "not a bit differs"


async def test_steps_of_a_job_are_decoded_and_a_branch_of_it_goes_its_own_way_or_the_same(client: Client, home: Path) -> None:
    async def end_of(command: Submit) -> JobFinished:
        await client.send(command)
        end = (await events_until(client, lambda message: isinstance(message, JOB_ENDS)))[-1]
        assert isinstance(end, JobFinished), end
        return end

    async def decoded(step_index: int, **place: int) -> Message:
        await client.send(DecodeStep(job="one", step_index=step_index, **place))
        return (await events_until(client, lambda message: isinstance(message, StepDecoded | StepNotDecoded)))[-1]

    one = await end_of(submit("one", 6, home / "pictures"))
    last = await decoded(5)
    assert isinstance(last, StepDecoded) and pixels_of(last.path) == pixels_of(one.images[0]), "the last step is the picture"
    first, again = await decoded(0), await decoded(0)
    assert isinstance(first, StepDecoded) and isinstance(again, StepDecoded)
    assert first.path == again.path and first.elapsed_s > 0 == again.elapsed_s, "it is not made twice"
    missing = await decoded(0, picture=7)
    assert isinstance(missing, StepNotDecoded) and "no picture 7" in missing.message

    await client.send(submit("running", 1000, home / "pictures"))
    await events_until(client, lambda message: isinstance(message, StepFinished) and message.job == "running")
    assert isinstance(await decoded(2), StepDecoded), "also between two steps of another job"
    await client.send(Cancel(job="running"))
    await events_until(client, lambda message: isinstance(message, JobCancelled))

    await client.send(GetJob(job="one"))
    (changed,) = [message for message in await events_until(client, lambda message: isinstance(message, JobChanged))
                  if isinstance(message, JobChanged)]  # fmt: skip
    same = msgspec.structs.replace(submit("same", 6, home / "pictures"), params=changed.row.params)
    branched = await end_of(msgspec.structs.replace(same, branch=BranchPoint(job="one", step=4)))
    assert pixels_of(branched.images[0]) == pixels_of(one.images[0]), "not a bit differs"
    other = msgspec.structs.replace(changed.row.params, prompt="a blue tree at night")
    branched = await end_of(msgspec.structs.replace(same, job="other", params=other, branch=BranchPoint(job="one", step=2)))
    assert pixels_of(branched.images[0]) != pixels_of(one.images[0])
