"""The sizes of the model that ships: the same stages and module names as Stable Diffusion 1.4, only small."""

import json
from pathlib import Path

from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

IMAGE_PX = 128
LATENT_CHANNELS = 4
LATENT_PX = 16  # an eighth of the image, as in SD 1.4
TEXT_WIDTH = 128
MAX_LENGTH = 77


def build_autoencoder() -> AutoencoderKL:
    """(B, 3, 128, 128) in [-1, 1] <-> (B, 4, 16, 16); four levels for the factor 8, no attention in the middle."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=IMAGE_PX,
        scaling_factor=1.0,
    )


def build_text_encoder(tokenizer_folder: Path) -> CLIPTextModel:
    """Token ids (B, 77) -> (B, 77, 128); two layers, the vocabulary of the tokenizer in the folder."""
    vocabulary = json.loads((tokenizer_folder / "vocab.json").read_text(encoding="utf-8"))
    end = vocabulary["<|endoftext|>"]
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """(B, 4, 16, 16), timestep, (B, 77, 128) -> (B, 4, 16, 16); three levels, text enters at each."""
    return UNet2DConditionModel(
        sample_size=LATENT_PX,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(2, 4, 6),  # the number of heads a level, in spite of its name
        norm_num_groups=16,
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """SD 1.4's betas (0.00085..0.012, linear in the square root), with the v prediction (Salimans & Ho 2022, appendix D)."""
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        steps_offset=1,
        timestep_spacing="trailing",
    )
    # For the other schedulers that a user makes from this config: latents reach beyond [-1, 1], so DDIM must not clip them.
    scheduler.register_to_config(clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
    return scheduler
