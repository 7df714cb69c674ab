"""What inspect mode tells is much: it is not kept, and a client that is slow to read it stays."""

from __future__ import annotations

import asyncio

from sdtui.protocol import (
    Hello,
    JobFinished,
    ModuleRun,
    ModulesRan,
    NotANumber,
    StepFinished,
    encode,
    read_message,
)
from sdtui.server.store import is_recorded
from tests.server.harness import Served, events_until, job, record_of, serving, until
from tests.server.test_clients import raw

MANY = 100
"""Steps of 700 modules: more than an outbox holds."""


def ran(step_index: int) -> ModulesRan:
    modules = tuple(
        ModuleRun(
            path=f"up_blocks.{index}.attentions.0.transformer_blocks.0.attn2.to_out.0", class_name="Linear", shape=(2, 4096, 320),
            dtype="float16", mean=0.1, std=1.1, absmax=7.3, elapsed_s=0.01, output_bytes=5_242_880,
        )
        for index in range(700)
    )  # fmt: skip
    return ModulesRan(job="one", batch_index=0, step_index=step_index, network="unet", modules=modules, probing_s=0.001)


async def publish(served: Served) -> None:
    """Tell everybody of many steps, each as soon as a client that reads has got the one before."""
    by_name = {connection.hello.client: connection for connection in served.server.connections if connection.hello}
    sleeper, good = by_name["sleeper"], by_name["good"]
    limit = good.outbox.max_bytes
    events = [ran(index) for index in range(MANY)]
    assert sum(len(encode(event)) for event in events) > limit
    for event in events:
        await until(lambda: good.outbox.has_room)
        served.server.publish(event)
    assert sleeper.outbox.has_room is False, "it has not read"


async def test_a_client_that_does_not_read_misses_runs_of_modules_and_stays_and_others_get_all_of_them() -> None:
    async with serving() as served:
        reader, writer = await raw()
        writer.write(encode(Hello(client="sleeper")))
        await read_message(reader)
        reader._transport.pause_reading()  # asyncio would read ahead for it
        good = await served.client("good")
        await good.send(job("one", "steps 3"))
        await events_until(good, lambda message: isinstance(message, StepFinished))
        publishing = asyncio.create_task(publish(served))
        got = await events_until(good, lambda message: isinstance(message, ModulesRan) and message.step_index == MANY - 1)
        await publishing
        await good.send(job("two", "steps 3"))
        got += await events_until(good, lambda message: isinstance(message, JobFinished) and message.job == "two")
        assert [message.step_index for message in got if isinstance(message, ModulesRan)] == list(range(MANY))
        assert len(served.server.connections) == 2
        reader._transport.resume_reading()
        behind = []
        while not (isinstance(message := await read_message(reader), JobFinished) and message.job == "two"):
            behind.append(message)
        assert 0 < len([message for message in behind if isinstance(message, ModulesRan)]) < MANY
        assert len([message for message in behind if isinstance(message, StepFinished)]) == 6, "nothing else is left out"
        assert not [message for message in await record_of(good, "one") if isinstance(message, ModulesRan)]
        writer.close()


def test_the_fault_that_was_found_is_recorded_and_the_runs_of_modules_are_not() -> None:
    fault = NotANumber(job="one", batch_index=0, step_index=1, network="unet", module="conv_in", fault="nan")
    assert is_recorded(fault) and not is_recorded(ran(0))
