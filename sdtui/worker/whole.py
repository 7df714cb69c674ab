"""Every family but SD 1.x and 2.x: the pipeline runs as a whole, and its stages are seen from outside."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import Any

import torch
from PIL import Image

from sdtui.worker.errors import JobProblem
from sdtui.worker.stages import Batch, call_pipeline, latents_seen, report_tokens, seen
from sdtui.worker.steps import StepLog, tensor_fact
from sdtui.worker.watch import watched


def run_whole(batch: Batch, log: StepLog) -> list[Image.Image]:
    """The pictures of a batch, from a pipeline that encodes and decodes in its own way.

    Raises `JobProblem`, `Cancelled`, or what the libraries raise.
    """
    pipe, clock = batch.pipe, batch.clock
    if getattr(pipe, "tokenizer", None) is not None:
        report_tokens(batch, guided=batch.model.info.guides and batch.params.guidance_scale > 1)
    with ExitStack() as watching:
        watching.enter_context(latents_seen(batch, log))
        watching.enter_context(watched(pipe, log))
        watching.enter_context(
            seen(pipe, "encode_prompt", lambda: clock.start("embeddings"), lambda result: _embedded(batch, result))
        )
        if getattr(pipe, "vae", None) is not None:
            watching.enter_context(
                seen(pipe.vae, "decode", lambda: _begin_decode(batch, log), lambda result: _decoded(batch, result))
            )
        images = list(call_pipeline(batch, prompt=batch.params.prompt, output_type="pil", **_more(batch)).images)
    log.flush()
    clock.finish("denoise", detail=batch.denoise_note)
    return images


def _more(batch: Batch) -> dict[str, Any]:
    params, pipe = batch.params, batch.pipe
    more: dict[str, Any] = {"negative_prompt": params.negative_prompt} if batch.model.info.guides else {}
    if params.clip_skip:
        if "clip_skip" not in inspect.signature(type(pipe).__call__).parameters:
            raise JobProblem(f"{type(pipe).__name__} has no clip skip; it must be 0.", "clip_skip")
        more["clip_skip"] = params.clip_skip
    return more


def _embedded(batch: Batch, result: Any) -> None:
    parts = result if isinstance(result, (tuple, list)) else (result,)
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    facts = tuple(tensor_fact(f"embeddings {index}", tensor) for index, tensor in enumerate(tensors))
    batch.clock.finish("embeddings", facts)
    batch.probe.tell_stage(batch.index)


def _begin_decode(batch: Batch, log: StepLog) -> None:
    log.flush()
    batch.tape.flush()
    batch.clock.finish("denoise", detail=batch.denoise_note)
    batch.clock.start("decode")


def _decoded(batch: Batch, result: Any) -> None:
    picture = result[0] if isinstance(result, (tuple, list)) else getattr(result, "sample", None)
    batch.clock.finish("decode", (tensor_fact("image", picture, stats=True),) if isinstance(picture, torch.Tensor) else ())
    batch.probe.tell_stage(batch.index)
