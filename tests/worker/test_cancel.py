"""Cancel stops within a step, wherever the job is, and leaves everything usable."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdtui.protocol import ImageSaved, Message, StageStarted, StepFinished
from sdtui.worker.cancellation import CancelToken, blocks
from sdtui.worker.errors import Cancelled
from sdtui.worker.generate import run_job

from .conftest import Run, a_submit


def cancelled_when(model: Any, module: torch.nn.Module, output_dir: Path, call: int = 1) -> tuple[list[Message], list[str]]:
    """Run a job that is cancelled when `module` is entered for the `call`th time; its events, and the blocks entered after."""
    token = CancelToken()
    events: list[Message] = []
    entered: list[str] = []
    calls = 0

    def press_the_key(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            token.cancel()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: entered.append(name) if token() else None

    pipe = model.pipe
    handles = [module.register_forward_pre_hook(press_the_key)]
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        names = {block: name for name, block in part.named_modules()}
        handles += [
            block.conv1.register_forward_pre_hook(note(names[block])) for block in blocks(part) if hasattr(block, "conv1")
        ]
    try:
        with pytest.raises(Cancelled):
            run_job(model, a_submit(output_dir, scheduler="euler"), emit=events.append, cancelled=token)
    finally:
        for handle in handles:
            handle.remove()
    return events, entered


def test_a_step_stops_at_the_next_block(model: Any, tmp_path: Path) -> None:
    events, entered = cancelled_when(model, model.pipe.unet.mid_block.resnets[0].conv2, tmp_path, call=2)
    assert [event.step_index for event in events if isinstance(event, StepFinished)] == [0], "the second step did not end"
    assert not entered, "a block ran after the key was pressed"


def test_the_decode_stops_at_the_next_block(model: Any, tmp_path: Path) -> None:
    events, entered = cancelled_when(model, model.pipe.vae.decoder.conv_in, tmp_path, call=1)
    assert [event.stage for event in events if isinstance(event, StageStarted)][-1] == "decode"
    assert not entered


def test_a_decode_in_tiles_stops_within_a_tile(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = model.pipe.vae
    monkeypatch.setattr(vae, "tile_latent_min_size", 4)
    monkeypatch.setattr(vae, "tile_sample_min_size", 32)
    vae.enable_tiling()
    tiles = 0

    def count(*_: Any) -> None:
        nonlocal tiles
        tiles += 1

    handle = vae.decoder.conv_in.register_forward_hook(count)
    try:
        _, entered = cancelled_when(model, vae.decoder.conv_in, tmp_path, call=2)
    finally:
        handle.remove()
        vae.disable_tiling()
    assert tiles == 2, "more tiles were begun"
    assert not entered


def test_the_text_encoder_stops_at_the_next_layer(model: Any, tmp_path: Path) -> None:
    events, _ = cancelled_when(model, model.pipe.text_encoder.encoder.layers[0].mlp, tmp_path)
    assert [event.stage for event in events if isinstance(event, StageStarted)] == ["tokens", "embeddings"]


def test_a_cancelled_job_leaves_no_file_and_a_model_that_works(model: Any, tmp_path: Path, run: Callable[..., Run]) -> None:
    before = run(scheduler="euler")
    cancelled_when(model, model.pipe.unet.mid_block.resnets[0], tmp_path / "cancelled", call=3)
    assert list((tmp_path / "cancelled").iterdir()) == []
    again = run(scheduler="euler")
    assert torch.equal(before.latents[0], again.latents[-1])


def test_the_pictures_of_finished_batches_stay(model: Any, tmp_path: Path) -> None:
    token = CancelToken()
    events: list[Message] = []

    def emit(event: Message) -> None:
        events.append(event)
        if isinstance(event, ImageSaved):
            token.cancel()

    with pytest.raises(Cancelled):
        run_job(model, a_submit(tmp_path, batch_count=3), emit=emit, cancelled=token)
    assert len(list(tmp_path.glob("*.png"))) == 1


def test_every_network_of_the_pipeline_looks_at_the_flag(model: Any) -> None:
    pipe = model.pipe
    assert len(blocks(pipe.text_encoder)) == 3, "its layers"
    unet = {type(block).__name__ for block in blocks(pipe.unet)}
    assert unet == {"ResnetBlock2D", "Transformer2DModel"}
    assert "ResnetBlock2D" in {type(block).__name__ for block in blocks(pipe.vae.decoder)}


def test_latency_counts_from_the_request() -> None:
    token = CancelToken()
    assert (token(), token.latency_s) == (False, 0.0)
    token.cancel()
    first = token.requested_at
    token.cancel()
    assert token() and token.requested_at == first and token.latency_s > 0
