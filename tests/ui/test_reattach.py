"""What a job goes through while somebody looks, and what is shown when nobody did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdtui.params import GenerationParams
from sdtui.protocol import (
    Cancel,
    GetJob,
    ImageSaved,
    JobCancelled,
    JobChanged,
    JobFailed,
    JobFinished,
    JobInterrupted,
    JobPaused,
    JobQueued,
    JobResumed,
    JobRow,
    JobStarted,
    MemoryRanOut,
    Message,
    Pause,
    PreviewReady,
    QueueChanged,
    Refused,
    Replay,
    Resume,
    StageStarted,
    StorageFreed,
    StorageFull,
    Submit,
)
from sdtui.settings import General, Settings, Terminal, state_dir
from sdtui.ui.following import Following
from sdtui.ui.own_jobs import OwnJobs
from sdtui.ui.screens.chooser import Chooser
from tests.ui.scripted import ScriptedClient, opening, preview_event, step_event
from tests.ui.scripted_queue import row
from tests.ui.stage import Stage, stage, until

JOB = "20260101-000000-aaaa"
PARAMS = GenerationParams(prompt="a red cat")
STARTED = JobStarted(job=JOB, seed=7, params=PARAMS, total_images=1)
INTERRUPTED = JobInterrupted(
    job=JOB, reason="killed by signal 9 (SIGKILL) [/].", attempt=1, max_attempts=3, log_tail="line one\nCUDA \x1b[1mgone [/]"
)


def running_row(**fields: object) -> JobRow:
    return JobRow(job=JOB, state="running", params=PARAMS, created_at=0.0, **fields)


def cut_short() -> list[Message]:
    """A job whose worker died after eight steps and which went on in the next one."""
    before = opening(Submit(job=JOB, params=PARAMS, output_dir="/nowhere"), 7)
    steps = [step_event(JOB, index, 20) for index in range(8)]
    again = [STARTED, JobResumed(job=JOB, batch_index=0, steps_done=10, images_done=0), StageStarted(job=JOB, stage="denoise")]
    told_again = [step_event(JOB, 8, 20), step_event(JOB, 9, 20)]
    return [*before, *steps, INTERRUPTED, *again, *told_again, step_event(JOB, 10, 20)]


def steps_in(running: Stage) -> list[str]:
    return [line.split()[0] for line in running.log_text().splitlines() if line.strip()[:1].isdigit()]


async def following(running: Stage) -> str:
    """An own job in its first step."""
    await running.type("a cat")
    await running.pilot.press("f5")
    await until(lambda: "1/20" in running.screen.progress.text, "first step")
    job = running.screen.following.job
    assert job is not None
    return job


# --- what befalls a job ----------------------------------------------------------------------------------------------


async def test_everything_that_befalls_a_job_is_in_its_log_and_its_status() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        job = await following(running)
        cases: list[tuple[Message, str, str]] = [
            (
                MemoryRanOut(job=job, batch_index=0, stage="decode", remedy="vae_tiling", message="CUDA [/] out of memory."),
                "CUDA [/] out of memory.",
                "trying VAE tiling",
            ),
            (
                StorageFull(job=job, path="/p", message="The disk is full: /p [/]."),
                "The disk is full: /p [/].",
                "cannot be written",
            ),
            (StorageFreed(job=job, path="/p", waited_s=12.0), "written after 12.0 s", "saving"),
            (
                JobInterrupted(job=job, reason="killed by signal 9.", attempt=1, max_attempts=3, log_tail="the last [/] line"),
                "interrupted (1 of 3): killed by signal 9;",
                "interrupted; goes on from step 1",
            ),
            (STARTED.__class__(job=job, seed=1, params=PARAMS, total_images=1), "the last [/] line", ""),
            (
                JobResumed(job=job, batch_index=0, steps_done=5, images_done=2, detail="Its tape [/] is torn."),
                "goes on from step 5, 2 pictures done",
                "goes on from step 5",
            ),
            (JobPaused(job=job, steps_done=6, latency_s=0.2), "paused after step 6, within 200 ms", "Paused. F6 goes on."),
        ]
        for event, log, status in cases:
            running.client.emit(event)
            await until(lambda log=log, status=status: status in running.screen.progress.text and log in running.log_text(), log)
        assert "Its tape [/] is torn." in running.log_text()


async def test_the_advice_of_a_finished_job_and_the_time_of_a_stop_are_said() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        job = await following(running)
        running.client.emit(JobFinished(job=job, elapsed_s=1.0, images=(), advice="Set [/] VAE tiling."))
        await until(lambda: "Set [/] VAE tiling." in running.log_text(), "advice")
        assert "Set [/] VAE tiling." in running.toasts()
        job = await following(running)
        running.client.emit(
            JobCancelled(job=job, latency_s=0.006, kept_steps=3, images=("/a",), detail="It had to be killed [/].")
        )
        await until(lambda: running.screen.progress.text == "Stopped in 6.0 ms.", "stopped")
        for words in ("stopped in 6.0 ms, 1 picture saved before", "3 steps kept", "It had to be killed [/]."):
            assert words in running.log_text()


async def test_f6_pauses_and_resumes_while_typing_and_f9_says_when_to_stop() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        job = await following(running)
        assert running.app.focused is running.screen.prompt
        await running.pilot.press("f6")
        assert running.client.sent(Pause) == [Pause(job=job)]
        running.client.emit(JobPaused(job=job, steps_done=1))
        await until(lambda: running.screen.following.paused, "paused")
        await running.pilot.press("f6")
        assert running.client.sent(Resume) == [Resume(job=job)]
        changed = JobChanged(job=job, row=JobRow(job=job, state="queued", params=PARAMS, created_at=0.0), position=0)
        running.client.emit(changed)
        await until(lambda: running.screen.progress.text.startswith("queued"), "queued")
        await running.pilot.press("f9", "enter")
        await until(lambda: running.client.sent(Cancel), "stop")
        assert running.client.sent(Cancel)[0].when == "after_image"
        assert not isinstance(running.app.screen, Chooser)


async def test_a_refused_command_does_not_end_the_job_that_it_was_about() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        job = await following(running)
        running.client.emit(Refused(message="Job [/] is not paused.", field="job", job=job))
        await until(lambda: "Job [/] is not paused." in running.toasts(), "said")
        assert running.screen.following.can_cancel


async def test_a_held_queue_is_said_to_who_waits_for_a_picture() -> None:
    async with stage(ScriptedClient()) as running:
        screen = running.screen
        screen.following.submit(JOB)
        screen.begin_following(JOB)
        running.client.emit(JobQueued(job=JOB, params=PARAMS, position=1), QueueChanged(queued=1, running=None, held=True))
        await until(lambda: "The queue is held" in screen.progress.text, "held")
        running.client.emit(QueueChanged(queued=1, running=None))
        await until(lambda: screen.progress.text.startswith("queued"), "goes on")


# --- being there again ------------------------------------------------------------------------------------------------


async def test_a_job_that_went_on_after_its_worker_died_is_shown_whole_and_once() -> None:
    client = ScriptedClient(jobs=(running_row(),))
    client.recorded[JOB] = cut_short()
    async with stage(client) as running:
        await until(lambda: "11/20" in running.screen.progress.text, "replayed")
        assert steps_in(running) == [str(number) for number in range(1, 12)]
        log = running.log_text().splitlines()
        died = next(at for at, line in enumerate(log) if line.startswith("interrupted (1 of 3): killed by signal 9"))
        assert log[died:].index("  CUDA gone [/]") < log[died:].index("goes on from step 10")
        assert client.sent(Replay) == [Replay(job=JOB)]


async def test_what_came_live_before_its_record_is_shown_once() -> None:
    client = ScriptedClient(jobs=(running_row(),))
    async with stage(client) as running:
        await until(lambda: client.sent(Replay), "asked")
        # Live events that were on their way when the record was asked for come before it, and are in it too.
        running.screen.following.follow(JOB, from_record=True)
        client.emit(STARTED, *cut_short()[-2:], *cut_short())
        await until(lambda: "11/20" in running.screen.progress.text and len(steps_in(running)) == 11, "shown")
        assert running.log_text().count("seed 7,") == 2  # once for each worker


async def test_the_newest_preview_is_shown_also_when_it_comes_before_it_is_known_what_is_followed() -> None:
    client = ScriptedClient()
    async with stage(client) as running:
        frame = preview_event(JOB, 5, 20, 32)
        assert isinstance(frame, PreviewReady)
        client.emit(frame)
        await until(lambda: running.screen.picture._latest is not None, "the frame")
        assert running.screen.picture.has_class("-empty")
        client.emit(STARTED)
        await until(lambda: not running.screen.picture.has_class("-empty"), "shown")


async def test_an_own_job_that_waits_is_kept_when_the_server_comes_back_with_another_running() -> None:
    client = ScriptedClient()
    async with stage(client) as running:
        running.screen.following.submit("mine")
        running.screen.begin_following("mine")
        client.welcome = client.welcome.__class__(
            **{name: getattr(client.welcome, name) for name in client.welcome.__struct_fields__} | {"jobs": (running_row(),)}
        )
        client.recorded["mine"] = [JobQueued(job="mine", params=PARAMS, position=1)]
        client.drop()
        await until(lambda: client.sent(Replay), "asked")
        assert client.sent(Replay) == [Replay(job="mine")]
        assert running.screen.following.job == "mine"


async def test_after_an_outage_in_which_anothers_job_ended_what_runs_now_is_followed() -> None:
    client = ScriptedClient(jobs=(running_row(),))
    client.recorded[JOB] = [JobQueued(job=JOB, params=PARAMS, position=0), STARTED]
    async with stage(client) as running:
        await until(lambda: running.screen.following.started, "theirs")
        client.recorded[JOB].append(JobFinished(job=JOB, elapsed_s=1.0, images=()))
        client.recorded["next"] = [JobQueued(job="next", params=PARAMS, position=0)]
        client.emit(QueueChanged(queued=0, running="next"))
        fields = {name: getattr(client.welcome, name) for name in client.welcome.__struct_fields__}
        client.welcome = client.welcome.__class__(**fields | {"jobs": (JobRow(**row_fields("next")),)})
        client.drop()
        await until(lambda: running.screen.following.job == "next", "what runs now")


def row_fields(job: str) -> dict[str, object]:
    return {"job": job, "state": "running", "params": PARAMS, "created_at": 0.0}


async def test_a_job_that_the_user_opened_stays_while_others_start_until_one_is_submitted() -> None:
    client = ScriptedClient(hold=True)
    done = row(6, "done")
    client.recorded[done.job] = [
        JobQueued(job=done.job, params=PARAMS, position=0),
        JobFinished(job=done.job, elapsed_s=2.0, images=()),
    ]
    async with stage(client) as running:
        running.screen.open_job(done)
        await until(lambda: running.screen.progress.text.endswith("done in 2.0 s"), "its end")
        client.emit(STARTED, step_event(JOB, 0, 20))
        await running.pilot.pause()
        assert running.screen.following.job == done.job
        await following(running)
        assert running.screen.following.job == client.sent(Submit)[0].job


async def test_a_job_whose_ui_died_is_found_again_with_its_picture(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "picture.png"
    Image.new("RGB", (16, 16), "red").save(picture)
    left = OwnJobs()
    left.add("20260101-000000-0006", "20260101-000000-0002", "20260101-000000-0099")
    os.close(left._descriptor)  # as when its process is killed
    done = row(6, "done", images=(str(picture),))
    saved = ImageSaved(
        job=done.job, path=str(picture), seed=1, image_index=0, width_px=16, height_px=16, size_bytes=9, elapsed_s=0.0
    )

    class Client(ScriptedClient):
        async def send(self, command: Message) -> None:
            await super().send(command)
            if isinstance(command, GetJob):
                known = {done.job: done, "20260101-000000-0002": row(2, "queued")}
                found = known.get(command.job)
                gone = Refused(message="There is no such job.", field="job", job=command.job)
                self.emit(gone if found is None else JobChanged(job=found.job, row=found))

    client = Client()
    client.recorded[done.job] = [
        JobQueued(job=done.job, params=PARAMS, position=0),
        saved,
        JobFinished(job=done.job, elapsed_s=3.0, images=(str(picture),)),
    ]
    async with stage(client) as running:
        await until(lambda: running.screen.progress.text == "done in 3.0 s", "its end")
        assert "1 job ended while sdtui was away: 1 done." in running.toasts()
        assert "no such job" not in running.toasts()
        assert "picture.png" in str(running.screen.picture.border_subtitle)
        assert "20260101-000000-0002" in running.screen.following.own
    assert OwnJobs().adopt() == ["20260101-000000-0002"]


async def test_a_job_is_written_down_before_the_server_has_it_and_until_its_end_was_seen() -> None:
    left: list[Path] = []

    class Client(ScriptedClient):
        async def send(self, command: Message) -> None:
            if isinstance(command, Submit):
                left.extend((state_dir() / "ui").glob("*.jobs"))  # this window might die right now
            await super().send(command)

    async with stage(Client(hold=True)) as running:
        job = await following(running)
        assert len(left) == 1
        assert left[0].read_text() == f"+{job}\n"
        running.client.emit(JobFinished(job=job, elapsed_s=1.0, images=()))
        await until(lambda: left[0].read_text() == f"+{job}\n-{job}\n", "its end")
    assert not left[0].exists()


def test_jobs_of_a_ui_that_lives_are_not_taken_from_it(tmp_path: Path) -> None:
    mine, other = OwnJobs(tmp_path), OwnJobs(tmp_path)
    mine.add("a", "b")
    mine.ended("a")
    code = f"from pathlib import Path; from sdtui.ui.own_jobs import OwnJobs; print(OwnJobs(Path({str(tmp_path)!r})).adopt())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
    mine.close()
    assert other.adopt() == ["b"]
    other.ended("b")
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_a_retried_job_starts_anew_and_its_steps_are_news_only_once() -> None:
    following = Following()
    following.follow(JOB)
    failed = JobFailed(job=JOB, message="no")
    assert [following.is_news(event) for event in (STARTED, step_event(JOB, 0, 3), failed)] == [True, True, True]
    assert following.over
    assert following.is_news(STARTED)
    assert not following.over
    assert not following.is_news(step_event(JOB, 0, 3))
    assert following.is_news(step_event(JOB, 1, 3))
    assert following.is_news(JobFinished(job=JOB, elapsed_s=1.0, images=()))


# --- notices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("took_s", "told"), [(6.0, True), (1.0, False)])
async def test_the_end_of_an_own_job_that_took_long_is_announced_through_the_driver(took_s: float, told: bool) -> None:
    settings = Settings(general=General(), terminal=Terminal(notify="osc9", notify_after_s=5.0))
    async with stage(ScriptedClient(hold=True), settings=settings) as running:
        written: list[str] = []
        running.app._driver.write = written.append
        job = await following(running)
        running.client.emit(JobFinished(job=job, elapsed_s=took_s, images=("/a", "/b")))
        await until(lambda: running.screen.following.over, "over")
        running.client.emit(JobFinished(job="theirs", elapsed_s=60.0, images=()))
        await running.pilot.pause()
        notices = [data for data in written if "\x1b]9;" in data]
        assert notices == (["\x1b]9;sdtui: 2 pictures done\x07"] if told else [])


async def test_a_failure_is_announced_without_anything_that_a_terminal_would_act_on() -> None:
    settings = Settings(general=General(), terminal=Terminal(notify="osc9", notify_after_s=0.0))
    async with stage(ScriptedClient(hold=True), settings=settings) as running:
        written: list[str] = []
        running.app._driver.write = written.append
        job = await following(running)
        running.client.emit(JobFailed(job=job, message="bad \x07\x1b]0;title\x07 end"))
        await until(lambda: running.screen.following.over, "over")
        assert [data for data in written if "\x1b]9;" in data] == ["\x1b]9;sdtui: failed: bad end\x07"]
