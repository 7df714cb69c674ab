"""A client in memory: plays a whole job with synthetic previews, behind the interface of `sdtui.server.client.Client`."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sdtui.protocol import (
    Cancel,
    Heartbeat,
    ImageSaved,
    JobCancelled,
    JobFinished,
    JobQueued,
    JobRow,
    JobStarted,
    Message,
    ModelInfo,
    PreviewReady,
    PromptTokens,
    QueueChanged,
    Replay,
    ReplayDone,
    SchedulerChoice,
    StageFinished,
    StageStarted,
    StepFinished,
    Submit,
    TensorFact,
    Welcome,
    WorkerReady,
)

WEIGHTS = Path(__file__).resolve().parents[2] / "sdtui" / "weights"
MODEL = ModelInfo(
    model="scenes-128",
    path=str(WEIGHTS),
    pipeline_class="StableDiffusionPipeline",
    device="cpu",
    dtype="float32",
    default_width_px=128,
    default_height_px=128,
    size_multiple_px=8,
    latent_channels=4,
    prediction_type="v_prediction",
    max_tokens=77,
    tokenizer_dir=str(WEIGHTS / "tokenizer"),
    default_scheduler="ddim",
    schedulers=(
        SchedulerChoice("ddim", "DDIM", "DDIMScheduler"),
        SchedulerChoice("dpmpp_2m", "DPM++ 2M", "DPMSolverMultistepScheduler", ("default", "karras", "exponential", "beta")),
        SchedulerChoice("euler", "Euler", "EulerDiscreteScheduler", ("default", "karras")),
        SchedulerChoice("dpmpp_sde", "DPM++ SDE", "DPMSolverSDEScheduler", missing="torchsde"),
    ),
    parameters={"unet": 4_400_000, "vae": 820_000, "text_encoder": 250_000},
)


@functools.lru_cache(maxsize=256)
def picture(width_px: int, height_px: int, sharpness: float) -> bytes:
    """A sun over a hill that comes out of grey; `sharpness` from 0 to 1."""
    u, v = np.meshgrid(np.linspace(0, 1, width_px), np.linspace(0, 1, height_px))
    sun = np.exp(-((u - 0.7) ** 2 + (v - 0.28) ** 2) * 60)
    hill = v > 0.66 + 0.1 * np.sin(u * 6)
    sky = np.stack([80 + 150 * sun + 40 * v, 130 + 90 * sun, 200 - 120 * sun - 50 * v])
    ground = np.stack([60 + 0 * v, 120 - 60 * v, 60 + 0 * v])
    grain = 110 + 40 * np.sin(np.arange(width_px * height_px) * 78.233).reshape(height_px, width_px)
    scene = np.where(hill, ground, sky)
    return (grain + (scene - grain) * sharpness).clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0).tobytes()


def fact(name: str, *shape: int, **more: Any) -> TensorFact:
    """A tensor's fact in float32."""
    return TensorFact(name, shape, "float32", **more)


def step_event(job: str, index: int, total: int, batch: int = 0) -> StepFinished:
    """A step with plausible figures."""
    left = 1 - index / total
    return StepFinished(
        job=job,
        batch_index=batch,
        step_index=index,
        total_steps=total,
        timestep=999 * left,
        sigma=14.61 * left**3,
        latents=fact("latents", 1, 4, 16, 16, mean=0.01, std=1 + 13 * left**3),
        noise_pred=fact("noise_pred", 1, 4, 16, 16, mean=0.0, std=0.98),
        denoised=fact("denoised", 1, 4, 16, 16, mean=0.02 * index, std=0.61 + 0.01 * index),
        guidance_norm=0.31 * left,
        elapsed_s=0.048,
        preview_s=0.001,
        memory_bytes=1_181_116_006,
    )


def preview_event(job: str, index: int, total: int, size_px: int = 64) -> PreviewReady:
    """A preview of the scene."""
    rgb = picture(size_px, size_px, (index + 1) / total)
    return PreviewReady(
        job=job, batch_index=0, step_index=index, width_px=size_px, height_px=size_px, rgb=rgb, method="vae", elapsed_s=0.001
    )


def opening(command: Submit, seed: int) -> list[Message]:
    """The events of a job before its first step."""
    job, params = command.job, command.params
    words = tuple(f"{word}</w>" for word in params.prompt.split())
    tokens = {
        "ids": tuple(range(len(words) + 2)),
        "words": ("<|startoftext|>", *words, "<|endoftext|>"),
        "cut_off": "",
        "max_tokens": 77,
        "elapsed_s": 0.0004,
    }
    return [
        JobQueued(job=job, params=params, position=0),
        JobStarted(job=job, seed=seed, params=params, total_images=params.batch_count),
        StageStarted(job=job, stage="tokens"),
        PromptTokens(job=job, which="prompt", **tokens),
        StageFinished(job=job, stage="tokens", elapsed_s=0.0004),
        StageStarted(job=job, stage="embeddings"),
        StageFinished(
            job=job,
            stage="embeddings",
            elapsed_s=0.0061,
            tensors=(
                fact("prompt_embeds", 1, 77, 128, mean=0.0, std=1.0),
                fact("negative_prompt_embeds", 1, 77, 128, mean=0.0, std=1.0),
                fact("prompt_embeds (uncond, text)", 2, 77, 128),
            ),
        ),
        StageStarted(job=job, stage="latents"),
        StageFinished(
            job=job,
            stage="latents",
            elapsed_s=0.0002,
            tensors=(fact("latents", 1, 4, 16, 16, mean=0.0, std=14.6, note="x init_noise_sigma 14.61"),),
            detail="20 timesteps",
        ),
        StageStarted(job=job, stage="denoise"),
    ]


class ScriptedClient:
    """Answers `Submit` with a job of `steps` steps; `log` keeps what was sent."""

    def __init__(self, *, step_s: float = 0.0, jobs: tuple[JobRow, ...] = (), worker: str = "ready", hold: bool = False) -> None:
        self.welcome = Welcome(protocol=1, version="0.1.0", pid=1, worker=worker, model=MODEL, jobs=jobs)
        self.log: list[Message] = []
        self.recorded: dict[str, list[Message]] = {}
        self.step_s = step_s
        self.hold = hold
        """With `hold`, a job stays in its first step until `go` is set or it is cancelled."""
        self.go = asyncio.Event()
        self.closed = False
        self._out: asyncio.Queue[Message | None] = asyncio.Queue()
        self._jobs: dict[str, asyncio.Task[None]] = {}

    async def connect(self, *, name: str, subscribe: bool = True, previews: bool = False) -> ScriptedClient:
        """As `Client.connect`."""
        self.closed = False
        return self

    def emit(self, *events: Message) -> None:
        """Send events to the UI."""
        for event in events:
            self._out.put_nowait(event)

    def drop(self) -> None:
        """The server goes."""
        self._out.put_nowait(None)

    async def send(self, command: Message) -> None:
        """Take a command."""
        self.log.append(command)
        if isinstance(command, Submit):
            self._jobs[command.job] = asyncio.create_task(self._play(command))
        elif isinstance(command, Cancel) and command.job in self._jobs:
            self._jobs[command.job].cancel()
            self.emit(JobCancelled(job=command.job, latency_s=0.01), QueueChanged(queued=0, running=None))
        elif isinstance(command, Replay):
            self.emit(*self.recorded.get(command.job, ()), ReplayDone(job=command.job))

    async def events(self) -> AsyncIterator[Message]:
        """What the server sends."""
        while (event := await self._out.get()) is not None:
            yield event

    async def close(self) -> None:
        """Close."""
        self.closed = True
        for job in self._jobs.values():
            job.cancel()

    def sent(self, kind: type[Message]) -> list[Any]:
        """The commands of a kind that were sent."""
        return [command for command in self.log if isinstance(command, kind)]

    async def _play(self, command: Submit) -> None:
        started = time.monotonic()
        seed = command.params.seed if command.params.seed is not None else 1234
        total = command.params.num_inference_steps
        self.emit(QueueChanged(queued=0, running=command.job), Heartbeat(rss_bytes=1_181_116_006))
        self.emit(*opening(command, seed))
        for index in range(total):
            await asyncio.sleep(self.step_s)
            self.emit(step_event(command.job, index, total), preview_event(command.job, index, total, command.preview.max_px))
            if self.hold:
                await self.go.wait()
        path = await asyncio.to_thread(_save, Path(command.output_dir), seed, command.job)
        self.emit(*closing(command.job, path, seed, time.monotonic() - started), QueueChanged(queued=0, running=None))


def closing(job: str, path: Path, seed: int, elapsed_s: float) -> Iterable[Message]:
    """The events of a job after its last step."""
    yield StageFinished(job=job, stage="denoise", elapsed_s=0.96, detail="20 steps")
    yield StageFinished(job=job, stage="decode", elapsed_s=0.018, tensors=(fact("image", 1, 3, 128, 128),))
    size = path.stat().st_size
    yield ImageSaved(
        job=job, path=str(path), seed=seed, image_index=0, width_px=128, height_px=128, size_bytes=size, elapsed_s=0.004
    )
    yield JobFinished(job=job, elapsed_s=elapsed_s, images=(str(path),), peak_memory_bytes=1_300_000_000)


def _save(directory: Path, seed: int, job: str) -> Path:
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{seed}-{job}.png"
    Image.frombytes("RGB", (128, 128), picture(128, 128, 1.0)).save(path)
    return path


READY = WorkerReady(
    pid=2, torch="2.13.0", diffusers="0.42.1", transformers="5.23.0", device="cpu", device_name="CPU", dtype="float32", why=""
)
