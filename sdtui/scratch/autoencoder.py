"""The autoencoder: 128x128 images to 4x16x16 latents and back, learnt on 64x64 crops."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional

from sdtui.scratch.architecture import LATENT_CHANNELS
from sdtui.scratch.data import random_crops, to_tensor, training_count
from sdtui.scratch.training import Task, half_precision, step_seed

CROP_PX = 64
# The posterior's standard deviation is fixed: the decoder learns to bear small errors of the U-Net.
POSTERIOR_STD = 0.05
EDGES = ("conv_in", "conv_out", "quant_conv")
# Squared error learns brightness first and colour late; until a third of the budget three channels are pulled towards the
# image's small red, green and blue, which are then there from the start.
ANCHOR, ANCHOR_UNTIL, ANCHOR_GAIN = 0.2, 0.35, 1.6
# Keeps the latents' scale from drifting, as the KL term of Kingma & Welling 2014 does (its mean part, up to a factor).
LATENT_DECAY = 1e-4


def prepare(vae: AutoencoderKL) -> None:
    """Fix the posterior's variance: the rows of `quant_conv` that say its logarithm become a constant."""
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0
        vae.quant_conv.bias[LATENT_CHANNELS:] = 2 * math.log(POSTERIOR_STD)


def encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, h, w) in [-1, 1] -> the posterior's mean, (B, 4, h/8, w/8), unscaled."""
    moments: torch.Tensor = vae.quant_conv(vae.encoder(images))
    return moments[:, :LATENT_CHANNELS].float()


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """(B, 4, h, w) unscaled -> (B, 3, 8h, 8w), about [-1, 1]."""
    image: torch.Tensor = vae.decoder(vae.post_quant_conv(latents))
    return image.float()


def autoencoder_task(vae: AutoencoderKL, pool: np.ndarray, device: torch.device, seed: int, batch_size: int = 4) -> Task:
    """Squared error of the decoded crop, with the colour anchor fading."""
    vae = vae.to(device, memory_format=torch.channels_last)

    def loss(step: int, progress: float) -> torch.Tensor:
        crops = random_crops(pool, batch_size, CROP_PX, np.random.default_rng(step_seed(seed, step))).to(device)
        noise = torch.randn((batch_size, LATENT_CHANNELS, 8, 8), generator=torch.Generator().manual_seed(step_seed(seed, step)))
        with half_precision(device):
            latents = encode(vae, crops)
            decoded = decode(vae, latents + POSTERIOR_STD * noise.to(device))
        anchor = ANCHOR * max(0.0, 1 - progress / ANCHOR_UNTIL)
        coloured = (latents[:, :3] - ANCHOR_GAIN * functional.avg_pool2d(crops, 8)).square().mean()
        return (decoded - crops).square().mean() + LATENT_DECAY * latents.square().mean() + anchor * coloured

    return Task(
        "autoencoder",
        nn.ModuleDict({"vae": vae}),
        loss,
        batch_size,
        peak_lr=3e-3,
        edges=EDGES,
        measure=lambda: {"psnr_db": psnr_db(vae, pool, device)},
    )


def decoder_task(vae: AutoencoderKL, pool: np.ndarray, device: torch.device, seed: int, batch_size: int = 4) -> Task:
    """The decoder alone learns on; the encoder and so every cached latent stays as it is."""
    vae = vae.to(device, memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)

    def loss(step: int, _progress: float) -> torch.Tensor:
        crops = random_crops(pool, batch_size, CROP_PX, np.random.default_rng(step_seed(seed, step))).to(device)
        noise = torch.randn((batch_size, LATENT_CHANNELS, 8, 8), generator=torch.Generator().manual_seed(step_seed(seed, step)))
        with half_precision(device):
            with torch.no_grad():
                latents = encode(vae, crops)
            decoded = decode(vae, latents + POSTERIOR_STD * noise.to(device))
        return (decoded - crops).square().mean()

    return Task(
        "decoder",
        nn.ModuleDict({"vae": vae}),
        loss,
        batch_size,
        peak_lr=2e-3,
        edges=EDGES,
        measure=lambda: {"psnr_db": psnr_db(vae, pool, device)},
    )


@torch.no_grad()
def psnr_db(vae: AutoencoderKL, pool: np.ndarray, device: torch.device, count: int = 64) -> float:
    """10 log10(range^2 / mean squared error) over held-out scenes, through the posterior's mean."""
    held_out = to_tensor(pool[training_count(pool) :][:count])
    errors = []
    for start in range(0, len(held_out), 16):
        images = held_out[start : start + 16].to(device)
        decoded = decode(vae, encode(vae, images)).clamp(-1, 1)
        errors.append((decoded - images).square().mean().item() * len(images))
    return 10 * math.log10(4 / (sum(errors) / len(held_out)))


@torch.no_grad()
def standardise(vae: AutoencoderKL, pool: np.ndarray, device: torch.device, count: int = 2000) -> None:
    """Give the latents zero mean and unit variance a channel, exactly, by folding the change into the two 1x1 convolutions.

    quant_conv then says (z - mean) / std, and post_quant_conv undoes it, so `scaling_factor` can stay 1.
    """
    sample = torch.cat([encode(vae, to_tensor(pool[i : i + 50]).to(device)) for i in range(0, min(count, len(pool)), 50)])
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]
    quant.bias[:LATENT_CHANNELS] = (quant.bias[:LATENT_CHANNELS] - mean) / std
    quant.weight[:LATENT_CHANNELS] /= std[:, None, None, None]
    quant.bias[LATENT_CHANNELS:] -= 2 * std.log()


def encode_pool(vae: AutoencoderKL, pool: np.ndarray, device: torch.device, workers: int = 1) -> torch.Tensor:
    """The latents of every training image, (N, 4, 16, 16) fp16."""
    count = training_count(pool)

    def part(start: int) -> torch.Tensor:
        images = to_tensor(pool[start : min(start + 50, count)]).to(device)
        with torch.no_grad(), half_precision(device):
            return encode(vae, images).half().cpu()

    with ThreadPoolExecutor(workers) as threads:
        return torch.cat(list(threads.map(part, range(0, count, 50)))).contiguous()
