"""Image to image, trajectories and branches of a pipeline that runs as a whole: SDXL."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline
from PIL import Image

from sdtui.protocol import BranchPoint, StageFinished, StepFinished
from sdtui.trajectory import Trajectory, trajectories_of
from sdtui.worker.models import LoadedModel
from sdtui.worker.start import generators_of

from .desk import Desk, pixels, same


@pytest.fixture
def desk(xl: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(xl, tmp_path)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").resize((64, 64)).save(path)
    return path


def test_it_is_the_plain_pipelines_bit_for_bit(desk: Desk, xl: LoadedModel, photo: Path) -> None:
    submit = desk.submit(init_image=str(photo), strength=0.6, negative_prompt="moon", seed=3, batch_size=2)
    paths = desk.run(submit)
    pipe = StableDiffusionXLImg2ImgPipeline(**xl.pipe.components, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(xl.own_scheduler.config)
    expected = pipe(
        submit.params.prompt, image=Image.open(photo), strength=0.6, num_inference_steps=submit.params.num_inference_steps,
        guidance_scale=submit.params.guidance_scale, negative_prompt="moon", generator=generators_of([3, 4]),
        num_images_per_prompt=2,
    ).images  # fmt: skip
    assert all(np.array_equal(one, np.asarray(other)) for one, other in zip(pixels(paths), expected, strict=True))
    assert {step.total_steps for step in desk.of(StepFinished)} == {3}
    assert "encode" in {event.stage for event in desk.of(StageFinished)}


def test_its_steps_can_be_branched_from_with_the_same_scheduler_and_with_another(desk: Desk) -> None:
    whole = desk.run(desk.submit(scheduler="euler_a", seed=7))
    parent = Trajectory(trajectories_of(desk.directory())[0])
    submit = msgspec.structs.replace(desk.submit("same"), params=parent.facts.params, branch=BranchPoint(job="j1", step=2))
    assert same(whole, desk.run(submit))
    other = msgspec.structs.replace(
        submit, job="other", params=msgspec.structs.replace(parent.facts.params, scheduler="dpmpp_2m")
    )
    desk.run(other)
    child = Trajectory(trajectories_of(desk.directory("other"))[0])
    assert child.complete and child.latents(-1).shape == parent.latents(1).shape
    assert child.steps[0].ratio <= parent.steps[2].ratio * 1.001
