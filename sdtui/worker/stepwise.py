"""SD 1.x and 2.x, stage by stage: embeddings, the pipeline's own loop on them, and the decode, each by itself."""

from __future__ import annotations

import time
from typing import Any

import torch
from PIL import Image

from sdtui.protocol import TensorFact
from sdtui.worker.cancellation import raise_if
from sdtui.worker.conditioning import Embeddings, encode
from sdtui.worker.decoding import decode_latents, to_images
from sdtui.worker.errors import JobProblem
from sdtui.worker.stages import Batch, call_pipeline, latents_seen, report_tokens
from sdtui.worker.steps import StepLog, tensor_fact
from sdtui.worker.watch import watched


def run_stepwise(batch: Batch, log: StepLog) -> list[Image.Image]:
    """The pictures of a batch. Raises `JobProblem`, `Cancelled`, or what the libraries raise."""
    guided = is_guided(batch.pipe, batch.params.guidance_scale)
    report_tokens(batch, guided=guided)
    embeddings = _embed(batch, guided=guided)
    raise_if(batch.token)
    latents = _sample(batch, embeddings, log)
    raise_if(batch.token)
    return _decode(batch, latents)


def is_guided(pipe: Any, guidance_scale: float) -> bool:
    """Whether the pipeline will use classifier-free guidance, by its own rule."""
    return guidance_scale > 1 and pipe.unet.config.get("time_cond_proj_dim") is None


def _embed(batch: Batch, *, guided: bool) -> Embeddings:
    params, clock = batch.params, batch.clock
    clock.start("embeddings")
    embeddings = encode(
        batch.pipe,
        params.prompt,
        params.negative_prompt,
        guided=guided,
        clip_skip=params.clip_skip,
        device=batch.model.hardware.device,
    )
    facts = [tensor_fact("prompt_embeds", embeddings.prompt_embeds)]
    if embeddings.negative_prompt_embeds is not None:
        facts.append(tensor_fact("negative_prompt_embeds", embeddings.negative_prompt_embeds))
        _, count, width = embeddings.prompt_embeds.shape
        facts.append(TensorFact("prompt_embeds (uncond, text)", (2 * len(batch.seeds), count, width), facts[0].dtype))
    clock.finish("embeddings", tuple(facts), f"clip skip {params.clip_skip}" if params.clip_skip else "")
    batch.probe.tell_stage(batch.index)
    return embeddings


def _sample(batch: Batch, embeddings: Embeddings, log: StepLog) -> torch.Tensor:
    """The denoising loop, by the pipeline; returns (B, C, h, w) latents as the sampler holds them."""
    with latents_seen(batch, log), watched(batch.pipe, log):
        latents: torch.Tensor = call_pipeline(
            batch,
            prompt_embeds=embeddings.prompt_embeds,
            negative_prompt_embeds=embeddings.negative_prompt_embeds,
            output_type="latent",
        ).images
    log.flush()
    batch.tape.flush()
    note = f"{log.steps} steps"
    note = f"{note}, {batch.denoise_note}" if batch.denoise_note else note
    batch.clock.finish("denoise", (tensor_fact("latents", latents, stats=True),), note)
    return latents


def _decode(batch: Batch, latents: torch.Tensor) -> list[Image.Image]:
    """The pictures; where memory runs out the latents are still there, and decoded in a way that needs less."""

    def attempt() -> list[Image.Image]:
        batch.clock.start("decode")
        batch.probe.forget()
        return _decode_once(batch, latents)

    return batch.ladder.run(batch.index, lambda: "decode", lambda: len(batch.seeds), attempt, within=True)


def _decode_once(batch: Batch, latents: torch.Tensor) -> list[Image.Image]:
    began = time.perf_counter()
    try:
        pictures, note = decode_latents(batch.pipe, latents)
    except JobProblem as problem:
        raise JobProblem(f"{problem} {batch.probe.blame}".rstrip(), problem.field) from problem
    if not note:
        count, _, height, width = pictures.shape
        batch.model.previews.vae_s_per_px = (time.perf_counter() - began) / (count * height * width)
    images, flagged = to_images(batch.pipe, pictures, batch.safety)
    notes = [note, *(remedy.replace("_", " ") for remedy in batch.ladder.in_force)]
    if any(flagged):
        notes.append(f"the safety checker blacked out {sum(flagged)} of {len(flagged)}")
    batch.clock.finish("decode", (tensor_fact("image", pictures, stats=True),), "; ".join(filter(None, notes)))
    batch.probe.tell_stage(batch.index)
    return images
