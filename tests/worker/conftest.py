"""A tiny Stable Diffusion, real in every class: built from configurations once a session, and run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from sdtui.params import GenerationParams
from sdtui.protocol import Message, PreviewOptions, Submit
from sdtui.worker import stepwise
from sdtui.worker.generate import run_job
from sdtui.worker.models import LoadedModel, ModelRequest, load_model

SIZE_PX = 64


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes of GPT-2's byte-level encoding, which CLIP uses."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    folder.mkdir(parents=True)
    merges = ["c a", "ca t</w>", "r e", "re d</w>"]
    symbols = _byte_symbols()
    words = symbols + [f"{symbol}</w>" for symbol in symbols] + [merge.replace(" ", "") for merge in merges]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"})
    )
    return CLIPTokenizer.from_pretrained(folder)


def build_pipeline(folder: Path) -> StableDiffusionPipeline:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(folder / "vocabulary")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIZE_PX // 8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
        attention_head_dim=4, norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), norm_num_groups=8, layers_per_block=1, latent_channels=4, sample_size=SIZE_PX,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors are tiny here, and two threads that wait for each other on busy cores are slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of some 3 MB: 64x64 pictures, 8x8 latents."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    pipe = build_pipeline(folder.parent)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The tiny model as the worker holds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return load_model(ModelRequest(str(tiny_dir)))


@pytest.fixture(scope="session")
def plain_pipe(tiny_dir: Path) -> Any:
    """The same model as anybody else would load it."""
    pipe = StableDiffusionPipeline.from_pretrained(tiny_dir, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@dataclass
class Run:
    """What a job left behind."""

    events: list[Message]
    paths: list[Path]
    latents: list[torch.Tensor]
    """What went into the final decode of each batch, (B, C, h, w), divided by the VAE's scaling factor."""

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def a_submit(output_dir: Path, preview: PreviewOptions | None = None, **params: Any) -> Submit:
    values = {"prompt": "a red cat", "num_inference_steps": 3, "seed": 7} | params
    return Submit(
        job="j1", params=GenerationParams(**values), output_dir=str(output_dir), preview=preview or PreviewOptions(max_per_s=60)
    )


@pytest.fixture
def run(model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    """Runs a job in this process: `run(scheduler="euler", ...)`."""
    import sdtui.worker.stepwise as stepwise

    decoded: list[torch.Tensor] = []
    real = stepwise.decode_latents

    def spy(pipe: Any, latents: torch.Tensor) -> Any:
        decoded.append(latents)
        return real(pipe, latents)

    monkeypatch.setattr(stepwise, "decode_latents", spy)

    def go(preview: PreviewOptions | None = None, cancelled: Callable[[], bool] = lambda: False, **params: Any) -> Run:
        events: list[Message] = []
        paths = run_job(model, a_submit(tmp_path / "out", preview, **params), emit=events.append, cancelled=cancelled)
        return Run(events, [Path(path) for path in paths], list(decoded))

    yield go


def pytest_configure(config: pytest.Config) -> None:
    for module in ("diffusers", "torchsde", "numpy"):  # they compute with numpy in ways that newer numpy warns of
        config.addinivalue_line("filterwarnings", f"ignore::DeprecationWarning:{module}")
        config.addinivalue_line("filterwarnings", f"ignore::UserWarning:{module}")


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What went into each decode, (B, C, h, w)."""
    decoded: list[torch.Tensor] = []
    real = stepwise.decode_latents

    def spy(pipe: Any, given: torch.Tensor) -> Any:
        decoded.append(given.clone())
        return real(pipe, given)

    monkeypatch.setattr(stepwise, "decode_latents", spy)
    return decoded


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny SDXL, loaded as any other model."""
    from .test_other_families import build_xl

    folder = tmp_path_factory.mktemp("xl")
    build_xl(folder).save_pretrained(folder / "tiny-xl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return load_model(ModelRequest(str(folder / "tiny-xl")))
