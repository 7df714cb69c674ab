"""All three processes as users have them: client, server, and the worker with torch and the model that ships."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from PIL import Image

from sdtui.params import GenerationParams
from sdtui.protocol import (
    JOB_ENDS,
    Cancel,
    ImageSaved,
    JobCancelled,
    JobFinished,
    JobInterrupted,
    JobResumed,
    Message,
    PreviewReady,
    Replay,
    ReplayDone,
    StepFinished,
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
