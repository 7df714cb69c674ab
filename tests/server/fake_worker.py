"""A small worker that speaks the protocol: no torch, and it misbehaves when the prompt tells it to.

Prompts: `wait` goes on until it is cancelled, `deaf` until it is killed, `die` kills itself, `garbage` sends nonsense,
`steps N` sends N steps, `big N` sends N previews of 64 kB; any other makes three steps. The environment's
`FAKE_WORKER_START` may be `die` (never gets ready) or `hold` (not ready until it gets SIGUSR1).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from sdtui.params import GenerationParams
from sdtui.protocol import (
    Cancel,
    Heartbeat,
    ImageSaved,
    JobCancelled,
    JobFinished,
    JobStarted,
    LoadModel,
    Message,
    ModelInfo,
    ModelLoaded,
    PreviewReady,
    StepFinished,
    Submit,
    TensorFact,
    WorkerReady,
    WorkerStage,
    encode,
    read_message,
)

FACT = TensorFact("latents", (1, 4, 16, 16), "float32", 0.0, 1.0)


def model_info(name: str) -> ModelInfo:
    return ModelInfo(
        model=name,
        path=f"/models/{name}",
        pipeline_class="StableDiffusionPipeline",
        device="cpu",
        dtype="float32",
        default_width_px=128,
        default_height_px=128,
        size_multiple_px=8,
        latent_channels=4,
        prediction_type="epsilon",
        max_tokens=77,
        tokenizer_dir=None,
        default_scheduler="ddim",
        schedulers=(),
        parameters={"unet": 1000},
    )


def step(job: str, index: int, total: int) -> StepFinished:
    return StepFinished(
        job=job,
        batch_index=0,
        step_index=index,
        total_steps=total,
        timestep=999.0 - index,
        sigma=1.0,
        latents=FACT,
        noise_pred=FACT,
        denoised=FACT,
        guidance_norm=0.1,
        elapsed_s=0.001,
        preview_s=0.0,
        memory_bytes=1,
    )


def preview(job: str, index: int, size: int = 8) -> PreviewReady:
    return PreviewReady(
        job=job,
        batch_index=0,
        step_index=index,
        width_px=size,
        height_px=size,
        rgb=bytes(size * size * 3),
        method="linear",
        elapsed_s=0.0,
    )


class FakeWorker:
    def __init__(self) -> None:
        self.cancelled: dict[str, asyncio.Event] = {}
        self.submits: asyncio.Queue[Submit] = asyncio.Queue()

    def say(self, message: Message) -> None:
        os.write(1, encode(message))

    async def run(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self.say(WorkerStage(stage="handshake", state="started"))
        sys.stderr.write("fake worker starts\n")
        await self.begin()
        self.say(WorkerStage(stage="handshake", state="finished", elapsed_s=0.01))
        versions: dict[str, Any] = {"torch": "2.0", "diffusers": "0.42", "transformers": "5.0"}
        self.say(WorkerReady(pid=os.getpid(), device="cpu", device_name="a CPU", dtype="float32", why="no GPU", **versions))
        jobs = asyncio.create_task(self.work())
        beats = asyncio.create_task(self.beat())
        while (command := await read_message(reader)) is not None:
            match command:
                case LoadModel(model=model):
                    self.say(ModelLoaded(info=model_info(model), elapsed_s=0.1))
                case Submit(job=job):
                    self.cancelled[job] = asyncio.Event()
                    self.submits.put_nowait(command)
                case Cancel(job=job):
                    self.cancelled[job].set()
        jobs.cancel()
        beats.cancel()

    async def begin(self) -> None:
        how = os.environ.get("FAKE_WORKER_START", "")
        if how == "die":
            sys.stderr.write("ImportError: no torch here \x1b[31mred\n")
            sys.exit(9)
        if how == "hold":
            go_on = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go_on.set)
            self.say(WorkerStage(stage="torch", state="started"))
            await go_on.wait()
            self.say(WorkerStage(stage="torch", state="finished"))

    async def beat(self) -> None:
        while os.environ.get("FAKE_WORKER_HEART") != "none":
            self.say(Heartbeat(rss_bytes=1000))
            await asyncio.sleep(0.1)

    async def work(self) -> None:
        while True:
            submit = await self.submits.get()
            await self.generate(submit)

    async def generate(self, submit: Submit) -> None:
        job, words = submit.job, submit.params.prompt.split()
        resolved = GenerationParams(prompt=submit.params.prompt, seed=7, width=128, height=128)
        self.say(JobStarted(job=job, seed=7, params=resolved, total_images=1))
        self.say(preview(job, 0))
        match words:
            case ["wait", *_]:
                await self.cancelled[job].wait()
                self.say(JobCancelled(job=job, latency_s=0.001))
                return
            case ["deaf", *_]:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                await asyncio.Event().wait()
            case ["die", *_]:
                sys.stderr.write("CUDA error: an illegal memory access\n")
                os.kill(os.getpid(), signal.SIGKILL)
            case ["garbage", *_]:
                os.write(1, b"Downloading 100%\n")
            case ["big", count]:
                for index in range(int(count)):
                    self.say(preview(job, index, 146))
        total = int(words[1]) if words[0] == "steps" else 3
        for index in range(total):
            self.say(step(job, index, total))
            await asyncio.sleep(0)
        path = f"{submit.output_dir}/{job}.png"
        self.say(
            ImageSaved(job=job, path=path, seed=7, image_index=0, width_px=128, height_px=128, size_bytes=100, elapsed_s=0.001)
        )
        self.say(JobFinished(job=job, elapsed_s=0.1, images=(path,)))


if __name__ == "__main__":
    asyncio.run(FakeWorker().run())
