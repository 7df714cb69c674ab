"""Text to image, written out: what `StableDiffusionPipeline(prompt, ...)` does, line by line, with nothing hidden.

For every pipeline shaped like Stable Diffusion 1.x or 2.x that predicts epsilon or v, and every scheduler; given the same
generator the picture is the pipeline's own, bit for bit. Shapes are those of SD 1.4 at 512x512.

    import torch
    from diffusers import StableDiffusionPipeline
    pipe = StableDiffusionPipeline.from_pretrained("sdtui/weights")
    image = text_to_image(pipe, "a red cat", generator=torch.Generator().manual_seed(7))
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from sdtui.scratch.scheduling import step_arguments


@torch.no_grad()
def text_to_image(
    pipe: Any,
    prompt: str,
    negative_prompt: str = "",
    *,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    height: int | None = None,
    width: int | None = None,
    generator: torch.Generator | None = None,
) -> Image.Image:
    """A picture of the prompt; `height` and `width` in pixels, multiples of 8, None for those that the model was made for."""
    tokenizer, text_encoder, unet, vae, scheduler = pipe.tokenizer, pipe.text_encoder, pipe.unet, pipe.vae, pipe.scheduler
    device, guided = unet.device, guidance_scale > 1

    # --- what to draw: words become numbers, numbers become vectors ---
    prompts = [negative_prompt, prompt] if guided else [prompt]
    padded = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    tokens = tokenizer(prompts, **padded, return_tensors="pt").input_ids  # (2, 77)
    embeddings = torch.cat([text_encoder(row.to(device))[0] for row in tokens.split(1)])  # (2, 77, 768)

    # --- where to begin: noise, as strong as the scheduler's first step expects it ---
    scheduler.set_timesteps(num_inference_steps, device=device)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)  # 8: the latents are so much smaller than the picture
    rows, columns = (height or unet.config.sample_size * factor) // factor, (width or unet.config.sample_size * factor) // factor
    shape = (1, unet.config.in_channels, rows, columns)  # (1, 4, 64, 64)
    noise = torch.randn(shape, generator=generator, dtype=embeddings.dtype, device=generator.device if generator else device)
    latents = noise.to(device) * scheduler.init_noise_sigma

    # --- denoise: each step takes away a part of what the U-Net says is noise ---
    extra = step_arguments(scheduler, generator)
    for t in scheduler.timesteps:
        latent_input = torch.cat([latents] * 2) if guided else latents  # (2, 4, 64, 64)
        latent_input = scheduler.scale_model_input(latent_input, t)
        noise_pred = unet(latent_input, t, encoder_hidden_states=embeddings).sample
        if guided:
            noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)
            noise_pred = noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
        latents = scheduler.step(noise_pred, t, latents, **extra).prev_sample

    # --- from latents to pixels ---
    decoded = vae.decode(latents / vae.config.scaling_factor).sample  # (1, 3, 512, 512), from -1 to 1
    pixels = (decoded * 0.5 + 0.5).clamp(0, 1)
    array = (pixels[0].permute(1, 2, 0).float().cpu().numpy() * 255).round().astype("uint8")  # (512, 512, 3)
    return Image.fromarray(array)
