"""The safety checker runs only when asked for, and blacks out what it flags."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig

from sdtui.protocol import Message, StageFinished
from sdtui.worker.generate import run_job
from sdtui.worker.models import LoadedModel, ModelRequest, load_model

from .conftest import a_submit


@pytest.fixture(scope="module")
def guarded_dir(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guarded") / "model"
    shutil.copytree(tiny_dir, folder)
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 224,
              "patch_size": 112, "projection_dim": 8}  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, text_config={}, projection_dim=8))
    checker.save_pretrained(folder / "safety_checker")
    return folder


@pytest.fixture
def guarded(guarded_dir: Path) -> LoadedModel:
    return load_model(ModelRequest(str(guarded_dir)))


def run(model: LoadedModel, output_dir: Path, **params: Any) -> tuple[list[Message], np.ndarray[Any, Any]]:
    events: list[Message] = []
    paths = run_job(model, a_submit(output_dir, **params), emit=events.append, cancelled=lambda: False)
    return events, np.asarray(Image.open(paths[0]))


def flag(model: LoadedModel, threshold: float) -> None:
    """Make the checker flag everything (-2) or nothing (2): its cosine similarities lie between -1 and 1."""
    with torch.no_grad():
        model.safety["safety_checker"].concept_embeds_weights.fill_(threshold)
        model.safety["safety_checker"].special_care_embeds_weights.fill_(threshold)


def test_it_is_not_even_loaded_unless_asked_for(guarded: LoadedModel, tmp_path: Path) -> None:
    run(guarded, tmp_path)
    assert guarded.pipe.safety_checker is None and not guarded.safety


@pytest.mark.parametrize(("threshold", "black"), [(-2.0, True), (2.0, False)])
def test_what_it_flags_is_black_and_said(guarded: LoadedModel, tmp_path: Path, threshold: float, black: bool) -> None:
    run(guarded, tmp_path, safety_checker=True)
    flag(guarded, threshold)
    events, picture = run(guarded, tmp_path, safety_checker=True)
    assert (picture.max() == 0) == black
    decoded = next(event for event in events if isinstance(event, StageFinished) and event.stage == "decode")
    assert ("blacked out 1 of 1" in decoded.detail) == black
    assert guarded.pipe.safety_checker is None, "the next job runs without it"


def test_a_picture_that_passes_is_the_same_picture(guarded: LoadedModel, tmp_path: Path) -> None:
    _, without = run(guarded, tmp_path)
    run(guarded, tmp_path, safety_checker=True)
    flag(guarded, 2.0)
    _, checked = run(guarded, tmp_path, safety_checker=True)
    assert np.array_equal(without, checked)
