"""A job that was cut short goes on from its tape, and its pictures are those of the uninterrupted one, bit for bit."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from diffusers import PNDMScheduler

from sdtui.protocol import (
    ImageSaved,
    JobFinished,
    JobResumed,
    JobStarted,
    Message,
    PreviewReady,
    ResumePoint,
    StageFinished,
    StepFinished,
)
from sdtui.tape import read_tape
from sdtui.trajectory import Trajectory
from sdtui.worker import fingerprint as fingerprints
from sdtui.worker.errors import Cancelled
from sdtui.worker.models import LoadedModel
from sdtui.worker.samplers import scheduler_choices

from .desk import STEPS, Desk, after_step, same


@pytest.fixture
def desk(model: LoadedModel, tmp_path: Path) -> Desk:
    return Desk(model, tmp_path)


def all_schedulers() -> list[str]:
    return [choice.name for choice in scheduler_choices(PNDMScheduler()) if choice.missing is None]


@pytest.mark.parametrize("scheduler", all_schedulers())
def test_every_scheduler_goes_on_bit_for_bit_from_any_step(desk: Desk, scheduler: str) -> None:
    for values in ({"guidance_scale": 4.0}, {"guidance_scale": 1.0, "batch_size": 2}):
        name = f"whole-{values['guidance_scale']}"
        whole = desk.run(desk.submit(name, scheduler=scheduler, **values))
        calls, total = desk.network_calls, desk.of(StepFinished)[0].total_steps
        for cut in sorted({0, total // 2, total - 1}):
            part = f"{scheduler}-{values['guidance_scale']}-{cut}"
            stopped = desk.run(desk.submit(part, scheduler=scheduler, **values), stop="pause", at=after_step(cut))
            assert isinstance(stopped, Cancelled) and stopped.stop == "pause"
            assert (stopped.progress.batch_index, stopped.progress.steps_done, stopped.progress.paths) == (0, cut + 1, [])
            assert desk.network_calls == cut + 1
            state = torch.get_rng_state()
            resume = ResumePoint(seed=7, steps_done=cut + 1)
            resumed = desk.run(desk.submit(part, resume, scheduler=scheduler, **values))
            assert desk.network_calls == calls - (cut + 1), "recorded steps were computed again"
            assert same(whole, resumed)
            assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


@pytest.fixture
def cut(desk: Desk) -> Callable[..., Any]:
    """Pauses a job after step 2, and gives its whole run's pictures and how to resume it."""

    def make(**params: Any) -> tuple[list[str], Callable[..., Any]]:
        whole = desk.run(desk.submit("whole", **params))
        stopped = desk.run(desk.submit("cut", **params), stop="pause", at=after_step(2))
        assert isinstance(stopped, Cancelled) and isinstance(whole, list)

        def resume(steps_done: int = 3, **options: Any) -> Any:
            return desk.run(desk.submit("cut", ResumePoint(seed=7, steps_done=steps_done), **params), **options)

        return whole, resume

    return make


def test_only_steps_that_the_server_does_not_know_are_told(desk: Desk, cut: Callable[..., Any]) -> None:
    _, resume = cut(scheduler="euler_a")
    recorded = [step.elapsed_s for step in desk.of(StepFinished)]
    resume(steps_done=1)
    assert [type(event) for event in desk.events[:2]] == [JobStarted, JobResumed]
    resumed = desk.of(JobResumed)[0]
    assert (resumed.batch_index, resumed.steps_done, resumed.images_done, resumed.detail) == (0, 3, 0, "")
    steps = desk.of(StepFinished)
    assert [(step.step_index, step.replayed) for step in steps] == [(1, True), (2, True), (3, False), (4, False)]
    tape_s = [call.elapsed_s for call in read_tape(desk.directory("cut") / "batch-0000.tape")[1]]
    assert [step.elapsed_s for step in steps[:2]] == tape_s[1:3] != recorded[1:3]
    assert [preview.step_index for preview in desk.of(PreviewReady)] == [2, 3, 4], "the last one replayed shows where it is"
    assert all(step.guidance_norm for step in steps), "a replayed answer is seen like a computed one"


def test_a_preview_shows_where_a_resumed_job_is_also_when_all_its_steps_are_known(desk: Desk, cut: Callable[..., Any]) -> None:
    whole, resume = cut(scheduler="dpmpp_2m")
    assert same(whole, resume(steps_done=3))
    assert [step.step_index for step in desk.of(StepFinished)] == [3, 4]
    assert [preview.step_index for preview in desk.of(PreviewReady)] == [2, 3, 4]


@pytest.mark.parametrize("cut_bytes", [1, 40, 200])
def test_a_torn_end_costs_a_step_and_no_bit(desk: Desk, cut: Callable[..., Any], cut_bytes: int) -> None:
    whole, resume = cut(scheduler="dpm2_a")
    tape = desk.directory("cut") / "batch-0000.tape"
    os.truncate(tape, tape.stat().st_size - cut_bytes)
    assert same(whole, resume())
    assert desk.of(JobResumed)[0].steps_done == 2
    assert desk.network_calls == desk.of(StepFinished)[0].total_steps - 2


def test_a_tape_that_cannot_be_read_in_the_middle_is_computed_from_there(
    desk: Desk, cut: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdtui.worker import tape as tapes

    whole, resume = cut(scheduler="euler_a")
    real = tapes.Tape.read

    def read(self: Any, call: Any) -> bytes:
        if call.index == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, call)

    monkeypatch.setattr(tapes.Tape, "read", read)
    assert same(whole, resume())
    assert desk.network_calls == STEPS - 1
    monkeypatch.undo()
    assert len(read_tape(desk.directory("cut") / "batch-0000.tape")[1]) == STEPS


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"torch": "1.0"}, "torch was"),
        ({"weights": [["unet/x.safetensors", 1, 2]]}, "weights was"),
        ({"device_name": "AVX, 99 threads"}, "99 threads"),
    ],
)
def test_a_tape_of_other_circumstances_is_begun_anew_and_says_why(
    desk: Desk, cut: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], says: str
) -> None:
    from sdtui.worker import recording

    whole, resume = cut(scheduler="euler")
    monkeypatch.setattr(recording, "fingerprint", lambda *given: fingerprints.fingerprint(*given) | change)
    assert same(whole, resume())
    resumed = desk.of(JobResumed)[0]
    assert resumed.steps_done == 0 and says in resumed.detail
    assert [(step.step_index, step.replayed) for step in desk.of(StepFinished)] == [(index, False) for index in range(STEPS)]
    assert same(whole, desk.run(desk.submit("cut", ResumePoint(seed=7), scheduler="euler"))), "the ledger has it"


def test_the_tape_gone_is_told(desk: Desk, cut: Callable[..., Any]) -> None:
    whole, resume = cut(scheduler="euler")
    (desk.directory("cut") / "batch-0000.tape").unlink()
    assert same(whole, resume())
    assert desk.of(JobResumed)[0].detail == "The recorded steps are gone."


def test_a_job_of_several_batches_goes_on_in_the_right_one_and_saves_no_picture_twice(desk: Desk) -> None:
    params = {"scheduler": "euler_a", "batch_size": 2, "batch_count": 3}
    whole = desk.run(desk.submit("whole", **params))
    stopped = desk.run(desk.submit("cut", **params), stop="pause", at=after_step(1, batch=1))
    assert isinstance(stopped, Cancelled)
    assert (stopped.progress.batch_index, stopped.progress.steps_done, len(stopped.progress.paths)) == (1, 2, 2)
    resumed = desk.run(desk.submit("cut", ResumePoint(seed=7, batch_index=1, steps_done=2), **params))
    assert same(whole, resumed)
    assert desk.network_calls == STEPS - 2 + STEPS
    told = desk.of(JobResumed)[0]
    assert (told.batch_index, told.steps_done, told.images_done) == (1, 2, 2)
    saved = desk.of(ImageSaved)
    assert [event.image_index for event in saved] == [0, 1, 2, 3, 4, 5]
    assert [event.path for event in saved[:2]] == stopped.progress.paths
    assert len(list((desk.root / "out-cut").iterdir())) == 6


def test_a_job_that_was_whole_is_told_again_without_the_network(desk: Desk) -> None:
    submit = desk.submit(scheduler="euler", batch_count=2)
    paths = desk.run(submit)
    again = desk.run(msgspec.structs.replace(submit, resume=ResumePoint(seed=7, batch_index=1, steps_done=STEPS)))
    assert again == paths and desk.network_calls == 0
    assert [type(event) for event in desk.events] == [JobStarted, JobResumed, ImageSaved, ImageSaved, JobFinished]
    assert desk.of(JobResumed)[0].images_done == 2


def test_a_random_seed_is_not_drawn_anew(desk: Desk) -> None:
    desk.run(desk.submit("a", seed=None), stop="pause", at=after_step(1))
    seed = desk.of(JobStarted)[0].seed
    for resume in (ResumePoint(seed=seed, steps_done=2), ResumePoint(steps_done=2)):
        desk.run(desk.submit("a", resume, seed=None), stop="pause", at=after_step(2))
        assert desk.of(JobStarted)[0].seed == seed
        assert desk.of(JobResumed)[0].steps_done >= 2


def test_without_the_tape_a_resumed_job_begins_its_batch_anew_but_keeps_its_pictures(desk: Desk) -> None:
    params = {"scheduler": "euler", "batch_count": 2}
    whole = desk.run(desk.submit("whole", **params))
    stopped = desk.run(desk.submit("cut", **params), stop="pause", at=after_step(1, batch=1), record=False)
    assert isinstance(stopped, Cancelled) and (stopped.progress.batch_index, stopped.progress.steps_done) == (1, 0)
    assert not list(desk.directory("cut").glob("*.tape"))
    resumed = desk.run(desk.submit("cut", ResumePoint(seed=7, batch_index=1, steps_done=2), **params), record=False)
    assert same(whole, resumed) and desk.network_calls == STEPS
    assert "worker.tape is off" in desk.of(JobResumed)[0].detail


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], list[str]]:
    """Lets files of an ending take three records, and refuses the next one half-way; the writes that were tried."""
    from sdtui import tape as tapes

    def refuse(ending: str, error: int) -> list[str]:
        real, writes = tapes.write_all, list[str]()

        def write_all(descriptor: int, data: bytes) -> None:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            writes.extend([path] if path.endswith(ending) else [])
            if path.endswith(ending) and len(writes) > 3:
                real(descriptor, data[:50])
                raise OSError(error, os.strerror(error))
            real(descriptor, data)

        monkeypatch.setattr(tapes, "write_all", write_all)
        return writes

    return refuse


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_the_tape_harms_no_job(desk: Desk, refused: Callable[[str, int], list[str]], error: int) -> None:
    whole = desk.run(desk.submit("whole", scheduler="euler"))
    writes = refused(".tape", error)
    assert same(whole, desk.run(desk.submit("cut", scheduler="euler")))
    assert len(writes) == 4, "it went on writing"
    denoise = next(event for event in desk.of(StageFinished) if event.stage == "denoise")
    assert denoise.detail == f"{STEPS} steps, steps are not recorded: {os.strerror(error)}"
    assert len(read_tape(desk.directory("cut") / "batch-0000.tape")[1]) == 2, "the tape ends with a whole record"


def test_a_disk_that_refuses_the_trajectory_harms_neither_job_nor_tape(
    desk: Desk, refused: Callable[[str, int], list[str]]
) -> None:
    whole = desk.run(desk.submit("whole", scheduler="euler"))
    writes = refused(".steps", errno.ENOSPC)
    assert same(whole, desk.run(desk.submit("cut", scheduler="euler")))
    assert len(writes) == 4, "it went on writing"
    found = Trajectory(desk.directory("cut") / "batch-0000.steps")
    assert found.initial is not None and len(found.steps) == 1, "it ends with a whole record"
    assert len(read_tape(desk.directory("cut") / "batch-0000.tape")[1]) == STEPS


def test_a_directory_that_cannot_be_made_harms_no_job(desk: Desk, tmp_path: Path) -> None:
    from sdtui.worker.journal import open_journal

    (tmp_path / "file").write_text("")
    assert open_journal(tmp_path / "file", "j", record=True, look=lambda: None) is None


# --- ways to stop ---------------------------------------------------------------------------------------------------


def stage(name: str) -> Callable[[Message], bool]:
    return lambda event: getattr(event, "stage", "") == name and type(event).__name__ == "StageStarted"


@pytest.mark.parametrize("when", ["tokens", "embeddings", "latents"])
def test_a_pause_before_the_loop_comes_before_the_first_step(desk: Desk, when: str) -> None:
    stopped = desk.run(desk.submit(), stop="pause", at=stage(when))
    assert isinstance(stopped, Cancelled) and stopped.stop == "pause"
    assert (stopped.progress.steps_done, desk.network_calls) == (0, 0)


@pytest.mark.parametrize("stop", ["pause", "after_step", "after_image"])
@pytest.mark.parametrize("when", ["decode", "save"])
def test_a_batch_that_is_decoded_is_saved_before_the_job_stops(desk: Desk, stop: Any, when: str) -> None:
    stopped = desk.run(desk.submit("two", batch_count=2), stop=stop, at=stage(when))
    assert isinstance(stopped, Cancelled) and stopped.stop == stop
    assert (stopped.progress.batch_index, stopped.progress.steps_done, len(stopped.progress.paths)) == (1, 0, 1)
    assert desk.network_calls == desk.of(StepFinished)[0].total_steps
    assert isinstance(desk.run(desk.submit("one"), stop=stop, at=stage(when)), list), "nothing was left to stop"


def test_after_this_image_finishes_the_batch_and_begins_no_other(desk: Desk) -> None:
    stopped = desk.run(desk.submit(batch_size=2, batch_count=2), stop="after_image", at=after_step(0))
    assert isinstance(stopped, Cancelled)
    assert [Path(path).is_file() for path in stopped.progress.paths] == [True, True]
    assert {step.batch_index for step in desk.of(StepFinished)} == {0}


def test_after_this_step_keeps_the_tape(desk: Desk) -> None:
    whole = desk.run(desk.submit("whole", scheduler="heun"))
    stopped = desk.run(desk.submit("cut", scheduler="heun"), stop="after_step", at=after_step(3))
    assert isinstance(stopped, Cancelled) and (stopped.stop, stopped.progress.steps_done) == ("after_step", 4)
    assert same(whole, desk.run(desk.submit("cut", ResumePoint(seed=7, steps_done=4), scheduler="heun")))


def test_a_pause_while_replaying_keeps_every_step(desk: Desk, cut: Callable[..., Any]) -> None:
    whole, resume = cut(scheduler="unipc")
    again = resume(steps_done=0, stop="pause", at=after_step(0))
    assert isinstance(again, Cancelled) and again.progress.steps_done == 3
    assert desk.network_calls == 0
    assert same(whole, resume())


def test_of_two_wishes_the_stronger_one_counts(desk: Desk) -> None:
    from sdtui.worker.cancellation import CancelToken

    token = CancelToken()
    token.request("after_image")
    assert (token.wanted, token()) == ("after_image", False)
    for wish in ("pause", "after_image", "now", "after_step", "pause"):
        token.request(wish)  # type: ignore[arg-type]
    assert (token.wanted, token()) == ("now", True)


def test_a_seed_in_the_file_is_that_of_the_job(desk: Desk, cut: Callable[..., Any]) -> None:
    cut(scheduler="euler", batch_size=2)
    found, calls = read_tape(desk.directory("cut") / "batch-0000.tape")
    assert (found["seeds"], found["scheduler"], found["params"]["batch_size"]) == ([7, 8], "EulerDiscreteScheduler", 2)
    assert [call.step_index for call in calls] == [0, 1, 2] and [call.timestep for call in calls] == [801, 601, 401]


def test_the_networks_forward_is_as_before(desk: Desk, cut: Callable[..., Any]) -> None:
    cut(scheduler="euler")
    assert "forward" not in vars(desk.model.pipe.unet)
