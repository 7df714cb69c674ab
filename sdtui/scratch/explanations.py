"""For each line of the two sampling functions a sentence or two on why it is there, for who knows Python and not diffusion.

A line is known by its text, without indentation and without the comment at its end; lines that both functions have, have one
explanation. Sources:

    Ho et al. 2020        Denoising Diffusion Probabilistic Models
    Ho & Salimans 2022    Classifier-Free Diffusion Guidance
    Karras et al. 2022    Elucidating the Design Space of Diffusion-Based Generative Models
    Kingma & Welling 2014 Auto-Encoding Variational Bayes
    Meng et al. 2021      SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations
    Radford et al. 2021   Learning Transferable Visual Models From Natural Language Supervision (CLIP)
    Rombach et al. 2022   High-Resolution Image Synthesis with Latent Diffusion Models
    Saharia et al. 2022   Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Imagen)
    Salimans & Ho 2022    Progressive Distillation for Fast Sampling of Diffusion Models
    Song et al. 2021      Denoising Diffusion Implicit Models
"""

from __future__ import annotations

from typing import Final

EXPLANATIONS: Final[dict[str, str]] = {
    "tokenizer, text_encoder, unet, vae, scheduler = pipe.tokenizer, pipe.text_encoder, pipe.unet, pipe.vae, pipe.scheduler": (
        "The five parts of a latent diffusion model (Rombach et al. 2022, fig. 3): tokenizer and text encoder read the prompt, "
        "the U-Net says what is noise, the scheduler decides how much of that to take away, and the VAE turns latents into "
        "pixels. Only text encoder, U-Net and VAE have learned weights."
    ),
    "device, guided = unet.device, guidance_scale > 1": (
        "Every tensor has to be where the U-Net's weights are. With a guidance scale of 1 the formula below gives back the "
        "answer for the prompt alone; from there down guidance is off, as in diffusers' pipelines, which halves the work."
    ),
    "prompts = [negative_prompt, prompt] if guided else [prompt]": (
        "Classifier-free guidance compares two answers of the U-Net, one without the prompt and one with it (Ho & Salimans "
        "2022). 'Without' is the empty prompt, or what the picture should not show; its row always comes first."
    ),
    'padded = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}': (
        "The text encoder was trained on rows of one length, 77 for CLIP (Radford et al. 2021): a shorter prompt is filled up, "
        "and what is longer is cut off and has no influence at all."
    ),
    'tokens = tokenizer(prompts, **padded, return_tensors="pt").input_ids': (
        "Words become numbers: byte pair encoding splits the text into pieces of its vocabulary, and each piece is an index "
        "into the text encoder's table of vectors. A start mark stands before the prompt and an end mark behind it."
    ),
    "embeddings = torch.cat([text_encoder(row.to(device))[0] for row in tokens.split(1)])": (
        "A text encoder built as CLIP's (Radford et al. 2021) gives each token a vector that also depends on the tokens before "
        "it. The U-Net's cross-attention reads all of them at every step, the filling included (Rombach et al. 2022, section "
        "3.3); it is the only way in which the prompt reaches the picture. The rows are encoded one by one, as the pipeline "
        "does it."
    ),
    "scheduler.set_timesteps(num_inference_steps, device=device)": (
        "Training used some 1000 levels of noise, numbered by the timestep t (Ho et al. 2020). Sampling visits only "
        "num_inference_steps of them, from the noisiest down; which ones, the scheduler decides (Song et al. 2021, section "
        "4.2)."
    ),
    "factor = 2 ** (len(vae.config.block_out_channels) - 1)": (
        "The VAE halves height and width between its blocks: with four of them latents are 8 times smaller than the picture "
        "each way (Rombach et al. 2022, section 3.1). That is what makes diffusion affordable here: 64 times fewer places."
    ),
    (
        "rows, columns = (height or unet.config.sample_size * factor) // factor, "
        "(width or unet.config.sample_size * factor) // factor"
    ): (
        "From pixels to latents. Where no size was asked for it is the one that the U-Net was trained at; it takes other ones, "
        "but far from it pictures repeat their subject, as it never saw so large a whole."
    ),
    "shape = (1, unet.config.in_channels, rows, columns)": (
        "One picture of latents: channels, rows, columns. The channels are not colours; the VAE has found for itself what to "
        "put into them."
    ),
    (
        "noise = torch.randn(shape, generator=generator, dtype=embeddings.dtype, "
        "device=generator.device if generator else device)"
    ): (
        "Sampling starts from independent standard normal numbers (Ho et al. 2020, algorithm 2, line 1). They are all that the "
        "seed decides with most schedulers. Drawn on the generator's own device, a CPU here, one seed gives the same noise "
        "everywhere."
    ),
    "latents = noise.to(device) * scheduler.init_noise_sigma": (
        "Schedulers that count noise in sigma (Karras et al. 2022, table 1) keep latents as picture + sigma x noise, so the "
        "first ones are as large as their largest sigma, about 14 for Stable Diffusion; for the others, such as DDIM, the "
        "factor is 1."
    ),
    "extra = step_arguments(scheduler, generator)": (
        "Some schedulers add new noise at each step and need the generator for it; DDIM takes eta, where 0 means that no noise "
        "is added (Song et al. 2021, eq. 16)."
    ),
    "for t in scheduler.timesteps:": (
        "One round for each level of noise, from the noisiest down. Heun and other schedulers of second order need two rounds a "
        "step, which is why there can be more timesteps than steps."
    ),
    "latent_input = torch.cat([latents] * 2) if guided else latents": (
        "The same latents twice: one batch of two is quicker than two calls, and gives the answers without and with the prompt."
    ),
    "latent_input = scheduler.scale_model_input(latent_input, t)": (
        "The U-Net was trained on inputs of about unit variance. Schedulers in sigma divide by sqrt(sigma^2 + 1) to give it "
        "those (the c_in of Karras et al. 2022, table 1, column VP); the others hand the latents on as they are."
    ),
    "noise_pred = unet(latent_input, t, encoder_hidden_states=embeddings).sample": (
        "The one line that takes the time: the network looks at noisy latents, is told how noisy they are (t) and what they "
        "should show, and predicts the noise in them, epsilon (Ho et al. 2020, eq. 14), or v, a mix of noise and picture "
        "(Salimans & Ho 2022, section 4), whichever it was trained for."
    ),
    "if guided:": "Without guidance there is one answer, and nothing to compare it with.",
    "noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)": (
        "The two answers apart again, in the order of `prompts`: without the prompt, and with it. Where they differ is where "
        "the prompt has an opinion."
    ),
    "noise_pred = noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)": (
        "Classifier-free guidance: go on from the answer without the prompt, past the one with it, in the direction from one to "
        "the other (Ho & Salimans 2022, eq. 6, with w = guidance_scale - 1; Saharia et al. 2022, eq. 2, with w = "
        "guidance_scale). More follows the prompt more closely and makes pictures less varied; far too much leaves the range of "
        "natural latents."
    ),
    "latents = scheduler.step(noise_pred, t, latents, **extra).prev_sample": (
        "Take away so much of the predicted noise that the latents fit the next, less noisy level (Ho et al. 2020, algorithm 2, "
        "line 4; without new noise Song et al. 2021, eq. 12). The prediction is only good for a short way, so it is made anew "
        "each step."
    ),
    "decoded = vae.decode(latents / vae.config.scaling_factor).sample": (
        "The VAE's decoder makes pixels of latents. The factor undoes the one of training, which gave latents about unit "
        "variance, as the noise has (Rombach et al. 2022, appendix G)."
    ),
    "pixels = (decoded * 0.5 + 0.5).clamp(0, 1)": (
        "From -1 to 1, as the VAE was trained, to 0 to 1; nothing keeps the network inside its range, so what is outside is cut."
    ),
    'array = (pixels[0].permute(1, 2, 0).float().cpu().numpy() * 255).round().astype("uint8")': (
        "From one picture of channels, rows, columns to rows, columns, channels with 8 bits a colour, which is how picture "
        "files keep them."
    ),
    "return Image.fromarray(array)": "The array as a picture; not a number of it changes any more.",
    # --- image to image alone ---
    "first = num_inference_steps - min(int(num_inference_steps * strength), num_inference_steps)": (
        "SDEdit (Meng et al. 2021): do not begin with noise alone, but with a noisy picture, somewhere on the way. `strength` "
        "is the share of the steps that is left to run; so many of the first ones are left out."
    ),
    "timesteps = scheduler.timesteps[first * scheduler.order :]": (
        "The levels of noise that are left. Schedulers of second order have two timesteps a step, hence the factor."
    ),
    "if first == num_inference_steps:": "With so little strength no step is left to run.",
    'raise ValueError(f"strength {strength:g} of {num_inference_steps} steps leaves none to run.")': (
        "An error is clearer than a picture that only went through the VAE and back."
    ),
    'if hasattr(scheduler, "set_begin_index"):': (
        "Some schedulers count their steps, others find their place by t alone and need not be told."
    ),
    "scheduler.set_begin_index(first * scheduler.order)": (
        "Tell the scheduler where it comes in. It could look t up in its list, but some lists have the same t twice."
    ),
    'pixels = torch.from_numpy(np.array(image.convert("RGB"))[None].astype(np.float32) / 255.0)': (
        "The picture as numbers from 0 to 1: a batch of one, rows, columns, channels."
    ),
    "pixels = (2.0 * pixels.permute(0, 3, 1, 2) - 1.0).to(device, embeddings.dtype)": (
        "Channels first and from -1 to 1, which is what the VAE was trained with, where its weights are and in their precision."
    ),
    "encoded = vae.encode(pixels).latent_dist.sample(generator) * vae.config.scaling_factor": (
        "The VAE's encoder says for each latent a mean and a spread, and one value is drawn (Kingma & Welling 2014, section "
        "2.4). The factor gives latents about unit variance, as the noise has (Rombach et al. 2022, appendix G)."
    ),
    (
        "noise = torch.randn(encoded.shape, generator=generator, dtype=encoded.dtype, "
        "device=generator.device if generator else device)"
    ): (
        "The noise that hides what of the picture may change. It comes from the same generator as the draw before, so the order "
        "of these two lines decides the picture."
    ),
    "latents = scheduler.add_noise(encoded, noise.to(device), timesteps[:1])": (
        "Picture and noise mixed as training mixed them at this t (Ho et al. 2020, eq. 4). Noise hides fine detail first and "
        "coarse shapes last: with little of it the layout stays, and only detail is made anew (Meng et al. 2021, section 3)."
    ),
    "for t in timesteps:": (
        "One round for each level of noise that is left, from the noisiest down; the noisier ones are left out."
    ),
    "result = (decoded * 0.5 + 0.5).clamp(0, 1)": (
        "From -1 to 1, as the VAE was trained, to 0 to 1; nothing keeps the network inside its range, so what is outside is cut."
    ),
    'array = (result[0].permute(1, 2, 0).float().cpu().numpy() * 255).round().astype("uint8")': (
        "From one picture of channels, rows, columns to rows, columns, channels with 8 bits a colour, which is how picture "
        "files keep them."
    ),
}


def code_of(row: str) -> str:
    """A line without its indentation and the comment at its end."""
    return row.split("  # ", 1)[0].strip()


def explanation_of(row: str) -> str:
    """Why a line of the sampling functions is there; empty for lines that are not theirs."""
    return EXPLANATIONS.get(code_of(row), "")
