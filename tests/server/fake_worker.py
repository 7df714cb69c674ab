"""A small worker that speaks the protocol: no torch, and it misbehaves when the prompt tells it to.

Prompts: `wait` goes on until it is cancelled or paused, `deaf` until it is killed, `die N` kills itself in its second
step under the first N workers (without N under each), `spoilt` kills it before it begins, `garbage` sends nonsense,
`steps N` makes N steps, `slow N` as many with a pause between, `big N` sends N previews of 64 kB, `full` finds the disk
full until the file `room` is in its output directory; any other makes three steps. Asked for the picture of a step it writes
a file, and says as `elapsed_s` how often it was asked for it; step 404 it has not, step 500 kills it, and what is 1000 or more
is answered after the next one that is not. The environment's
`FAKE_WORKER_START` may be `die` (never gets ready) or `hold` (not ready until it gets SIGUSR1). A job's steps are kept
as the bytes of a file, and its picture in a list, so that it can go on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from sdtui.protocol import (
    Cancel,
    DecodeStep,
    Heartbeat,
    ImageSaved,
    JobCancelled,
    JobFinished,
    JobPaused,
    JobResumed,
    JobStarted,
    LoadModel,
    Message,
    ModelInfo,
    ModelLoaded,
    Pause,
    PreviewReady,
    StepDecoded,
    StepFinished,
    StepNotDecoded,
    StorageFreed,
    StorageFull,
    Submit,
    TensorFact,
    WorkerReady,
    WorkerStage,
    encode,
    read_message,
)
from sdtui.settings import tapes_dir

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


def step(job: str, index: int, total: int, *, replayed: bool = False) -> StepFinished:
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
        replayed=replayed,
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


def make_picture(path: Path, ledger: Path) -> None:
    """Write the file once; a second time would show in its length."""
    if not ledger.exists() and path.parent.is_dir():
        with path.open("ab") as file:
            file.write(b"picture")
    ledger.touch()


class FakeWorker:
    def __init__(self) -> None:
        self.asked: dict[str, asyncio.Event] = {}
        self.how: dict[str, Cancel | Pause] = {}
        self.submits: asyncio.Queue[Submit] = asyncio.Queue()
        self.decoded: Counter[DecodeStep] = Counter()
        self.later: list[DecodeStep] = []

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
                    self.asked[job] = asyncio.Event()
                    self.how.pop(job, None)
                    self.submits.put_nowait(command)
                case Cancel(job=job) | Pause(job=job):
                    self.how[job] = command
                    self.asked[job].set()
                case DecodeStep():
                    self.take(command)
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

    def take(self, command: DecodeStep) -> None:
        """Decode a step, or keep it for later."""
        self.decoded[command] += 1
        if command.step_index == 500:
            os.kill(os.getpid(), signal.SIGKILL)
        if command.step_index >= 1000:
            self.later.append(command)
            return
        for one in (command, *self.later):
            self.decode(one)
        self.later.clear()

    def decode(self, command: DecodeStep) -> None:
        job, batch, index, picture = command.job, command.batch_index, command.step_index, command.picture
        place: dict[str, Any] = {"job": job, "batch_index": batch, "step_index": index, "picture": picture}
        if index == 404:
            self.say(StepNotDecoded(**place, message="Step 404 is not recorded."))
            return
        path = tapes_dir() / job / "decoded" / f"batch-{batch:04d}-{picture:03d}-{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")
        self.say(StepDecoded(**place, path=str(path), elapsed_s=float(self.decoded[command])))

    async def work(self) -> None:
        while True:
            submit = await self.submits.get()
            await self.generate(submit)

    async def generate(self, submit: Submit) -> None:
        job, words, point = submit.job, submit.params.prompt.split(), submit.resume
        resolved = msgspec.structs.replace(submit.params, seed=7, width=128, height=128)
        if words[0] == "spoilt":
            os.kill(os.getpid(), signal.SIGSEGV)
        tape = tapes_dir() / job / "batch-0000.tape"
        tape.parent.mkdir(parents=True, exist_ok=True)
        done = len(tape.read_bytes()) if tape.exists() else 0
        self.say(JobStarted(job=job, seed=7, params=resolved, total_images=1))
        if point is not None:
            self.say(JobResumed(job=job, batch_index=0, steps_done=done, images_done=int((tape.parent / "saved").exists())))
        self.say(preview(job, 0))
        total = int(words[1]) if words[0] in ("steps", "slow") else 3
        for index in range(done if point is None else point.steps_done, done):
            self.say(step(job, index, total, replayed=True))
        match words:
            case ["wait", *_]:
                await self.asked[job].wait()
            case ["deaf", *_]:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                await asyncio.Event().wait()
            case ["garbage", *_]:
                os.write(1, b"Downloading 100%\n")
            case ["big", count]:
                for index in range(int(count)):
                    self.say(preview(job, index, 146))
        if not await self.steps(submit, tape, done, total):
            return
        path = await self.save(submit, tape.parent / "saved")
        self.say(JobFinished(job=job, elapsed_s=0.1, images=(path,)))

    async def steps(self, submit: Submit, tape: Path, done: int, total: int) -> bool:
        """Make the steps that are missing; False when the job was stopped between two of them."""
        job, words = submit.job, submit.params.prompt.split()
        attempt = 0 if submit.resume is None else submit.resume.attempt
        for index in range(done, total + 1):
            if self.asked[job].is_set() and self.stop(job, index):
                return False
            if index == total:
                break
            if words[0] == "die" and index == 1 and attempt < int((*words, "1000")[1]):
                sys.stderr.write("CUDA error: an illegal memory access\n")
                os.kill(os.getpid(), signal.SIGKILL)
            with tape.open("ab") as file:
                file.write(b".")
            self.say(step(job, index, total))
            await asyncio.sleep(0.002 if words[0] == "slow" else 0)
        return True

    def stop(self, job: str, done: int) -> bool:
        """Do as was asked at the end of a step; whether that ends the job."""
        how = self.how[job]
        if isinstance(how, Pause):
            self.say(JobPaused(job=job, steps_done=done, latency_s=0.001))
        elif how.when == "after_image":
            return False
        else:
            self.say(JobCancelled(job=job, latency_s=0.001, kept_steps=done if how.when == "after_step" else 0))
        return True

    async def save(self, submit: Submit, ledger: Path) -> str:
        """Make the picture's file, once, whatever happened before."""
        job, folder = submit.job, Path(submit.output_dir)
        path = f"{folder}/{job}.png"
        if submit.params.prompt == "full" and not (folder / "room").exists():
            self.say(StorageFull(job=job, path=path, message=f"There is no room for {path}.", needed_bytes=100))
            while not (folder / "room").exists():  # noqa: ASYNC110  # a file has no event
                await asyncio.sleep(0.01)
            self.say(StorageFreed(job=job, path=path, waited_s=0.1))
        make_picture(folder / f"{job}.png", ledger)
        self.say(
            ImageSaved(job=job, path=path, seed=7, image_index=0, width_px=128, height_px=128, size_bytes=100, elapsed_s=0.001)
        )
        return path


if __name__ == "__main__":
    asyncio.run(FakeWorker().run())
