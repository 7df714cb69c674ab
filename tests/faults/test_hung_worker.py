"""A worker that is stopped is alive to the kernel and dead to us; the limit is shortened here, as half a minute is long."""

from __future__ import annotations

import os
import signal

import pytest

from sdtui.protocol import JobFinished, JobInterrupted, JobResumed, StageStarted, StepFinished, WorkerReady
from sdtui.server.limits import Limits
from sdtui.settings import Server, Settings
from tests.faults.house import KINDS, LONG, House, Nest, gone, pixels_of
from tests.server import harness
from tests.server.harness import events_until, serving

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("faults-worker")]
HASTY = Limits(hung_s=4.0, hung_while_loading_s=60.0, terminate_s=0.5)
"""The heart beats once a second."""


@pytest.mark.parametrize(
    "at",
    [
        lambda message: isinstance(message, StepFinished) and message.step_index == 1,
        *([lambda message: isinstance(message, StageStarted) and message.stage == "decode"] if LONG else []),
        *([lambda message: isinstance(message, StageStarted) and message.stage == "tokens"] if LONG else []),
    ],
    ids=["step", "decode", "tokens"][: 3 if LONG else 1],
)
async def test_a_worker_that_is_stopped_is_replaced_and_its_job_goes_on_bit_for_bit(
    house: House, nest: Nest, monkeypatch: pytest.MonkeyPatch, at: object
) -> None:
    monkeypatch.setattr(harness, "DEADLINE_S", 120.0)
    configured = Settings(server=Server(max_attempts=100))
    kind = KINDS["euler_a, a batch of two"] | {"num_inference_steps": 40}
    async with serving(limits=HASTY, configured=configured, command=nest.command) as served:
        client = await served.client()
        ready = (await events_until(client, lambda message: isinstance(message, WorkerReady)))[-1]
        assert isinstance(ready, WorkerReady)
        await client.send(house.job("hung", **kind))
        await events_until(client, at)  # type: ignore[arg-type]
        os.kill(ready.pid, signal.SIGSTOP)
        told = await events_until(client, lambda message: isinstance(message, JobFinished))
        (cut,) = [message for message in told if isinstance(message, JobInterrupted)]
        assert "no sign of life" in cut.reason
        assert [message for message in told if isinstance(message, JobResumed)]
        await gone(ready.pid)
        await client.send(house.job("undisturbed", **kind))
        await events_until(client, lambda message: isinstance(message, JobFinished))
    hung, undisturbed = house.files_of("hung"), house.files_of("undisturbed")
    assert len(hung) == len(undisturbed) == 2
    assert [pixels_of(path) for path in hung] == [pixels_of(path) for path in undisturbed]
