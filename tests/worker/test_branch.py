"""Branches: another job's steps up to one, then another way; and where nothing is changed, the parent bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from sdtui.metadata import read_png
from sdtui.protocol import BranchPoint, JobStarted, StepFinished, Submit
from sdtui.trajectory import INITIAL, Trajectory, trajectories_of
from sdtui.worker.branching import level_at
from sdtui.worker.errors import JobProblem
from sdtui.worker.models import LoadedModel
from sdtui.worker.samplers import build_scheduler

from .desk import STEPS, Desk, after_step, same

AT = 2


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


def branch(desk: Desk, name: str = "branch", *, step: int = AT, picture: int = 0, parent: str = "j1", **changes: Any) -> Submit:
    """A branch as a client makes it: the parent's parameters as they were resolved, with what is changed."""
    facts = Trajectory(trajectories_of(desk.directory(parent))[0]).facts
    params = msgspec.structs.replace(facts.params, **{"batch_size": 1, "batch_count": 1, "seed": facts.seeds[picture]} | changes)
    submit = msgspec.structs.replace(desk.submit(name), params=params)
    return msgspec.structs.replace(submit, branch=BranchPoint(job=parent, step=step, picture=picture))


def trajectory(desk: Desk, name: str) -> Trajectory:
    return Trajectory(trajectories_of(desk.directory(name))[0])


@pytest.mark.parametrize(
    "scheduler",
    ["euler", "euler_a", "heun", "dpm2_a", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "unipc", "pndm", "lms", "ddim", "lcm"],
)
@pytest.mark.parametrize("guidance_scale", [3.0, 1.0])
def test_a_branch_that_changes_nothing_is_the_parent_bit_for_bit(desk: Desk, scheduler: str, guidance_scale: float) -> None:
    whole = desk.run(desk.submit(scheduler=scheduler, guidance_scale=guidance_scale, seed=7))
    calls = desk.network_calls
    paths = desk.run(branch(desk))
    assert same(whole, paths)
    assert desk.network_calls < calls, "the parent's steps were computed again"


def test_one_picture_of_a_batch_goes_on_alone(desk: Desk) -> None:
    desk.run(desk.submit(scheduler="euler_a", batch_size=3, seed=7))
    desk.run(branch(desk, picture=2))
    parent, child = trajectory(desk, "j1"), trajectory(desk, "branch")
    assert child.facts.seeds == (9,)
    for step in range(INITIAL, AT):
        assert np.array_equal(child.latents(step)[0], parent.latents(step)[2])
    assert np.allclose(child.latents(STEPS - 1)[0], parent.latents(STEPS - 1)[2], atol=1e-3), "the same noise, in a batch of one"


@pytest.mark.parametrize(
    "changes",
    [{"prompt": "a red bird"}, {"negative_prompt": "snow"}, {"guidance_scale": 7.0}, {"guidance_scale": 1.0}, {"clip_skip": 1}],
)
@pytest.mark.parametrize("scheduler", ["euler_a", "dpmpp_2m"])
def test_what_is_changed_acts_from_that_step_on(desk: Desk, changes: dict[str, Any], scheduler: str) -> None:
    whole = desk.run(desk.submit(scheduler=scheduler, guidance_scale=3.0, seed=7))
    paths = desk.run(branch(desk, **changes))
    parent, child = trajectory(desk, "j1"), trajectory(desk, "branch")
    for step in range(INITIAL, AT):
        assert np.array_equal(child.latents(step), parent.latents(step)), f"step {step} is the parent's"
    assert not np.allclose(child.latents(AT), parent.latents(AT), atol=1e-6)
    assert not same(whole, paths)
    assert [step.replayed for step in desk.of(StepFinished)] == [True] * AT + [False] * (STEPS - AT)


def test_from_no_guidance_to_guidance(desk: Desk) -> None:
    desk.run(desk.submit(scheduler="euler", guidance_scale=1.0, seed=7))
    desk.run(branch(desk, guidance_scale=5.0))
    parent, child = trajectory(desk, "j1"), trajectory(desk, "branch")
    assert np.array_equal(child.latents(AT - 1), parent.latents(AT - 1))
    assert not np.allclose(child.latents(AT), parent.latents(AT), atol=1e-6)


def test_another_seed_draws_other_noise_from_that_step_on(desk: Desk) -> None:
    desk.run(desk.submit(scheduler="euler_a", seed=7))
    desk.run(branch(desk, seed=8))
    parent, child = trajectory(desk, "j1"), trajectory(desk, "branch")
    for step in range(INITIAL, AT):
        assert np.array_equal(child.latents(step), parent.latents(step))
    assert not np.allclose(child.latents(AT), parent.latents(AT), atol=1e-3)
    assert desk.of(JobStarted)[0].seed == 8


SCHEDULERS = ("euler", "ddim", "dpmpp_2m", "heun", "unipc", "lms", "dpmpp_sde")
OTHERS = [(one, other) for one in ("dpmpp_2m", "ddim") for other in SCHEDULERS]


@pytest.mark.parametrize(("start", "to"), [(one, other) for one, other in OTHERS if one != other])
def test_another_scheduler_goes_on_at_the_same_noise_level(desk: Desk, start: str, to: str) -> None:
    desk.run(desk.submit(scheduler=start, seed=7))
    paths = desk.run(branch(desk, scheduler=to))
    parent, child = trajectory(desk, "j1"), trajectory(desk, "branch")
    first, there = child.steps[0], parent.steps[AT]
    assert first.ratio <= there.ratio * 1.001 and first.ratio > there.ratio / 2.5, "the next level that is not noisier"
    x, x0 = parent.latents(AT - 1), parent.denoised(AT - 1)
    eps = (x - there.alpha * x0) / there.sigma
    assert np.allclose(child.latents(INITIAL), first.alpha * x0 + first.sigma * eps, atol=1e-5)
    assert child.complete and isinstance(paths, list) and Image.open(paths[0]).size == (64, 64)
    assert "get_timesteps" not in vars(desk.model.image_pipe)


def test_more_steps_for_the_rest(desk: Desk) -> None:
    desk.run(desk.submit(scheduler="euler", seed=7))
    desk.run(branch(desk, num_inference_steps=20))
    child = trajectory(desk, "branch")
    assert child.complete and 8 <= child.total <= 13, "from 40 % of the way on"


def test_levels_are_those_that_the_steps_will_have(desk: Desk) -> None:
    for name in ("ddim", "euler", "heun", "dpmpp_2m"):
        desk.run(desk.submit(name, scheduler=name))
        found = trajectory(desk, name)
        scheduler = build_scheduler(desk.model.own_scheduler, desk.model.info.schedulers, found.facts.params, [7])
        scheduler.set_timesteps(STEPS)
        for step in found.steps[:: scheduler.order]:
            level = level_at(scheduler, step.index, step.timestep)
            assert (level.alpha, level.sigma) == pytest.approx((step.alpha, step.sigma))


@pytest.mark.parametrize("changes", [{"guidance_scale": 6.0}, {"seed": 9}, {"scheduler": "ddim"}])
def test_a_branch_that_is_cut_short_goes_on(desk: Desk, changes: dict[str, Any]) -> None:
    desk.run(desk.submit(scheduler="euler_a", seed=7))
    whole = desk.run(branch(desk, "whole", **changes))
    assert not isinstance(desk.run(branch(desk, "cut", **changes), stop="pause", at=after_step(1)), list)
    assert same(whole, desk.run(branch(desk, "cut", **changes)))


def test_a_branch_of_a_branch(desk: Desk) -> None:
    desk.run(desk.submit(scheduler="euler_a", seed=7))
    whole = desk.run(branch(desk, guidance_scale=6.0))
    assert same(whole, desk.run(branch(desk, "again", step=AT + 1, parent="branch")))


def test_a_branch_of_image_to_image(desk: Desk, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.linear_gradient("L").resize((64, 64)).save(photo)
    whole = desk.run(desk.submit(scheduler="euler_a", seed=7, init_image=str(photo), strength=0.8))
    assert same(whole, desk.run(branch(desk)))
    assert not same(whole, desk.run(branch(desk, "other", scheduler="dpmpp_2m")))


def test_the_picture_says_where_it_came_from(desk: Desk) -> None:
    desk.run(desk.submit(seed=7))
    paths = desk.run(branch(desk, prompt="a red bird"))
    assert isinstance(paths, list)
    record = read_png(Path(paths[0])).record
    assert record is not None and record.branch == BranchPoint(job="j1", step=AT)
    assert record.params.prompt == "a red bird"


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"step": STEPS}, "branch", f"{STEPS} steps are recorded, so 1 to {STEPS - 1}"),
        ({"step": 0}, "branch", "Step 0 of job j1"),
        ({"picture": 0, "batch_size": 2}, "batch_size", "one picture"),
        ({"width": 128}, "width", "must stay as in the job"),
        ({"num_inference_steps": 1, "scheduler": "dpmpp_2m"}, "num_inference_steps", "branch from an earlier step"),
    ],
)
def test_what_cannot_be_branched_names_the_field(desk: Desk, changes: dict[str, Any], field: str, says: str) -> None:
    desk.run(desk.submit(scheduler="euler", seed=7))
    step = STEPS - 1 if "num_inference_steps" in changes else AT
    with pytest.raises(JobProblem, match=says) as problem:
        desk.run(branch(desk, **({"step": step} | changes)))
    assert problem.value.field == field


def test_a_parent_whose_steps_are_gone_is_named(desk: Desk) -> None:
    desk.run(desk.submit(seed=7))
    submit = branch(desk)
    shutil.rmtree(desk.directory())
    with pytest.raises(JobProblem, match=r"Job j1 has nothing to branch from: .*not recorded, or were removed"):
        desk.run(submit)


def test_a_parent_of_other_weights_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.run(desk.submit(seed=7))
    monkeypatch.setattr("sdtui.worker.fingerprint.weights", lambda _: [["unet/other.safetensors", 1, 1]])
    with pytest.raises(JobProblem, match="made by another model") as problem:
        desk.run(branch(desk))
    assert problem.value.field == "model"


def test_a_branch_without_a_tape_of_its_own_is_refused(desk: Desk) -> None:
    desk.run(desk.submit(seed=7))
    with pytest.raises(JobProblem, match=r"worker\.tape is off"):
        desk.run(branch(desk), record=False)


def test_guidance_that_was_in_force_is_made_part_of_the_answers() -> None:
    from sdtui.worker.branching import _Turned

    uncond, text = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    turned = _Turned(place=1, pictures=2, before=3.0, now=7.0)._rows(torch.cat([uncond, text]))
    one, other = turned.chunk(2)
    expected = uncond[1:] + 3.0 * (text[1:] - uncond[1:])
    assert torch.equal(one + 7.0 * (other - one), expected)
