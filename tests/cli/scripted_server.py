"""A server that says what a test wants it to, on the real socket, so that rare ends of a job can be had at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sdtui.params import GenerationParams
from sdtui.protocol import (
    PROTOCOL_VERSION,
    JobRow,
    JobStarted,
    JobState,
    Message,
    StepFinished,
    Submit,
    TensorFact,
    Welcome,
    encode,
    read_message,
)

Script = Callable[[Message], Sequence[Message | None] | None]
"""What to answer to a command; None, or a None among the answers, closes the connection."""
IDLE = Welcome(protocol=PROTOCOL_VERSION, version="0", pid=1, worker="ready", model=None, jobs=())
FACT = TensorFact("latents", (1, 4, 16, 16), "float32", 0.0, 1.0)


@contextmanager
def scripted_server(socket: Path, script: Script, welcome: Welcome = IDLE) -> Iterator[list[Message]]:
    """Serve in a thread while the block runs; yields the commands that came, over whichever connection."""
    commands: list[Message] = []
    ready = threading.Event()
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(encode(welcome))
        while (command := await read_message(reader)) is not None:
            commands.append(command)
            replies = script(command)
            answers = [None] if replies is None else replies
            for message in answers:
                if message is not None:
                    writer.write(encode(message))
            await writer.drain()
            if None in answers:
                break
        writer.close()

    async def serve() -> None:
        socket.parent.mkdir(mode=0o700, exist_ok=True)
        server = await asyncio.start_unix_server(answer, socket)
        ready.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield commands
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def row(job: str, state: JobState = "queued", *, prompt: str = "a cat", **more: object) -> JobRow:
    """A job as lists show it."""
    made = JobRow(job=job, state=state, params=GenerationParams(prompt=prompt), created_at=1.7e9)
    return msgspec.structs.replace(made, **more)


def started(job: str, steps: int = 20) -> JobStarted:
    """The worker has begun."""
    params = GenerationParams(prompt="a cat", seed=7, width=128, height=128, num_inference_steps=steps)
    return JobStarted(job=job, seed=7, params=params, total_images=1)


def step(
    job: str, index: int, total: int = 20, *, batch: int = 0, elapsed_s: float = 0.05, replayed: bool = False
) -> StepFinished:
    """One step."""
    return StepFinished(
        job=job,
        batch_index=batch,
        step_index=index,
        total_steps=total,
        timestep=951.0,
        sigma=11.93,
        latents=FACT,
        noise_pred=FACT,
        denoised=FACT,
        guidance_norm=0.1,
        elapsed_s=elapsed_s,
        preview_s=0.0,
        memory_bytes=1,
        replayed=replayed,
    )


def submitted(commands: Sequence[Message]) -> GenerationParams:
    """The parameters of the one job that came."""
    (submit,) = (command for command in commands if isinstance(command, Submit))
    return submit.params
