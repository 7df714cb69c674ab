"""The stages learn, stop, and go on as if they had never stopped."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdtui.scratch import autoencoder
from sdtui.scratch.data import draw_pool, open_pool
from sdtui.scratch.denoiser import denoising_task, velocity
from sdtui.scratch.muon import orthogonalised
from sdtui.scratch.text import Tokens
from sdtui.scratch.tokenizer import vocabulary, write_tokenizer
from sdtui.scratch.training import (
    Budget,
    CheckpointError,
    Task,
    Trainer,
    read_checkpoint,
    schedule,
    stop_signals,
    write_checkpoint,
)

CPU = torch.device("cpu")


class Silent:
    """A report that keeps what it was told."""

    def __init__(self):
        self.told = []

    def step(self, stage, progress, figures):
        self.told.append((stage, progress, figures))

    def say(self, stage, text):
        self.told.append((stage, text))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "pool.npy"
    draw_pool(path, 24, processes=1)
    return open_pool(path)


def tiny_vae():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    autoencoder.prepare(vae)
    return vae


def tiny_denoising(folder, latents=None, batch_size=4):
    torch.manual_seed(0)
    write_tokenizer([], folder)
    size = len(vocabulary([]))
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            eos_token_id=size - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    latents = torch.ones(6, 4, 8, 8) if latents is None else latents
    return denoising_task(unet, encoder, Tokens(folder), latents, device=CPU, seed=0, batch_size=batch_size)


def run(task, samples, path, report=None):
    trainer = Trainer(task, Budget(samples=samples), path, report or Silent())
    assert trainer.run()
    return trainer


def test_the_autoencoder_learns(pool, tmp_path):
    task = replace(autoencoder.autoencoder_task(tiny_vae(), pool, CPU, seed=0, batch_size=2), peak_lr=0.05)
    before = task.loss(10_000, 1.0).item()
    run(task, 100, tmp_path / "a.pt")
    assert task.loss(10_000, 1.0).item() < 0.8 * before, before


def test_the_denoiser_learns(tmp_path):
    task = replace(tiny_denoising(tmp_path / "tokens"), peak_lr=0.02)
    before = task.loss(10_000, 1.0).item()
    run(task, 120, tmp_path / "u.pt")
    assert task.loss(10_000, 1.0).item() < 0.8 * before, before


def test_decoder_training_leaves_every_latent_as_it_was(pool, tmp_path):
    vae = tiny_vae()
    images = autoencoder.to_tensor(pool[:2])
    before, decoded = autoencoder.encode(vae, images), autoencoder.decode(vae, autoencoder.encode(vae, images))
    run(autoencoder.decoder_task(vae, pool, CPU, seed=0, batch_size=2), 8, tmp_path / "d.pt")
    assert torch.allclose(autoencoder.encode(vae, images), before, atol=1e-5)
    assert not torch.allclose(autoencoder.decode(vae, before), decoded, atol=1e-3)


def test_standardised_latents_have_no_mean_and_unit_variance_and_decode_the_same(pool):
    vae = tiny_vae()
    images = autoencoder.to_tensor(pool[:])
    with torch.no_grad():
        before = autoencoder.decode(vae, autoencoder.encode(vae, images))
        autoencoder.standardise(vae, pool, CPU)
        latents = autoencoder.encode(vae, images)
        after = autoencoder.decode(vae, latents)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert (before - after).abs().max() < 1e-3


def test_a_resumed_run_ends_with_the_same_bits_as_an_unbroken_one(tmp_path):
    latents = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    # the learning rate depends on the budget, so both runs have the same one and the broken one is stopped by hand
    whole = run(tiny_denoising(tmp_path / "t1", latents), 32, tmp_path / "whole.pt")
    broken = Trainer(tiny_denoising(tmp_path / "t2", latents), Budget(samples=32), tmp_path / "broken.pt", Silent())
    for _ in range(3):
        broken._learn()
    broken.save()
    resumed = Trainer(tiny_denoising(tmp_path / "t3", latents), Budget(samples=32), tmp_path / "broken.pt", Silent())
    assert resumed.step == 3
    assert resumed.run()
    for (name, a), (_, b) in zip(whole.task.modules.state_dict().items(), resumed.task.modules.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(whole.average[name], resumed.average[name]) for name in whole.average)


def test_a_spent_budget_learns_nothing_more(tmp_path):
    first = run(tiny_denoising(tmp_path / "t"), 8, tmp_path / "u.pt")
    again = run(tiny_denoising(tmp_path / "t"), 8, tmp_path / "u.pt")
    assert again.step == first.step == 2


def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path):
    linear = nn.Linear(2, 2)

    def loss(step, progress):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return linear(torch.ones(1, 2)).square().mean()

    task = Task("t", nn.ModuleDict({"linear": linear}), loss, 1, 1e-3)
    assert not Trainer(task, Budget(samples=1000), tmp_path / "t.pt", Silent()).run()
    assert read_checkpoint(tmp_path / "t.pt")["step"] == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stop_signals_are_noted_only_inside():
    with stop_signals() as stopped:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped == [signal.SIGTERM]


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "u.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        read_checkpoint(path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "boom"),))

    torch.save({"weights": Bomb()}, tmp_path / "u.pt")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "u.pt")
    assert not (tmp_path / "boom").exists()


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    write_checkpoint(
        tmp_path / "u.pt",
        {"weights": {"x": torch.ones(1)}, "optimizers": [], "average": {}, "step": 1, "samples": 4, "elapsed_s": 1.0},
    )
    with pytest.raises(CheckpointError, match="another architecture"):
        Trainer(tiny_denoising(tmp_path / "t"), Budget(samples=8), tmp_path / "u.pt", Silent())


def test_the_learning_rate_rises_then_falls_to_the_end():
    assert schedule(0, 0.0) < schedule(50, 0.0) < schedule(99, 0.0) == 1.0
    assert schedule(500, 0.5) == 0.5
    assert schedule(500, 1.0) == 0.01


def test_orthogonalised_singular_values_are_near_one():
    matrix = torch.randn(24, 90, generator=torch.Generator().manual_seed(0)) * 1e-4
    values = torch.linalg.svdvals(orthogonalised(matrix).float())
    assert values.min() > 0.5 and values.max() < 1.3


def test_velocity_and_noised_latents_give_the_latents_back():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(3, 4, 8, 8, generator=generator), torch.randn(3, 4, 8, 8, generator=generator)
    alpha_bar = torch.tensor([0.9, 0.5, 0.01])
    noised, said = velocity(latents, noise, alpha_bar)
    signal_share, sigma = alpha_bar.sqrt()[:, None, None, None], (1 - alpha_bar).sqrt()[:, None, None, None]
    assert torch.allclose(signal_share * noised - sigma * said, latents, atol=1e-5)


def test_training_crops_never_touch_the_held_out_images(pool):
    marked = np.array(pool)
    marked[18:] = 255
    crops = autoencoder.random_crops(marked, 200, 64, np.random.default_rng(0))
    assert not (crops.flatten(1).min(dim=1).values == 1).any()
