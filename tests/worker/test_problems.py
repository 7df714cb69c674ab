"""What cannot be done is refused before the work, in a sentence that names the field or the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdtui.protocol import Message
from sdtui.worker import samplers
from sdtui.worker.errors import JobProblem, ModelProblem, is_out_of_memory, one_line
from sdtui.worker.generate import run_job
from sdtui.worker.hardware import choose_hardware
from sdtui.worker.models import ModelRequest, find_local_problem, load_model

from .conftest import Run, a_submit


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"width": 100}, "width", "multiple of 8 px"),
        ({"height": 7}, "height", "from 8 to 4096 px"),
        ({"width": 0}, "width", "from 8"),
        ({"width": 100_000}, "width", "to 4096"),
        ({"prompt": "  "}, "prompt", "empty"),
        ({"prompt": "x" * 100_000}, "prompt", "100,000 characters"),
        ({"num_inference_steps": 0}, "num_inference_steps", "from 1 to 1000"),
        ({"num_inference_steps": 10_001}, "num_inference_steps", "from 1 to 1000"),
        ({"num_inference_steps": 60, "scheduler": "lcm"}, "num_inference_steps", "at most 50 steps"),
        ({"num_inference_steps": 1000, "scheduler": "pndm"}, "num_inference_steps", "first timestep would be 1000"),
        ({"scheduler": "eulr"}, "scheduler", "'euler'"),
        ({"scheduler": "ddim", "sigmas": "karras"}, "sigmas", "DDIMScheduler"),
        ({"guidance_scale": float("nan")}, "guidance_scale", "from 0 to 50"),
        ({"clip_skip": 3}, "clip_skip", "at most 2"),
        ({"safety_checker": True}, "safety_checker", "brings no safety checker"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(run: Callable[..., Run], params: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(JobProblem, match=says) as problem:
        run(**params)
    assert problem.value.field == field


def test_an_output_directory_that_cannot_be_is_named_before_the_work(model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    events: list[Message] = []
    with pytest.raises(JobProblem) as problem:
        run_job(model, a_submit(tmp_path / "file" / "out"), emit=events.append, cancelled=lambda: False)
    assert problem.value.field == "output"
    assert not events, "not even JobStarted"


def test_a_scheduler_without_its_package_says_what_to_install(
    run: Callable[..., Run], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "_installed", lambda package: package != "scipy")
    choices = samplers.scheduler_choices(model.own_scheduler)
    by_name = {choice.name: choice for choice in choices}
    assert by_name["lms"].missing == "scipy" and by_name["euler"].missing is None
    assert "beta" not in by_name["euler"].sigmas
    params = a_submit(Path(), scheduler="lms").params
    with pytest.raises(JobProblem, match="pip install scipy"):
        samplers.build_scheduler(model.own_scheduler, choices, params, [1])


def test_latents_that_are_no_numbers_fail_the_job(run: Callable[..., Run], model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bias = model.pipe.unet.conv_out.bias
    with torch.no_grad():
        kept = bias.clone()
        bias.fill_(float("nan"))
    try:
        with pytest.raises(JobProblem, match="not numbers any more"):
            run(scheduler="euler")
    finally:
        with torch.no_grad():
            bias.copy_(kept)


def test_a_cpu_refuses_float16_and_a_gpu_that_is_not_there() -> None:
    with pytest.raises(JobProblem, match="float16 on a CPU") as problem:
        choose_hardware("cpu", "float16")
    assert problem.value.field == "dtype"
    assert choose_hardware("cpu", "auto").dtype == torch.float32
    if not torch.cuda.is_available():
        with pytest.raises(JobProblem, match="no CUDA GPU") as problem:
            choose_hardware("cuda", "auto")
        assert problem.value.field == "device"


def test_bfloat16_on_a_cpu_is_taken_only_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdtui.worker import hardware

    for fast in (False, True):
        monkeypatch.setattr(hardware, "has_bfloat16", lambda fast=fast: fast)
        monkeypatch.setattr(hardware, "has_bfloat16_instructions", lambda fast=fast: fast)
        assert choose_hardware("cpu", "auto", weight_bytes=10_000).dtype == torch.float32
        large = choose_hardware("cpu", "auto", weight_bytes=4 << 30)
        assert large.dtype == (torch.bfloat16 if fast else torch.float32)
        if fast:
            assert choose_hardware("cpu", "bfloat16").dtype == torch.bfloat16
        else:
            with pytest.raises(JobProblem, match="no fast bfloat16"):
                choose_hardware("cpu", "bfloat16")


def break_missing(folder: Path) -> str:
    shutil.rmtree(folder)
    return "does not exist"


def break_empty(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    return "is empty"


def break_truncated(folder: Path) -> str:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return "unet/diffusion_pytorch_model.safetensors.*truncated"


def break_garbage(folder: Path) -> str:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x89PNG this is no checkpoint" * 99)
    return "vae/diffusion_pytorch_model.safetensors.*not a safetensors file"


def break_other_shapes(folder: Path) -> str:
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"block_out_channels": [64, 64]}))
    return "could not be loaded"


def break_pipeline_class(folder: Path) -> str:
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "StableDreamPipeline"}))
    return "StableDreamPipeline"


@pytest.mark.parametrize(
    "break_it", [break_missing, break_empty, break_truncated, break_garbage, break_other_shapes, break_pipeline_class]
)
def test_a_broken_model_is_refused_in_one_sentence(tiny_dir: Path, tmp_path: Path, break_it: Callable[[Path], str]) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_dir, folder)
    says = break_it(folder)
    with pytest.raises(ModelProblem, match=says) as problem:
        load_model(ModelRequest(str(folder)))
    assert problem.value.field == "model"
    assert "\n" not in str(problem.value)


def test_a_local_problem_shows_before_the_model_in_memory_goes(tmp_path: Path, tiny_dir: Path) -> None:
    find_local_problem(ModelRequest(str(tiny_dir)))
    with pytest.raises(ModelProblem, match="neither a folder"):
        find_local_problem(ModelRequest("no such thing"))
    with pytest.raises(JobProblem, match="float16"):
        find_local_problem(ModelRequest(str(tiny_dir), dtype="float16", device="cpu"))


def test_a_variant_that_is_not_there_falls_back_to_the_plain_weights(tiny_dir: Path) -> None:
    found = load_model(ModelRequest(str(tiny_dir), variant="fp16"))
    assert found.info.dtype == "float32"


def test_a_loaded_model_serves_what_auto_became() -> None:
    from types import SimpleNamespace

    from sdtui.worker.models import LoadedModel

    info = SimpleNamespace(dtype="float32", device="cpu")
    held = LoadedModel(ModelRequest("m"), None, info, None, None, None, simple=True)  # type: ignore[arg-type]
    assert held.serves(ModelRequest("m")) and held.serves(ModelRequest("m", dtype="float32", device="cpu"))
    for other in (
        ModelRequest("n"),
        ModelRequest("m", revision="x"),
        ModelRequest("m", variant="fp16"),
        ModelRequest("m", dtype="bfloat16"),
    ):
        assert not held.serves(other)


def test_an_allocator_that_refuses_is_recognised() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_an_exception_becomes_one_safe_line() -> None:
    assert one_line(ValueError("bad\n\x1b[31mred\x1b[0m [/]")) == "ValueError: bad red [/]"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x" * 9999))) < 600
