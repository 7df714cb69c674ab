"""The trained parts as an ordinary diffusers folder: fp16 safetensors and plain JSON."""

import copy
import itertools
import shutil
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, SchedulerMixin, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

Module = TypeVar("Module", bound=torch.nn.Module)


def export(
    out: Path,
    tokenizer_folder: Path,
    *,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    scheduler: SchedulerMixin,
) -> None:
    """Write the pipeline to `out` in one move: a reader sees the old folder or the new one, never half of it.

    Files of the old folder that the pipeline does not write (README.md) are kept.
    """
    logging.disable_progress_bar()
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    parts = [_half(part) for part in (vae, text_encoder, unet)]
    StableDiffusionPipeline(
        vae=parts[0],
        text_encoder=parts[1],
        tokenizer=tokenizer,
        unet=parts[2],
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(fresh, safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(tokenizer_folder / name, fresh / "tokenizer" / name)
    for path in fresh.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors files come readable by their owner only
    if out.exists():
        for extra in out.iterdir():
            if extra.is_file() and not (fresh / extra.name).exists():
                shutil.copy2(extra, fresh / extra.name)
        old = out.with_name(out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        fresh.rename(out)
        shutil.rmtree(old)
    else:
        fresh.rename(out)


def _half(module: Module) -> Module:
    """A copy in fp16 on the CPU; the module itself goes on training."""
    copied = copy.deepcopy(module).cpu()
    for tensor in itertools.chain(copied.parameters(), copied.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.half()
    return copied
