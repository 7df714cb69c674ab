"""The stages of one batch: tokens, embeddings, latents, denoise, decode, save; each reported with what came out of it."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import diffusers
import msgspec
import torch
from PIL import Image

from sdtui import __version__
from sdtui.metadata import ImageRecord, save_png
from sdtui.params import GenerationParams
from sdtui.protocol import ImageSaved, Message, PromptTokens, StageFinished, StageStarted, Submit, TensorFact
from sdtui.text import safe_text
from sdtui.worker.cancellation import raise_if
from sdtui.worker.conditioning import Embeddings, encode, tokenize
from sdtui.worker.decoding import decode_latents, to_images
from sdtui.worker.errors import JobProblem
from sdtui.worker.models import LoadedModel
from sdtui.worker.previews import Previewer
from sdtui.worker.steps import StepLog, tensor_fact
from sdtui.worker.watch import watched

Emit = Callable[[Message], None]


class Progress(Protocol):
    """What a job keeps over its batches."""

    began: float
    paths: list[str]
    largest_bytes: int


@dataclass(frozen=True)
class Batch:
    """Pictures that are made at the same time."""

    index: int
    seeds: list[int]
    params: GenerationParams
    """Resolved: nothing is None any more but what the hub decides."""
    safety: dict[str, Any] | None
    began: float


class StageClock:
    """Emits `StageStarted` and `StageFinished` of one batch, with the time between them."""

    def __init__(self, job: str, batch_index: int, emit: Emit) -> None:
        self._job, self._batch_index, self._emit = job, batch_index, emit
        self._began: dict[str, float] = {}

    def start(self, stage: str) -> None:
        """A stage begins."""
        self._emit(StageStarted(job=self._job, stage=stage, batch_index=self._batch_index))
        self._began[stage] = time.perf_counter()

    def finish(self, stage: str, tensors: tuple[TensorFact, ...] = (), detail: str = "") -> float:
        """A stage ended; returns its seconds. A stage that is not running is not reported."""
        began = self._began.pop(stage, None)
        if began is None:
            return 0.0
        elapsed_s = time.perf_counter() - began
        self._emit(
            StageFinished(
                job=self._job, stage=stage, elapsed_s=elapsed_s, tensors=tensors, detail=detail, batch_index=self._batch_index
            )
        )
        return elapsed_s


def run_batch(
    model: LoadedModel, submit: Submit, batch: Batch, state: Progress, *, emit: Emit, cancelled: Callable[[], bool]
) -> None:
    """Make and save the pictures of one batch. Raises `JobProblem`, `Cancelled`, `OutputError` or what the libraries raise."""
    clock = StageClock(submit.job, batch.index, emit)
    previewer = Previewer(model.previews, submit.preview, (batch.params.width or 0) * (batch.params.height or 0))
    log = StepLog(
        job=submit.job,
        batch_index=batch.index,
        device=model.hardware.device,
        emit=emit,
        previewer=previewer,
        cancelled=cancelled,
        unpack=_unpacker(model.pipe, batch.params),
    )
    if model.simple:
        embeddings = _embed(model, submit.job, batch, clock, emit)
        raise_if(cancelled)
        latents = _sample(model, batch, embeddings, clock, log)
        raise_if(cancelled)
        images = _decode(model, batch, latents, clock)
    else:
        images = _run_whole(model, submit.job, batch, clock, log, emit)
    raise_if(cancelled)
    state.largest_bytes = max(state.largest_bytes, log.largest_bytes)
    _save(model, submit, batch, images, state, clock, emit)


# --- SD 1.x and 2.x: every stage by itself --------------------------------------------------------------------------


def is_guided(pipe: Any, params: GenerationParams) -> bool:
    """Whether the pipeline will use classifier-free guidance, by its own rule."""
    return params.guidance_scale > 1 and pipe.unet.config.get("time_cond_proj_dim") is None


def _report_tokens(model: LoadedModel, job: str, params: GenerationParams, *, guided: bool, emit: Emit) -> str:
    counts = []
    for which in ("prompt", "negative_prompt") if guided else ("prompt",):
        began = time.perf_counter()
        found = tokenize(model.pipe, getattr(params, which))
        emit(
            PromptTokens(
                job=job,
                which=which,
                ids=found.ids,
                words=tuple(safe_text(word) for word in found.words),
                cut_off=safe_text(found.cut_off, multiline=True),
                max_tokens=found.max_tokens,
                elapsed_s=time.perf_counter() - began,
            )
        )
        counts.append(f"{which} {len(found.ids)}/{found.max_tokens}")
    return ", ".join(counts)


def _embed(model: LoadedModel, job: str, batch: Batch, clock: StageClock, emit: Emit) -> Embeddings:
    params, pipe = batch.params, model.pipe
    guided = is_guided(pipe, params)
    clock.start("tokens")
    clock.finish("tokens", detail=_report_tokens(model, job, params, guided=guided, emit=emit))
    clock.start("embeddings")
    embeddings = encode(
        pipe,
        params.prompt,
        params.negative_prompt,
        guided=guided,
        clip_skip=params.clip_skip,
        device=model.hardware.device,
    )
    facts = [tensor_fact("prompt_embeds", embeddings.prompt_embeds)]
    if embeddings.negative_prompt_embeds is not None:
        facts.append(tensor_fact("negative_prompt_embeds", embeddings.negative_prompt_embeds))
        _, count, width = embeddings.prompt_embeds.shape
        together = (2 * len(batch.seeds), count, width)
        facts.append(TensorFact("prompt_embeds (uncond, text)", together, facts[0].dtype))
    clock.finish("embeddings", tuple(facts), f"clip skip {params.clip_skip}" if params.clip_skip else "")
    return embeddings


def _sample(model: LoadedModel, batch: Batch, embeddings: Embeddings, clock: StageClock, log: StepLog) -> torch.Tensor:
    """The denoising loop, by the pipeline; returns (B, C, h, w) latents as the sampler holds them."""
    pipe = model.pipe
    arguments = _call_arguments(pipe, batch) | {
        "prompt_embeds": embeddings.prompt_embeds,
        "negative_prompt_embeds": embeddings.negative_prompt_embeds,
        "output_type": "latent",
    }
    with _latents_seen(pipe, clock, log), watched(pipe, log):
        latents: torch.Tensor = pipe(**_accepted(pipe, arguments)).images
    log.flush()
    _finish_denoise(clock, latents, pipe)
    return latents


def _decode(model: LoadedModel, batch: Batch, latents: torch.Tensor, clock: StageClock) -> list[Image.Image]:
    clock.start("decode")
    began = time.perf_counter()
    pictures, note = decode_latents(model.pipe, latents)
    if not note:
        count, _, height, width = pictures.shape
        model.previews.vae_s_per_px = (time.perf_counter() - began) / (count * height * width)
    images, flagged = to_images(model.pipe, pictures, batch.safety)
    if any(flagged):
        note = f"{note}; the safety checker blacked out {sum(flagged)} of {len(flagged)}".removeprefix("; ")
    clock.finish("decode", (tensor_fact("image", pictures, stats=True),), note)
    return images


# --- every other family: the pipeline as a whole, its stages seen from outside --------------------------------------


def _run_whole(model: LoadedModel, job: str, batch: Batch, clock: StageClock, log: StepLog, emit: Emit) -> list[Image.Image]:
    """Run a pipeline that encodes and decodes in its own way; stages are reported where its parts are called."""
    pipe, params = model.pipe, batch.params
    arguments = _call_arguments(pipe, batch) | {"prompt": params.prompt, "output_type": "pil"}
    if model.info.guides:
        arguments["negative_prompt"] = params.negative_prompt
    if params.clip_skip:
        if "clip_skip" not in inspect.signature(type(pipe).__call__).parameters:
            raise JobProblem(f"{type(pipe).__name__} has no clip skip; it must be 0.", "clip_skip")
        arguments["clip_skip"] = params.clip_skip
    if getattr(pipe, "tokenizer", None) is not None:
        clock.start("tokens")
        clock.finish("tokens", detail=_report_tokens(model, job, params, guided=model.info.guides, emit=emit))
    with ExitStack() as seen:
        seen.enter_context(_latents_seen(pipe, clock, log))
        seen.enter_context(watched(pipe, log))
        seen.enter_context(_seen(pipe, "encode_prompt", lambda: clock.start("embeddings"), _embeddings_finisher(clock)))
        if getattr(pipe, "vae", None) is not None:
            seen.enter_context(_seen(pipe.vae, "decode", lambda: _start_decode(clock, log), _decode_finisher(clock)))
        images = list(pipe(**_accepted(pipe, arguments)).images)
    log.flush()
    clock.finish("denoise")
    return images


def _embeddings_finisher(clock: StageClock) -> Callable[[Any], None]:
    def finish(result: Any) -> None:
        parts = result if isinstance(result, (tuple, list)) else (result,)
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        clock.finish("embeddings", tuple(tensor_fact(f"embeddings {index}", tensor) for index, tensor in enumerate(tensors)))

    return finish


def _start_decode(clock: StageClock, log: StepLog) -> None:
    log.flush()
    clock.finish("denoise")
    clock.start("decode")


def _decode_finisher(clock: StageClock) -> Callable[[Any], None]:
    def finish(result: Any) -> None:
        picture = result[0] if isinstance(result, (tuple, list)) else getattr(result, "sample", None)
        clock.finish("decode", (tensor_fact("image", picture, stats=True),) if isinstance(picture, torch.Tensor) else ())

    return finish


# --- shared ---------------------------------------------------------------------------------------------------------


def generators_of(seeds: list[int]) -> torch.Generator | list[torch.Generator]:
    """CPU generators, so a seed gives the same noise on every device; a single one for a single picture."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return generators[0] if len(generators) == 1 else generators


def _call_arguments(pipe: Any, batch: Batch) -> dict[str, Any]:
    params = batch.params
    return {
        "height": params.height,
        "width": params.width,
        "num_inference_steps": params.num_inference_steps,
        "guidance_scale": params.guidance_scale,
        "num_images_per_prompt": len(batch.seeds),
        "generator": generators_of(batch.seeds),
    }


def _accepted(pipe: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those arguments that this pipeline's `__call__` knows."""
    known = inspect.signature(type(pipe).__call__).parameters
    return {name: value for name, value in arguments.items() if name in known}


def _unpacker(pipe: Any, params: GenerationParams) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Flux and its kin hold latents as (B, n, C) tokens; this gives them back their rows and columns."""
    if not hasattr(pipe, "_unpack_latents"):
        return None

    def unpack(latents: torch.Tensor) -> torch.Tensor:
        if latents.ndim != 3:
            return latents
        unpacked: torch.Tensor = pipe._unpack_latents(latents, params.height, params.width, pipe.vae_scale_factor)
        return unpacked

    return unpack


@contextmanager
def _seen(owner: Any, name: str, before: Callable[[], None], after: Callable[[Any], None]) -> Iterator[None]:
    """While this lasts, calls of a method of this one object are seen: `before()`, the call, `after(result)`."""
    original = getattr(owner, name, None)
    if original is None:
        yield
        return

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        before()
        result = original(*args, **kwargs)
        after(result)
        return result

    setattr(owner, name, call)
    try:
        yield
    finally:
        delattr(owner, name)


@contextmanager
def _latents_seen(pipe: Any, clock: StageClock, log: StepLog) -> Iterator[None]:
    """Report the initial latents when the pipeline makes them, and with them the start of the loop."""

    def after(result: Any) -> None:
        latents = result[0] if isinstance(result, (tuple, list)) else result
        clock.finish("latents", *_latent_facts(pipe.scheduler, latents))
        clock.start("denoise")
        log.start()

    with _seen(pipe, "prepare_latents", lambda: clock.start("latents"), after):
        yield


def _latent_facts(scheduler: Any, latents: torch.Tensor) -> tuple[tuple[TensorFact, ...], str]:
    """The initial latents and the timesteps, and a line on both."""
    sigma = getattr(scheduler, "init_noise_sigma", None)
    note = f"x init_noise_sigma {float(sigma):.4g}" if sigma is not None else ""
    facts = [tensor_fact("latents", latents, note, stats=True)]
    details = [note] if note else []
    if getattr(scheduler, "num_inference_steps", None) is not None:  # some pipelines make the timesteps afterwards
        timesteps = scheduler.timesteps
        ends = f"{float(timesteps[0]):g} … {float(timesteps[-1]):g}"
        facts.append(tensor_fact("timesteps", timesteps, ends))
        details.append(f"{len(timesteps)} timesteps {ends}")
    return tuple(facts), ", ".join(details)


def _finish_denoise(clock: StageClock, latents: torch.Tensor, pipe: Any) -> None:
    clock.finish("denoise", (tensor_fact("latents", latents, stats=True),), f"{len(pipe.scheduler.timesteps)} steps")


def _save(
    model: LoadedModel, submit: Submit, batch: Batch, images: list[Image.Image], state: Progress, clock: StageClock, emit: Emit
) -> None:
    clock.start("save")
    elapsed_s = time.perf_counter() - batch.began
    for position, (image, seed) in enumerate(zip(images, batch.seeds, strict=True)):
        began = time.perf_counter()
        index = batch.index * batch.params.batch_size + position
        record = _record(model, submit.job, batch, index, seed, elapsed_s)
        path = save_png(image, Path(submit.output_dir), submit.name_pattern, record)
        state.paths.append(str(path))
        emit(
            ImageSaved(
                job=submit.job,
                path=str(path),
                seed=seed,
                image_index=index,
                width_px=image.width,
                height_px=image.height,
                size_bytes=path.stat().st_size,
                elapsed_s=time.perf_counter() - began,
            )
        )
    clock.finish("save")


def _record(model: LoadedModel, job: str, batch: Batch, index: int, seed: int, elapsed_s: float) -> ImageRecord:
    return ImageRecord(
        params=msgspec.structs.replace(batch.params, seed=seed),
        model_name=model.info.model,
        scheduler_class=type(model.pipe.scheduler).__name__,
        job=job,
        image_index=index,
        batch_size=batch.params.batch_size,
        first_seed=batch.seeds[0],
        version=__version__,
        torch=str(torch.__version__),
        diffusers=diffusers.__version__,
        device=model.info.device,
        dtype=model.info.dtype,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        elapsed_s=elapsed_s,
    )
