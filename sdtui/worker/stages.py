"""What the stages of a batch share: the batch itself, the clock that reports them, and looking at a pipeline's own calls."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from sdtui.ledger import SavedPicture
from sdtui.params import GenerationParams, steps_that_run
from sdtui.protocol import Message, PromptTokens, StageFinished, StageStarted, Submit, TensorFact
from sdtui.text import safe_text
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.conditioning import tokenize
from sdtui.worker.image_to_image import InitialImage
from sdtui.worker.instance import standing_in
from sdtui.worker.journal import Journal
from sdtui.worker.models import LoadedModel
from sdtui.worker.probes import Probe
from sdtui.worker.remedies import Ladder
from sdtui.worker.start import Start
from sdtui.worker.steps import StepLog, tensor_fact
from sdtui.worker.tape import DenoiserTape
from sdtui.worker.watch import timesteps_seen

Emit = Callable[[Message], None]


class StageClock:
    """Emits `StageStarted` and `StageFinished` of one batch, with the time between them."""

    def __init__(self, job: str, batch_index: int, emit: Emit) -> None:
        self._job, self._batch_index, self._emit = job, batch_index, emit
        self._began: dict[str, float] = {}

    @property
    def current(self) -> str:
        """The stage that runs, the one that began last; empty between stages."""
        return next(reversed(self._began), "")

    def start(self, stage: str) -> None:
        """A stage begins."""
        self._emit(StageStarted(job=self._job, stage=stage, batch_index=self._batch_index))
        self._began.pop(stage, None)  # one that memory ended: it is the latest again
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


@dataclass(frozen=True)
class Batch:
    """Pictures that are made at the same time, and all it takes to make them."""

    model: LoadedModel
    submit: Submit
    params: GenerationParams
    """Resolved: sizes, seed and scheduler are filled in."""
    index: int
    first_image: int
    """Of the whole job's; memory may have split a batch into parts."""
    seeds: list[int]
    safety: dict[str, Any] | None
    emit: Emit
    token: CancelToken
    clock: StageClock
    began: float
    tape: DenoiserTape
    ladder: Ladder
    journal: Journal | None
    saved: dict[int, SavedPicture]
    """The job's pictures that are on disk, by their index."""
    probe: Probe
    pipe: Any
    """The model's pipeline, or its sibling for image to image, with this batch's scheduler in it."""
    start: Start
    """Where the denoising begins."""
    image_digest: str = ""
    """Of the file that the job began with."""
    note: str = ""
    """What else is to be said of the denoising."""

    @property
    def denoise_note(self) -> str:
        """What the stage `denoise` has to say beside its steps."""
        trouble = f"steps are not recorded: {self.tape.trouble}" if self.tape.trouble else ""
        return "; ".join(filter(None, (trouble, self.note)))


def call_pipeline(batch: Batch, **more: Any) -> Any:
    """`pipe(...)` with the batch's parameters and `more`, those of them that this pipeline's `__call__` knows."""
    params = batch.params
    arguments = {
        "height": params.height,
        "width": params.width,
        "num_inference_steps": params.num_inference_steps,
        "guidance_scale": params.guidance_scale,
        "num_images_per_prompt": len(batch.seeds),
        "generator": batch.start.generators(),
        **batch.start.arguments,
        **more,
    }
    known = inspect.signature(type(batch.pipe).__call__).parameters
    return batch.pipe(**{name: value for name, value in arguments.items() if name in known})


def tell_image(batch: Batch, image: InitialImage) -> None:
    """The stage `image`: what the job begins with, and how many steps that leaves."""
    params = batch.params
    run = steps_that_run(params.num_inference_steps, params.strength)
    batch.clock.start("image")
    fact = TensorFact("image", (1, 3, image.image.height, image.image.width), "uint8")
    detail = f"{image.note}; {run} of {params.num_inference_steps} steps run at strength {params.strength:g}"
    batch.clock.finish("image", (fact,), detail)


def report_tokens(batch: Batch, *, guided: bool) -> None:
    """The stage `tokens`: what the model reads of the prompt and, with guidance, of the negative prompt."""
    batch.clock.start("tokens")
    counts = []
    for which in ("prompt", "negative_prompt") if guided else ("prompt",):
        began = time.perf_counter()
        found = tokenize(batch.pipe, getattr(batch.params, which))
        batch.emit(
            PromptTokens(
                job=batch.submit.job,
                which=which,
                ids=found.ids,
                words=tuple(safe_text(word) for word in found.words),
                cut_off=safe_text(found.cut_off, multiline=True),
                max_tokens=found.max_tokens,
                elapsed_s=time.perf_counter() - began,
            )
        )
        counts.append(f"{which} {len(found.ids)}/{found.max_tokens}")
    batch.clock.finish("tokens", detail=", ".join(counts))


@contextmanager
def seen(owner: Any, name: str, before: Callable[[], None], after: Callable[[Any], None]) -> Iterator[None]:
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

    with standing_in(owner, name, call):
        yield


@contextmanager
def latents_seen(batch: Batch, log: StepLog) -> Iterator[None]:
    """Report the initial latents when the pipeline makes them, and with them the start of the loop, which the tape joins."""
    clock, pipe = batch.clock, batch.pipe
    with ExitStack() as watching:
        watching.enter_context(batch.start.attached(pipe))
        timesteps = watching.enter_context(timesteps_seen(pipe))

        def after(result: Any) -> None:
            latents = result[0] if isinstance(result, (tuple, list)) else result
            known = getattr(pipe.scheduler, "num_inference_steps", None) is not None  # some make the timesteps afterwards
            clock.finish("latents", *_latent_facts(pipe.scheduler, latents, timesteps() if known else None))
            clock.start("denoise")
            log.start(latents, len(timesteps()) if known else 0)

        def encoded(result: Any) -> None:
            clock.finish("encode", _encoded(result))

        if batch.start.arguments and batch.start.jump is None:
            watching.enter_context(seen(pipe.vae, "encode", lambda: clock.start("encode"), encoded))
        watching.enter_context(seen(pipe, "prepare_latents", lambda: clock.start("latents"), after))
        watching.enter_context(batch.tape.attached(pipe))
        yield


def _encoded(result: Any) -> tuple[TensorFact, ...]:
    """What the VAE made of the initial image: the mean of what the latents are drawn from, or the latents."""
    found = getattr(result, "latent_dist", None)
    latents = found.mean if found is not None else getattr(result, "latents", None)
    return (tensor_fact("image latents", latents, stats=True),) if isinstance(latents, torch.Tensor) else ()


def _latent_facts(scheduler: Any, latents: torch.Tensor, timesteps: torch.Tensor | None) -> tuple[tuple[TensorFact, ...], str]:
    """The initial latents and the timesteps, and a line on both."""
    sigma = getattr(scheduler, "init_noise_sigma", None)
    note = f"x init_noise_sigma {float(sigma):.4g}" if sigma is not None else ""
    facts = [tensor_fact("latents", latents, note, stats=True)]
    details = [note] if note else []
    if timesteps is not None:
        ends = f"{float(timesteps[0]):g} … {float(timesteps[-1]):g}"
        facts.append(tensor_fact("timesteps", timesteps, ends))
        details.append(f"{len(timesteps)} timesteps {ends}")
    return tuple(facts), ", ".join(details)
