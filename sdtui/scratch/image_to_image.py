"""Image to image, written out: what `StableDiffusionImg2ImgPipeline(prompt, image, ...)` does, line by line.

Only the beginning differs from `text_to_image`: the latents are those of a picture with noise on them, and the first steps,
which would decide what is where, are left out (SDEdit: Meng et al. 2021). Given the same generator the picture is the
pipeline's own, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from sdtui.scratch.scheduling import step_arguments


@torch.no_grad()
def image_to_image(
    pipe: Any,
    prompt: str,
    image: Image.Image,
    negative_prompt: str = "",
    *,
    strength: float = 0.8,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    generator: torch.Generator | None = None,
) -> Image.Image:
    """`image` (RGB, sides multiples of 8 pixels) changed towards the prompt. Raises `ValueError` where no step would run.

    `strength`, 0 to 1, is the share of the steps that run, the last ones: so much of the picture may change.
    """
    tokenizer, text_encoder, unet, vae, scheduler = pipe.tokenizer, pipe.text_encoder, pipe.unet, pipe.vae, pipe.scheduler
    device, guided = unet.device, guidance_scale > 1

    # --- what to draw ---
    prompts = [negative_prompt, prompt] if guided else [prompt]
    padded = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    tokens = tokenizer(prompts, **padded, return_tensors="pt").input_ids  # (2, 77)
    embeddings = torch.cat([text_encoder(row.to(device))[0] for row in tokens.split(1)])  # (2, 77, 768)

    # --- where to begin: the picture's latents, with as much noise as the first step that runs expects ---
    scheduler.set_timesteps(num_inference_steps, device=device)
    first = num_inference_steps - min(int(num_inference_steps * strength), num_inference_steps)
    timesteps = scheduler.timesteps[first * scheduler.order :]
    if first == num_inference_steps:
        raise ValueError(f"strength {strength:g} of {num_inference_steps} steps leaves none to run.")
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first * scheduler.order)
    pixels = torch.from_numpy(np.array(image.convert("RGB"))[None].astype(np.float32) / 255.0)  # (1, 512, 512, 3)
    pixels = (2.0 * pixels.permute(0, 3, 1, 2) - 1.0).to(device, embeddings.dtype)  # (1, 3, 512, 512), from -1 to 1
    encoded = vae.encode(pixels).latent_dist.sample(generator) * vae.config.scaling_factor  # (1, 4, 64, 64)
    noise = torch.randn(encoded.shape, generator=generator, dtype=encoded.dtype, device=generator.device if generator else device)
    latents = scheduler.add_noise(encoded, noise.to(device), timesteps[:1])

    # --- denoise ---
    extra = step_arguments(scheduler, generator)
    for t in timesteps:
        latent_input = torch.cat([latents] * 2) if guided else latents  # (2, 4, 64, 64)
        latent_input = scheduler.scale_model_input(latent_input, t)
        noise_pred = unet(latent_input, t, encoder_hidden_states=embeddings).sample
        if guided:
            noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)
            noise_pred = noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
        latents = scheduler.step(noise_pred, t, latents, **extra).prev_sample

    # --- from latents to pixels ---
    decoded = vae.decode(latents / vae.config.scaling_factor).sample  # (1, 3, 512, 512)
    result = (decoded * 0.5 + 0.5).clamp(0, 1)
    array = (result[0].permute(1, 2, 0).float().cpu().numpy() * 255).round().astype("uint8")
    return Image.fromarray(array)
