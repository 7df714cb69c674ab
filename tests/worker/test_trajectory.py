"""The trajectory that a job leaves: what it holds, that it is what the log tells, and pictures of its steps by the full VAE."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from sdtui.protocol import DecodeStep, Message, StepDecoded, StepFinished, StepNotDecoded
from sdtui.timeline.views import decoded_path
from sdtui.trajectory import INITIAL, Trajectory, trajectories_of
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.decode_step import Decodings
from sdtui.worker.errors import Cancelled, JobProblem
from sdtui.worker.generate import run_job
from sdtui.worker.journal import Journal
from sdtui.worker.models import LoadedModel

from .desk import Desk, after_step, pixels


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


def trajectory_of(desk: Desk, name: str = "j1") -> Trajectory:
    return Trajectory(trajectories_of(desk.directory(name))[0])


@pytest.mark.parametrize("scheduler", ["euler_a", "heun", "dpmpp_2m", "ddim", "pndm", "lcm"])
def test_it_holds_what_the_log_tells_of_each_step(desk: Desk, scheduler: str) -> None:
    desk.run(desk.submit(scheduler=scheduler, guidance_scale=3.0))
    found, told = trajectory_of(desk), desk.of(StepFinished)
    assert found.complete and [step.timestep for step in found.steps] == [step.timestep for step in told]
    for step in told:
        for name in ("latents", "denoised"):
            values = getattr(found, name)(step.step_index)
            assert values.shape == getattr(step, name).shape
            assert float(values.mean()) == pytest.approx(getattr(step, name).mean, abs=1e-5)
            assert float(values.std()) == pytest.approx(getattr(step, name).std, abs=1e-5)
        assert found.steps[step.step_index].ratio == pytest.approx(step.sigma)


def test_x_t_is_the_x0_prediction_and_the_noise_that_the_network_saw(desk: Desk) -> None:
    desk.run(desk.submit(scheduler="euler", guidance_scale=3.0))
    found = trajectory_of(desk)
    for step in found.steps:
        x = found.latents(step.index - 1)
        mixed = step.alpha * found.denoised(step.index) + step.sigma * found.noise_pred(step.index)
        assert np.allclose(x, mixed, atol=1e-4)


def test_every_picture_of_a_batch_and_every_batch_is_there(desk: Desk) -> None:
    desk.run(desk.submit(batch_size=2, batch_count=2, seed=11))
    paths = trajectories_of(desk.directory())
    assert [Trajectory(path).facts.seeds for path in paths] == [(11, 12), (13, 14)]
    assert Trajectory(paths[1]).latents(0).shape[0] == 2


def test_a_job_that_goes_on_fills_the_steps_in(desk: Desk) -> None:
    desk.run(desk.submit("cut", scheduler="euler_a"), stop="pause", at=after_step(1))
    assert len(trajectory_of(desk, "cut").steps) == 2
    path = trajectories_of(desk.directory("cut"))[0]
    with path.open("r+b") as file:  # the end is torn, as by a power cut
        file.truncate(path.stat().st_size - 7)
    desk.run(desk.submit("cut", scheduler="euler_a"))
    desk.run(desk.submit("whole", scheduler="euler_a"))
    cut, whole = trajectory_of(desk, "cut"), trajectory_of(desk, "whole")
    assert cut.complete
    assert all(np.array_equal(cut.latents(step), whole.latents(step)) for step in range(INITIAL, whole.total))


def test_nothing_is_kept_where_steps_are_not_recorded(desk: Desk) -> None:
    desk.run(desk.submit(), record=False)
    assert not trajectories_of(desk.directory())


# --- single steps by the full VAE -----------------------------------------------------------------------------------


def decode(desk: Desk, step: int, job: str = "j1", **where: Any) -> Message:
    told: list[Message] = []
    asked = deque([DecodeStep(job=job, step_index=step, **where)])
    Decodings(desk.root / "tapes", asked, told.append).serve_all(lambda _: desk.model)
    assert not asked
    return told[0]


def test_the_last_step_is_the_saved_picture(desk: Desk) -> None:
    paths = desk.run(desk.submit(scheduler="dpmpp_2m"))
    answer = decode(desk, desk.of(StepFinished)[-1].step_index)
    assert isinstance(answer, StepDecoded)
    assert np.array_equal(np.asarray(Image.open(answer.path)), pixels(paths)[0])


def test_each_picture_of_a_batch_is_decoded_by_itself(desk: Desk) -> None:
    paths = desk.run(desk.submit(scheduler="dpmpp_2m", batch_size=2))
    for picture, saved in enumerate(pixels(paths)):
        answer = decode(desk, desk.of(StepFinished)[-1].step_index, picture=picture)
        assert isinstance(answer, StepDecoded)
        shown = np.asarray(Image.open(answer.path)).astype(int)
        assert np.abs(shown - saved).max() <= 1, "alone, not as one of two: the last bit may differ"


def test_a_step_is_the_vaes_picture_of_its_x0_prediction_and_is_made_once(desk: Desk) -> None:
    desk.run(desk.submit(scheduler="euler"))
    first, again = decode(desk, 1), decode(desk, 1)
    assert isinstance(first, StepDecoded) and isinstance(again, StepDecoded)
    assert first.elapsed_s > 0 and again.elapsed_s == 0 and first.path == again.path
    trajectory = trajectory_of(desk)
    assert first.path == str(decoded_path(trajectory.path, 0, 1))
    vae = desk.model.pipe.vae
    with torch.no_grad():
        expected = vae.decode(torch.from_numpy(trajectory.denoised(1)) / vae.config.scaling_factor).sample[0]
    values = ((expected / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(first.path)), values)
    assert isinstance(decode(desk, INITIAL), StepDecoded)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ({"step": 99}, "step 99 is not among them"),
        ({"step": 0, "job": "other"}, "not recorded, or were removed"),
        ({"step": 0, "picture": 3}, "no picture 3 in batch 0"),
        ({"step": 0, "job": "../j1"}, "cannot be a directory's name"),
    ],
)
def test_what_cannot_be_decoded_is_said(desk: Desk, where: dict[str, Any], says: str) -> None:
    desk.run(desk.submit())
    answer = decode(desk, **where)
    assert isinstance(answer, StepNotDecoded) and says in answer.message


def test_a_model_whose_weights_changed_is_not_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.run(desk.submit())
    monkeypatch.setattr("sdtui.worker.decode_step.weights", lambda _: [["unet/other.safetensors", 1, 1]])
    answer = decode(desk, 0)
    assert isinstance(answer, StepNotDecoded) and "are not those that made this job's steps" in answer.message


def test_a_model_that_cannot_be_loaded_is_said(desk: Desk) -> None:
    def refuse(_: Any) -> LoadedModel:
        raise JobProblem("No such model.", "model")

    desk.run(desk.submit())
    told: list[Message] = []
    Decodings(desk.root / "tapes", deque([DecodeStep(job="j1", step_index=0)]), told.append).serve_all(refuse)
    assert isinstance(told[0], StepNotDecoded) and told[0].message == "No such model."


def test_a_running_job_decodes_its_own_steps_and_stays_the_same(desk: Desk) -> None:
    expected = desk.run(desk.submit("plain", scheduler="euler_a"))
    submit = desk.submit("watched", scheduler="euler_a", model=desk.model.request.model)
    asked: deque[DecodeStep] = deque()
    told: list[Message] = []
    decodings = Decodings(desk.root / "tapes", asked, told.append)

    def emit(event: Message) -> None:
        told.append(event)
        if isinstance(event, StepFinished):  # asked for by another thread, while the job runs
            asking = threading.Thread(target=asked.append, args=(DecodeStep(job="watched", step_index=event.step_index),))
            asking.start()
            asking.join()

    def between(flush: Any) -> None:
        flush()
        decodings.serve_between_steps(desk.model)

    journal = Journal(desk.directory("watched"), record=True)
    try:
        paths = run_job(desk.model, submit, emit=emit, cancelled=CancelToken(), journal=journal, between_steps=between)
    finally:
        journal.close()
    answers = [event for event in told if isinstance(event, (StepDecoded, StepNotDecoded))]
    assert [answer.step_index for answer in answers if isinstance(answer, StepDecoded)] == list(range(5))
    assert all(np.array_equal(one, other) for one, other in zip(pixels(expected), pixels(paths), strict=True))


def test_what_another_model_made_waits_for_the_end_of_the_job(desk: Desk) -> None:
    desk.run(desk.submit())
    path = trajectories_of(desk.directory())[0]
    facts = Trajectory(path).facts
    other = msgspec.structs.replace(facts, params=msgspec.structs.replace(facts.params, model="/other"))
    from sdtui.trajectory import TrajectoryFile

    TrajectoryFile(path, other).close()
    asked, told = deque([DecodeStep(job="j1", step_index=0)]), list[Message]()
    Decodings(desk.root / "tapes", asked, told.append).serve_between_steps(desk.model)
    assert asked and not told


def test_a_job_that_is_cancelled_while_it_decodes_leaves_the_rest_asked(desk: Desk) -> None:
    desk.run(desk.submit(model=desk.model.request.model))
    asked, told = deque([DecodeStep(job="j1", step_index=0)]), list[Message]()

    def stop(*_: Any) -> None:
        raise Cancelled

    handle = desk.model.pipe.vae.decoder.register_forward_pre_hook(stop)
    try:
        with pytest.raises(Cancelled):
            Decodings(desk.root / "tapes", asked, told.append).serve_between_steps(desk.model)
    finally:
        handle.remove()
    assert len(asked) == 1 and not told


def test_a_decode_between_jobs_stops_for_a_job_that_is_to_stop(desk: Desk) -> None:
    desk.run(desk.submit())
    asked, told = deque([DecodeStep(job="j1", step_index=0)]), list[Message]()
    decodings = Decodings(desk.root / "tapes", asked, told.append)
    with pytest.raises(Cancelled):
        decodings.serve_all(lambda _: desk.model, lambda: True)
    assert len(asked) == 1 and not told
    decodings.serve_all(lambda _: desk.model, lambda: False)
    assert not asked and isinstance(told[0], StepDecoded)
