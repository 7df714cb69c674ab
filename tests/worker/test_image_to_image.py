"""Image to image: bit for bit what the plain img2img pipeline makes, with its log, its tape and its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image

from sdtui.metadata import read_png
from sdtui.protocol import StageFinished, StepFinished
from sdtui.schedulers import SCHEDULERS
from sdtui.trajectory import Trajectory, trajectories_of
from sdtui.worker.errors import JobProblem
from sdtui.worker.models import LoadedModel
from sdtui.worker.samplers import build_scheduler
from sdtui.worker.start import generators_of

from .conftest import SIZE_PX
from .desk import Desk, after_step, pixels, same

STEPS = 5


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A gradient with a disc, twice as wide as high."""
    rows, columns = np.mgrid[0:96, 0:192]
    disc = ((columns - 60) ** 2 + (rows - 50) ** 2 < 900)[..., None]
    values = np.where(disc, [200, 40, 30], np.stack([columns, rows * 2, 255 - columns], -1))
    path = tmp_path / "photo.png"
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


def plain(model: LoadedModel, submit: Any, image: Image.Image, seeds: list[int], **more: Any) -> list[np.ndarray]:
    """What diffusers' own pipeline makes of the same components."""
    params = submit.params
    pipe = StableDiffusionImg2ImgPipeline(**model.pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = build_scheduler(model.own_scheduler, model.info.schedulers, params, seeds)
    result = pipe(
        params.prompt, image=image, strength=params.strength, num_inference_steps=params.num_inference_steps,
        guidance_scale=params.guidance_scale, negative_prompt=params.negative_prompt, generator=generators_of(seeds),
        num_images_per_prompt=len(seeds), **more,
    )  # fmt: skip
    model.pipe.scheduler = model.own_scheduler
    return [np.asarray(one) for one in result.images]


def scaled(photo: Path, width: int, height: int) -> Image.Image:
    return Image.open(photo).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("scheduler", ["default", *(spec.name for spec in SCHEDULERS)])
def test_the_picture_is_the_plain_pipelines_bit_for_bit(desk: Desk, photo: Path, scheduler: str) -> None:
    submit = desk.submit(init_image=str(photo), strength=0.6, scheduler=scheduler, negative_prompt="moon", seed=7)
    paths = desk.run(submit)
    expected = plain(desk.model, submit, scaled(photo, SIZE_PX, SIZE_PX // 2), [7])
    assert [np.array_equal(one, other) for one, other in zip(pixels(paths), expected, strict=True)] == [True]


@pytest.mark.parametrize("more", [{"batch_size": 2}, {"guidance_scale": 1.0}, {"strength": 1.0}, {"strength": 0.2}])
def test_batches_no_guidance_and_all_strengths_too(desk: Desk, photo: Path, more: dict[str, Any]) -> None:
    submit = desk.submit(**{"init_image": str(photo), "scheduler": "euler_a", "seed": 3, "strength": 0.5} | more)
    paths = desk.run(submit)
    seeds = [3, 4][: submit.params.batch_size]
    expected = plain(desk.model, submit, scaled(photo, SIZE_PX, SIZE_PX // 2), seeds)
    assert all(np.array_equal(one, other) for one, other in zip(pixels(paths), expected, strict=True))


@pytest.mark.parametrize(("resize", "size"), [("exact", (64, 64)), ("fill", (64, 64)), ("crop", (64, 64)), ("fit", (64, 32))])
def test_the_size_follows_the_way_of_resizing(desk: Desk, photo: Path, resize: str, size: tuple[int, int]) -> None:
    paths = desk.run(desk.submit(init_image=str(photo), resize=resize, strength=0.4))
    assert isinstance(paths, list)
    assert Image.open(paths[0]).size == size
    record = read_png(Path(paths[0])).record
    assert record is not None and (record.params.width, record.params.height) == size
    assert record.params.init_image == str(photo) and record.params.strength == 0.4


def test_the_log_says_what_the_picture_became_and_counts_only_the_steps_that_run(desk: Desk, photo: Path) -> None:
    desk.run(desk.submit(init_image=str(photo), strength=0.6, scheduler="euler"))
    stages = {event.stage: event for event in desk.of(StageFinished)}
    assert list(stages)[:6] == ["image", "tokens", "embeddings", "encode", "latents", "denoise"]
    assert stages["image"].detail == "192x96 to 64x32 px, fit; 3 of 5 steps run at strength 0.6"
    assert stages["encode"].tensors[0].shape == (1, 4, 4, 8)
    assert stages["latents"].tensors[1].shape == (3,)
    assert stages["denoise"].detail == "3 steps"
    steps = desk.of(StepFinished)
    assert [(step.step_index, step.total_steps) for step in steps] == [(0, 3), (1, 3), (2, 3)]
    whole = build_scheduler(desk.model.own_scheduler, desk.model.info.schedulers, desk.submit(scheduler="euler").params, [7])
    whole.set_timesteps(STEPS)
    assert [step.timestep for step in steps] == [float(value) for value in whole.timesteps[2:]]
    assert [step.sigma for step in steps] == [pytest.approx(float(value)) for value in whole.sigmas[2:5]]


@pytest.mark.parametrize("scheduler", ["euler_a", "heun", "pndm", "dpmpp_2m", "ddim"])
def test_it_goes_on_from_the_step_it_stopped_at(desk: Desk, photo: Path, scheduler: str) -> None:
    given = {"init_image": str(photo), "strength": 0.8, "scheduler": scheduler, "seed": 5}
    whole = desk.run(desk.submit("whole", **given))
    assert not isinstance(desk.run(desk.submit("cut", **given), stop="pause", at=after_step(1)), list)
    paths = desk.run(desk.submit("cut", **given))
    assert same(whole, paths)
    calls = desk.network_calls
    desk.run(desk.submit("again", **given))
    assert calls < desk.network_calls, "the recorded steps were not used"


def test_another_picture_under_the_same_name_begins_the_steps_anew(desk: Desk, photo: Path) -> None:
    given = {"init_image": str(photo), "strength": 0.8, "scheduler": "euler", "seed": 5}
    desk.run(desk.submit("cut", **given), stop="pause", at=after_step(1))
    Image.new("RGB", (192, 96), "teal").save(photo)
    paths = desk.run(desk.submit("cut", **given))
    assert desk.of(StepFinished)[0].replayed is False
    assert same(paths, desk.run(desk.submit("anew", **given)))


def test_its_steps_are_kept_from_the_noised_picture_on(desk: Desk, photo: Path) -> None:
    desk.run(desk.submit(init_image=str(photo), strength=0.6, scheduler="euler"))
    trajectory = Trajectory(trajectories_of(desk.directory())[0])
    assert trajectory.complete and trajectory.total == 3 and trajectory.initial is not None
    assert trajectory.latents(-1).shape == (1, 4, 4, 8)
    assert trajectory.facts.params.init_image == str(photo)


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({"init_image": "/nowhere/cat.png"}, "init_image", "/nowhere/cat.png"),
        ({"strength": 0.1}, "strength", "leaves none to run"),
        ({"strength": -1.0}, "strength", "from 0 to 1"),
        ({"strength": 1.5}, "strength", "from 0 to 1"),
    ],
)
def test_what_cannot_be_done_names_the_field(desk: Desk, photo: Path, given: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(JobProblem, match=says) as problem:
        desk.run(desk.submit(**{"init_image": str(photo)} | given))
    assert problem.value.field == field
    assert not list((desk.root / "out-j1").glob("*"))


def test_the_next_job_without_a_picture_is_as_ever(desk: Desk, photo: Path) -> None:
    before = desk.run(desk.submit("before", scheduler="euler"))
    desk.run(desk.submit("image", init_image=str(photo), scheduler="euler"))
    assert same(before, desk.run(desk.submit("after", scheduler="euler")))
    assert "get_timesteps" not in vars(desk.model.image_pipe) and "prepare_latents" not in vars(desk.model.image_pipe)
