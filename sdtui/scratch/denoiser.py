"""The U-Net and the text encoder learn together to take noise out of latents."""

import random
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextModel

from sdtui.scratch.architecture import build_scheduler
from sdtui.scratch.captions import caption
from sdtui.scratch.data import scene_at
from sdtui.scratch.text import Tokens
from sdtui.scratch.training import Task, half_precision, step_seed

# One caption in ten is emptied, so that the model also learns what guidance starts from (Ho & Salimans 2022, section 3.2).
EMPTY_SHARE = 0.1
EDGES = ("conv_in", "conv_out", "embedding")


@dataclass(frozen=True)
class Batch:
    """`latents`: (B, 4, 16, 16), zero mean, unit variance; `ids`: (B, 77)."""

    latents: torch.Tensor
    ids: torch.Tensor


def velocity(latents: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The noised latents and what the U-Net should say of them: v = sqrt(a) noise - sqrt(1 - a) latents.

    Salimans & Ho 2022, "Progressive distillation", appendix D. `alpha_bar`: (B,), the share of signal power.
    """
    signal, sigma = alpha_bar.sqrt()[:, None, None, None], (1 - alpha_bar).sqrt()[:, None, None, None]
    return signal * latents + sigma * noise, signal * noise - sigma * latents


class Denoising:
    """The loss of one batch, reproducible from the step's number."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        encoder: CLIPTextModel,
        tokens: Tokens,
        latents: torch.Tensor,
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        self.unet, self.encoder, self.tokens, self.latents = unet, encoder, tokens, latents
        self.seed, self.batch_size = seed, batch_size
        self.device = next(unet.parameters()).device
        self.alpha_bar: torch.Tensor = build_scheduler().alphas_cumprod
        # Plain attention: on a CPU the fused kernel's backward pass takes a third of a step.
        unet.set_attn_processor(AttnProcessor())
        encoder.set_attn_implementation("eager")

    def __call__(self, step: int, _progress: float) -> torch.Tensor:
        rng = random.Random(step_seed(self.seed, step))
        generator = torch.Generator().manual_seed(step_seed(self.seed, step))
        batch = self._draw(rng)
        noise = torch.randn(batch.latents.shape, generator=generator)
        # One timestep in each of B equal stretches of 0..999: the loss of a batch varies less (Kingma et al. 2021, appendix I.1).
        spread = (torch.arange(self.batch_size) + torch.rand(1, generator=generator)) / self.batch_size
        timesteps = (spread * len(self.alpha_bar)).long()
        noised, target = velocity(batch.latents, noise, self.alpha_bar[timesteps])
        noised, target, timesteps, ids = (x.to(self.device) for x in (noised, target, timesteps, batch.ids))
        with half_precision(self.device):
            states = self.encoder(ids).last_hidden_state  # (B, 77, 128)
            said = self.unet(noised.contiguous(memory_format=torch.channels_last), timesteps, states).sample
        error: torch.Tensor = said.float() - target
        return error.square().mean()

    def _draw(self, rng: random.Random) -> Batch:
        indices = [rng.randrange(len(self.latents)) for _ in range(self.batch_size)]
        captions = ["" if rng.random() < EMPTY_SHARE else caption(scene_at(i), rng) for i in indices]
        return Batch(self.latents[indices].float(), self.tokens.ids(captions))


def denoising_task(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokens: Tokens,
    latents: torch.Tensor,
    *,
    device: torch.device,
    seed: int,
    batch_size: int = 24,
    peak_lr: float = 2e-3,
) -> Task:
    """`latents`: (N, 4, 16, 16), row i is the pool's scene i."""
    modules = nn.ModuleDict({"unet": unet.to(device, memory_format=torch.channels_last), "encoder": encoder.to(device)})
    loss = Denoising(unet, encoder, tokens, latents, seed=seed, batch_size=batch_size)
    return Task("unet", modules, loss, batch_size, peak_lr, edges=EDGES, ema_decay=0.998)
