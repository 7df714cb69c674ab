"""The stages of the training in their order, each leaving its result in the state folder for the next."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from sdtui.scratch import autoencoder, data
from sdtui.scratch.architecture import build_autoencoder, build_scheduler, build_text_encoder, build_unet
from sdtui.scratch.captions import caption
from sdtui.scratch.denoiser import denoising_task
from sdtui.scratch.export import export
from sdtui.scratch.progress import Report
from sdtui.scratch.scenes import sample_scene
from sdtui.scratch.text import Tokens, reading_task
from sdtui.scratch.tokenizer import learn_merges, write_tokenizer
from sdtui.scratch.training import Budget, Trainer

CAPTIONS_FOR_TOKENIZER = 20_000
# How the minutes are shared out when all stages run.
SHARES = {"autoencoder": 0.15, "text": 0.02, "unet": 0.75, "decoder": 0.08}
STAGES = ("pool", "tokenizer", "autoencoder", "text", "unet", "decoder")


class MissingStage(Exception):
    """A stage was asked for whose forerunner has left nothing to build on."""


@dataclass(frozen=True)
class Settings:
    """What the command line says of a training."""

    state: Path
    device: torch.device
    minutes: float = 120.0
    samples: int = 0
    pool_images: int = 24_000
    seed: int = 0
    threads: int = 1
    alone: bool = False  # one stage only: it gets all the minutes

    @property
    def workers(self) -> int:
        """Batches side by side in a step: one a thread on a CPU, one on anything else."""
        return self.threads if self.device.type == "cpu" else 1

    def budget(self, stage: str) -> Budget:
        return Budget(self.minutes * (1.0 if self.alone else SHARES[stage]), self.samples)


class Training:
    """Runs stages; every method returns False when a signal stopped it."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self.settings, self.report, self.state = settings, report, settings.state
        self.state.mkdir(parents=True, exist_ok=True)

    def run(self, stage: str) -> bool:
        torch.manual_seed(self.settings.seed)  # the networks' first weights
        method = getattr(self, stage)
        finished: bool = method()
        return finished

    def pool(self) -> bool:
        path = self.state / "pool.npy"
        if not path.exists():
            count = self.settings.pool_images
            data.draw_pool(
                path,
                count,
                self.settings.seed,
                processes=self.settings.threads,
                tell=lambda done: self.report.step("pool", done / count, {"images": done}),
            )
        return True

    def tokenizer(self) -> bool:
        rng = random.Random(self.settings.seed)
        captions = [caption(sample_scene(rng), rng) for _ in range(CAPTIONS_FOR_TOKENIZER)]
        write_tokenizer(learn_merges(captions), self.state / "tokenizer")
        return True

    def autoencoder(self) -> bool:
        vae = build_autoencoder()
        autoencoder.prepare(vae)
        pool, device = self._pool(), self.settings.device
        trainer = Trainer(
            autoencoder.autoencoder_task(vae, pool, device, self.settings.seed),
            self.settings.budget("autoencoder"),
            self.state / "autoencoder.pt",
            self.report,
            self.settings.workers,
        )
        before = trainer.step
        if not trainer.run():
            return False
        if trainer.step == before and (self.state / "vae.safetensors").exists():
            return True
        autoencoder.standardise(vae, pool, device)
        for stale in ("latents.safetensors", "decoder.pt"):  # they belong to the encoder before
            (self.state / stale).unlink(missing_ok=True)
        save_module(vae, self.state / "vae.safetensors")
        self.report.say("autoencoder", f"{autoencoder.psnr_db(vae, pool, device):.2f} dB on held-out scenes")
        return True

    def text(self) -> bool:
        encoder = build_text_encoder(self._tokenizer())
        task = reading_task(encoder, Tokens(self._tokenizer()), self.settings.device, self.settings.seed)
        finished = Trainer(task, self.settings.budget("text"), self.state / "text.pt", self.report, self.settings.workers).run()
        save_module(encoder, self.state / "text_encoder.safetensors")
        return finished

    def unet(self) -> bool:
        return self.unet_trainer().run()

    def unet_trainer(self) -> Trainer:
        """The U-Net's trainer as its checkpoint left it."""
        encoder = build_text_encoder(self._tokenizer())
        load_module(encoder, self._need("text_encoder.safetensors", "text"))
        torch.manual_seed(self.settings.seed)
        tokens = Tokens(self._tokenizer())
        task = denoising_task(build_unet(), encoder, tokens, self.latents(), device=self.settings.device, seed=self.settings.seed)
        return Trainer(task, self.settings.budget("unet"), self.state / "unet.pt", self.report, self.settings.workers)

    def decoder(self) -> bool:
        vae, pool, device = self.vae(), self._pool(), self.settings.device
        task = autoencoder.decoder_task(vae, pool, device, self.settings.seed)
        finished = Trainer(
            task, self.settings.budget("decoder"), self.state / "decoder.pt", self.report, self.settings.workers
        ).run()
        save_module(vae, self.state / "vae.safetensors")
        self.report.say("decoder", f"{autoencoder.psnr_db(vae, pool, device):.2f} dB on held-out scenes")
        return finished

    def vae(self) -> AutoencoderKL:
        vae = build_autoencoder()
        load_module(vae, self._need("vae.safetensors", "autoencoder"))
        return vae.to(self.settings.device, memory_format=torch.channels_last)

    def latents(self) -> torch.Tensor:
        """(N, 4, 16, 16) fp16, encoded once."""
        path = self.state / "latents.safetensors"
        if not path.exists():
            self.report.say("unet", "encoding the pool")
            save_file(
                {"latents": autoencoder.encode_pool(self.vae(), self._pool(), self.settings.device, self.settings.workers)}, path
            )
        latents: torch.Tensor = load_file(path)["latents"]
        return latents

    def export(self, out: Path) -> None:
        """The running averages of what has been learnt so far, as a diffusers folder."""
        modules = self.unet_trainer().averaged()
        unet, encoder = modules["unet"], modules["encoder"]
        export(out, self._tokenizer(), vae=self.vae(), text_encoder=encoder, unet=unet, scheduler=build_scheduler())

    def _pool(self) -> np.ndarray:
        return data.open_pool(self._need("pool.npy", "pool"))

    def _tokenizer(self) -> Path:
        return self._need("tokenizer/vocab.json", "tokenizer").parent

    def _need(self, name: str, stage: str) -> Path:
        path = self.state / name
        if not path.exists():
            raise MissingStage(f"--state: {path} is missing; run --only {stage} first")
        return path


def save_module(module: torch.nn.Module, path: Path) -> None:
    """The module's weights, under another name until they are complete."""
    unfinished = path.with_suffix(".part")
    save_file({name: weight.contiguous() for name, weight in module.state_dict().items()}, unfinished)
    unfinished.rename(path)


def load_module(module: torch.nn.Module, path: Path) -> None:
    module.load_state_dict(load_file(path))
