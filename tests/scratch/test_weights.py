"""The model that ships: small enough, loads, obeys its seed and its prompt."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline

import sdtui
from sdtui.scratch.data import to_tensor
from sdtui.scratch.evaluation import JUDGE_FILE, asked_for, generate
from sdtui.scratch.judge import accuracy_on_drawings, agreement, load_judge

WEIGHTS = Path(sdtui.__file__).parent / "weights"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipeline():
    pipeline = DiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_weights_take_at_most_25_mb():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 25_000_000


def test_the_model_has_the_stages_and_shapes_of_stable_diffusion(pipeline):
    assert type(pipeline) is StableDiffusionPipeline
    assert pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels == 4
    assert pipeline.tokenizer.model_max_length == 77
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == 128


def test_the_same_seed_makes_the_same_image_and_another_seed_another(pipeline):
    def image(seed):
        return np.asarray(
            pipeline("a red cat in the desert", num_inference_steps=4, generator=torch.Generator().manual_seed(seed)).images[0]
        )

    assert np.array_equal(image(1), image(1))
    assert not np.array_equal(image(1), image(2))


def test_a_ddim_scheduler_made_from_its_config_does_not_clip_latents(pipeline):
    ddim = DDIMScheduler.from_config(pipeline.scheduler.config)
    assert ddim.config.prediction_type == "v_prediction" and not ddim.config.clip_sample


def test_the_judge_reads_drawings_right():
    shares = accuracy_on_drawings(load_judge(WEIGHTS / JUDGE_FILE, CPU), CPU, count=200)
    assert min(shares.values()) >= 0.95


def test_most_images_show_what_the_prompt_asks_for(pipeline):
    questions = asked_for(12, seed=7)
    images = generate(pipeline, [prompt for prompt, _ in questions], first_seed=7, steps=20, guidance=4.0)
    readings = load_judge(WEIGHTS / JUDGE_FILE, CPU).read(to_tensor(np.stack([np.asarray(image) for image in images])))
    shares = agreement([wanted for _, wanted in questions], readings)
    assert shares["scene"] >= 0.9 and shares["colour"] >= 0.8 and shares["object"] >= 0.7
