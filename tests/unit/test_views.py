"""What steps look like: colours that can be worked out by hand, scales that can be compared, a sentence for what is not there."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from sdtui import tape
from sdtui.bench.recorded import write_recorded
from sdtui.inspected import InspectedError
from sdtui.params import GenerationParams
from sdtui.tape import Tape
from sdtui.timeline.views import BEFORE_STEPS, VIEWS, NotDecoded, View, channels, decoded_of, decoded_path, figures, frame
from sdtui.trajectory import INITIAL, LinearFactors, Trajectory, TrajectoryError, TrajectoryFacts, TrajectoryFile, tape_path
from sdtui.words import HUES

Values = np.ndarray[Any, Any]
MADE_OF_LATENTS: tuple[View, ...] = tuple(view for view in VIEWS if view != "vae")
SHAPE = (1, 4, 2, 3)
COLDEST = [0, 0, 4]
"""The colour that a map has where it is 0."""


def trajectory_of(
    directory: Path, latents: list[Values], *, begin: Values | None = None, denoised: list[Values] | None = None,
    total: int | None = None, linear: LinearFactors | None = None,
) -> Trajectory:  # fmt: skip
    """Steps of these latents; of each step alpha is 0.6 and sigma 0.8, so that their variance is 1."""
    facts = TrajectoryFacts(
        job="j1", batch_index=0, model="m", pipeline="P", scheduler="S", prediction_type="epsilon", linear=linear,
        params=GenerationParams(prompt="a cat", guidance_scale=3.0, seed=7), seeds=(7,),
    )  # fmt: skip
    directory.mkdir(exist_ok=True)
    path = directory / "batch-0000.steps"
    file = TrajectoryFile(path, facts)
    if begin is not None:
        file.append(payload(INITIAL, total or len(latents), latents=begin))
    for step, values in enumerate(latents):
        made = denoised[step] if denoised else values
        file.append(payload(step, total or len(latents), latents=values, denoised=made))
    file.close()
    return Trajectory(path)


def payload(step: int, total: int, **tensors: Values) -> bytes:
    facts = {"step": step, "total": total, "timestep": 900 - step, "alpha": 0.6, "sigma": 0.8, "elapsed_s": 0.25}
    return save(
        {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}, {k: str(v) for k, v in facts.items()}
    )


def tell(trajectory: Trajectory, *answers: Values) -> None:
    """What the network said at each step, without and with the prompt."""
    written = Tape(tape_path(trajectory.path), {"format": tape.FORMAT, "seeds": [0] * (len(answers[0]) // 2)})
    for step, answer in enumerate(answers):
        facts = {"call": str(step), "step": str(step), "timestep": "0", "elapsed_s": "0.1", "form": "tuple"}
        written.append(save({"0": np.ascontiguousarray(answer, np.float32)}, facts))
    written.close()


def constant(*values: float) -> Values:
    """(1, C, 2, 3)"""
    return np.ones(SHAPE, np.float32)[:, :1] * np.array(values, np.float32).reshape(1, -1, 1, 1)


# --- all views ------------------------------------------------------------------------------------------------------


def test_each_view_has_a_title() -> None:
    assert tuple(VIEWS) == get_args(View)


@pytest.mark.parametrize("count", [1, 2, 4, 16])
@pytest.mark.parametrize("view", MADE_OF_LATENTS)
def test_a_frame_has_the_size_of_the_latents_however_many_channels_they_have(view: View, count: int, tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 3, latents=(5, 7), channels=count, pictures=2))
    shown = [frame(found, step, view, picture=1) for step in range(3)]
    assert all(one.shape == (5, 7, 3) and one.dtype == np.uint8 and one.flags.c_contiguous for one in shown)
    assert all(np.ptp(one) > 0 for one in shown)
    assert channels(found) == count


@pytest.mark.parametrize("view", MADE_OF_LATENTS)
def test_pictures_of_a_batch_are_told_apart(view: View, tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 2, latents=(5, 7), pictures=2))
    assert not np.array_equal(frame(found, 1, view), frame(found, 1, view, picture=1))


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("view", MADE_OF_LATENTS)
def test_what_is_no_number_is_shown_as_nothing(view: View, fault: float, tmp_path: Path) -> None:
    broken = constant(1, 2, 3, 4)
    broken[0, :, 0, 0] = fault
    linear = LinearFactors(((0.1, 0.1, 0.1),) * 4, (0.0, 0.0, 0.0), 0.9)
    found = trajectory_of(tmp_path, [broken, constant(1, 2, 3, 4)], begin=broken, linear=linear)
    tell(found, *[np.concatenate([broken, 2 * broken])] * 2)
    shown = frame(found, 0, view)
    nothing = {"channel": [0, 0, 0], "guidance": COLDEST, "difference": COLDEST}.get(view, [128] * 3)
    assert shown[0, 0].tolist() == nothing
    figures(found)


@pytest.mark.parametrize("view", MADE_OF_LATENTS)
def test_latents_that_are_zero_everywhere_are_a_flat_picture(view: View, tmp_path: Path) -> None:
    linear = LinearFactors(((0.1, 0.1, 0.1),) * 4, (0.0, 0.0, 0.0), 0.9)
    found = trajectory_of(tmp_path, [np.zeros(SHAPE)] * 2, begin=np.zeros(SHAPE), linear=linear)
    tell(found, *[np.zeros((2, *SHAPE[1:]))] * 2)
    assert len(np.unique(frame(found, 1, view).reshape(-1, 3), axis=0)) == 1


# --- colours --------------------------------------------------------------------------------------------------------


def test_the_x0_prediction_has_the_colours_of_the_live_preview(tmp_path: Path) -> None:
    import torch

    from sdtui.worker.linear import LinearMap

    found = Trajectory(write_recorded(tmp_path, 4, latents=(9, 6)))
    assert found.facts.linear is not None
    preview = LinearMap.of(found.facts.linear, torch.device("cpu"))(torch.from_numpy(found.denoised(2)[0])).numpy()
    assert np.abs(frame(found, 2, "denoised").astype(int) - preview).max() <= 1


def test_the_last_latents_look_as_the_last_x0_prediction_does_whatever_the_sampler_keeps(tmp_path: Path) -> None:
    for name, keeps in (("ddim", True), ("euler", False)):
        found = Trajectory(write_recorded(tmp_path / name, 4, keeps_variance=keeps))
        assert np.array_equal(frame(found, 3, "latents"), frame(found, 3, "denoised"))


@pytest.mark.parametrize("view", ["latents", "channel", "rgb"])
def test_latents_that_grow_with_sigma_are_seen_as_those_that_do_not(view: View, tmp_path: Path) -> None:
    kept = Trajectory(write_recorded(tmp_path / "ddim", 5))
    grown = Trajectory(write_recorded(tmp_path / "euler", 5, keeps_variance=False))
    assert np.abs(grown.latents(INITIAL)).max() > 10 * np.abs(kept.latents(INITIAL)).max()
    for step in range(INITIAL, 5):
        difference = frame(kept, step, view).astype(int) - frame(grown, step, view)
        assert np.abs(difference).max() <= 1


def test_a_channel_is_orange_above_nothing_and_azure_below(tmp_path: Path) -> None:
    values = constant(0, 0, 0, 0)
    values[0, 2, 0] = [30.0, -30.0, 1.5]
    found = trajectory_of(tmp_path, [values])
    shown = frame(found, 0, "channel", channel=2)
    assert [tuple(pixel) for pixel in shown[0, :2].tolist()] == list(HUES)
    assert shown[0, 2].tolist() == [round(part / 2) for part in HUES[0]]
    assert shown[1].max() == 0 and frame(found, 0, "channel", channel=1).max() == 0


def test_three_channels_are_red_green_and_blue_around_the_middle(tmp_path: Path) -> None:
    found = trajectory_of(tmp_path, [constant(0, 1.5, -30, 99)])
    assert frame(found, 0, "rgb")[0, 0].tolist() == [128, 191, 0]
    grey = trajectory_of(tmp_path / "other", [constant(1.5)])
    assert frame(grey, 0, "rgb")[0, 0].tolist() == [191] * 3


def test_the_noise_prediction_is_that_with_guidance(tmp_path: Path) -> None:
    found = trajectory_of(tmp_path, [constant(0, 0, 0, 0)])
    tell(found, np.concatenate([constant(0, 0, 0, 0), constant(0.5, -0.5, 0, 0)]))  # a guidance scale of 3 makes 1.5 of 0.5
    assert frame(found, 0, "noise_pred")[0, 0].tolist() == [191, 64, 128]


def test_guidance_has_one_scale_for_all_steps(tmp_path: Path) -> None:
    found = trajectory_of(tmp_path, [constant(0, 0, 0, 0)] * 3)
    with_prompt = [constant(scale, 0, 0, 0) for scale in (40, 1, 0.5)]
    with_prompt[1][0, 0, 0, 0] = 0
    tell(found, *(np.concatenate([constant(0, 0, 0, 0), one]) for one in with_prompt))
    first, second, third = (frame(found, step, "guidance").astype(int).sum(axis=-1) for step in range(3))
    assert first.min() == second[1, 1] == second.max()  # the median of 40, 1 and 0.5 is the end of the scale
    assert second[0, 0] < third[0, 0] < second.max() and np.ptp(third) == 0


def test_the_difference_shows_where_a_step_changed_the_latents(tmp_path: Path) -> None:
    changed = constant(1, 1, 1, 1)
    changed[0, :, 1, 2] += 1e-3
    found = trajectory_of(tmp_path, [constant(1, 1, 1, 1), changed], begin=constant(0, 0, 0, 0))
    shown = frame(found, 1, "difference").sum(axis=-1)
    assert shown[1, 2] > 600 and np.delete(shown.reshape(-1), 5).max() < 10
    assert len(np.unique(frame(found, 0, "difference").reshape(-1, 3), axis=0)) == 1  # by as much everywhere


# --- growing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", MADE_OF_LATENTS)
def test_a_running_job_is_seen_up_to_its_last_step(view: View, tmp_path: Path) -> None:
    path = write_recorded(tmp_path, 3, total=6, latents=(6, 6), keeps_variance=False)
    found = Trajectory(path)
    early = frame(found, 2, view)
    tape_path(path).unlink()
    write_recorded(tmp_path, 6, latents=(6, 6), keeps_variance=False, num_inference_steps=6)
    assert found.refresh() and found.complete
    assert frame(found, 5, view).shape == early.shape
    assert len(figures(found).step) == 6


def test_a_tape_that_ends_before_the_latents_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_recorded(tmp_path, 4, latents=(6, 6))
    data = tape_path(path).read_bytes()
    tape_path(path).write_bytes(data[: len(data) * 2 // 3])
    found = Trajectory(path)
    assert np.ptp(frame(found, 1, "guidance")) > 0
    with pytest.raises(InspectedError, match="step 3 is not among them"):
        frame(found, 3, "guidance")
    told = figures(found)
    assert told.guidance[0] is not None and told.guidance[-1] is None and len(told.x_std) == 4


# --- what is not there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", sorted(set(MADE_OF_LATENTS) - BEFORE_STEPS))
def test_before_the_first_step_there_is_no_prediction(view: View, tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 2))
    with pytest.raises(TrajectoryError, match="before the first step"):
        frame(found, INITIAL, view)


@pytest.mark.parametrize(
    ("view", "said"), [("channel", "4 channels, and none with the number 5"), ("rgb", "1 picture, and none")]
)
def test_channels_and_pictures_that_there_are_not_are_told(view: View, said: str, tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 2))
    with pytest.raises(TrajectoryError, match=said):
        frame(found, 0, view, channel=4, picture=1 if view == "rgb" else 0)
    with pytest.raises(TrajectoryError, match="step 2 is not among them"):
        frame(found, 2, view)


def test_a_model_without_a_linear_map_says_what_can_be_looked_at(tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 2, linear=False))
    with pytest.raises(TrajectoryError, match="look at rgb, channel or vae"):
        frame(found, 0, "denoised")
    wrong = trajectory_of(tmp_path / "other", [constant(1, 1)], linear=LinearFactors(((1.0, 1.0, 1.0),), (0.0, 0.0, 0.0), 1.0))
    with pytest.raises(TrajectoryError, match="for 1 channels, the latents have 2"):
        frame(wrong, 0, "denoised")


def test_a_job_without_guidance_has_no_map_of_it_but_a_noise_prediction(tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 2, guided=False))
    with pytest.raises(InspectedError, match="no guidance"):
        frame(found, 0, "guidance")
    assert np.ptp(frame(found, 0, "noise_pred")) > 0
    assert figures(found).guidance == [None, None]


def test_the_first_change_needs_what_the_job_began_with(tmp_path: Path) -> None:
    found = trajectory_of(tmp_path, [])
    assert figures(found).step == []
    file = TrajectoryFile(found.path, found.facts)
    file.append(payload(0, 2, latents=constant(1, 1, 1, 1), denoised=constant(1, 1, 1, 1)))
    file.close()
    found.refresh()
    with pytest.raises(TrajectoryError, match="What the first step began with is not in"):
        frame(found, 0, "difference")
    assert figures(found).change == [None]


# --- full pictures --------------------------------------------------------------------------------------------------


def test_full_pictures_lie_beside_the_trajectory_by_batch_picture_and_step() -> None:
    path = Path("/t/j1/batch-0002.steps")
    assert decoded_path(path, 3, 7) == Path("/t/j1/decoded/batch-0002-003-0007.png")
    assert decoded_path(path, 0, INITIAL) == Path("/t/j1/decoded/batch-0002-000-init.png")
    part = path.with_name("batch-0002-004-002.steps")  # memory has split this batch
    assert decoded_path(part, 4, 7) == Path("/t/j1/decoded/batch-0002-004-0007.png")


def test_a_full_picture_is_shown_where_it_is_there(tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 2, pictures=2))
    with pytest.raises(NotDecoded, match="Step 2 is not decoded"):
        frame(found, 1, "vae", picture=1)
    with pytest.raises(NotDecoded, match="What the job began with"):
        frame(found, INITIAL, "vae")
    path = decoded_of(found, 1, 1)
    path.parent.mkdir()
    Image.new("RGB", (24, 16), (1, 2, 3)).save(path)
    shown = frame(found, 1, "vae", picture=1)
    assert shown.shape == (16, 24, 3) and (shown == (1, 2, 3)).all()


def test_a_full_picture_that_is_damaged_is_told(tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 1))
    path = decoded_of(found, 0, 0)
    path.parent.mkdir()
    path.write_bytes(b"no picture")
    with pytest.raises(InspectedError, match=r"batch-0000-000-0000\.png cannot be read") as raised:
        frame(found, 0, "vae")
    assert not isinstance(raised.value, NotDecoded)


# --- figures --------------------------------------------------------------------------------------------------------


def test_figures_are_of_one_picture_over_all_channels(tmp_path: Path) -> None:
    found = Trajectory(write_recorded(tmp_path, 3, latents=(5, 7), pictures=2))
    told = figures(found, 1)
    latents = [found.latents(step)[1] for step in range(INITIAL, 3)]
    assert told.step == [0, 1, 2] and told.timestep == [step.timestep for step in found.steps]
    assert told.sigma == [step.ratio for step in found.steps]
    np.testing.assert_allclose(told.x_mean, [one.mean() for one in latents[1:]], rtol=1e-5)
    np.testing.assert_allclose(told.x_norm, [np.sqrt((one**2).sum()) for one in latents[1:]], rtol=1e-5)
    np.testing.assert_allclose(told.x0_std, [found.denoised(step)[1].std() for step in range(3)], rtol=1e-5)
    changes = [np.sqrt(((after - before) ** 2).sum()) for before, after in pairwise(latents)]
    np.testing.assert_allclose(told.change, changes, rtol=1e-5)
    np.testing.assert_allclose(told.guidance, [found.guidance(step)[1].mean() for step in range(3)], rtol=1e-5)
    assert told.elapsed_s == [0.05] * 3
