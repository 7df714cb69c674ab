"""From a key press to a finished picture, with what can go wrong on the way."""

from __future__ import annotations

import os

import pytest
from textual.events import Key

from sdtui.params import GenerationParams
from sdtui.protocol import (
    Cancel,
    DownloadProgress,
    Heartbeat,
    JobFailed,
    JobRow,
    JobStarted,
    ModelFailed,
    QueueChanged,
    Refused,
    Replay,
    ServerStatus,
    Submit,
    WorkerDied,
    WorkerStage,
)
from tests.ui.scripted import ScriptedClient, opening, preview_event, step_event
from tests.ui.stage import stage, until


async def test_a_job_fills_the_log_moves_the_picture_and_finishes() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        live = running.screen.picture.query_one("#live")
        await running.type("a red cat in the desert")
        await running.pilot.press("f5")
        await until(lambda: live._cells is not None, "first preview")
        first = live._cells
        running.client.go.set()
        await running.finished()
        await until(lambda: live._cells != first, "another picture")
        log = running.log_text()
        for words in (
            "tokens      [1, 77]",
            "embeddings  [1, 77, 128]",
            "guidance    [2, 77, 128]",
            "latents     [1, 4, 16, 16]",
        ):
            assert words in log
        assert sum(line.strip().startswith(("1 ", "2 ", "20 ")) for line in log.splitlines()) >= 3
        assert "decode      [1, 3, 128, 128]" in log
        assert "done in" in running.screen.progress.text
        saved = [path for path in os.scandir(running.client.sent(Submit)[0].output_dir) if path.name.endswith(".png")]
        assert len(saved) == 1
        assert saved[0].name in str(running.screen.picture.border_subtitle)


async def test_ctrl_j_generates_while_typing_in_the_prompt() -> None:
    async with stage() as running:
        await running.type("moon")
        assert running.app.focused is running.screen.prompt
        await running.pilot.press("ctrl+j")
        await until(lambda: running.client.sent(Submit), "submit")
        assert running.client.sent(Submit)[0].params.prompt == "moon"
        assert running.screen.prompt.text == "moon"


async def test_keys_that_were_typed_just_before_are_in_the_prompt() -> None:
    async with stage() as running:
        for key in ("m", "o", "o", "n"):
            running.app.post_message(Key(key, key))
        running.app.post_message(Key("f5", None))
        await until(lambda: running.client.sent(Submit), "submit")
        assert running.client.sent(Submit)[0].params.prompt == "moon"


async def test_an_empty_prompt_is_said_at_the_prompt_and_nothing_is_sent() -> None:
    async with stage() as running:
        running.screen.steps.focus()
        await running.pilot.press("f5")
        await running.pilot.pause()
        assert running.app.focused is running.screen.prompt
        assert "Prompt is empty" in str(running.screen.help_line.content)
        assert running.client.sent(Submit) == []
        await running.type("a")
        assert running.screen.prompt.error == ""


async def test_generating_with_a_wrong_field_goes_there_and_keeps_all_text() -> None:
    async with stage() as running:
        await running.type("a cat")
        running.screen.form.row("num_inference_steps").text = "0"
        await running.pilot.press("f5")
        await running.pilot.pause()
        assert running.app.focused is running.screen.form.row("num_inference_steps").editor
        assert "from 1 to 1000" in running.screen_text()
        assert running.screen.prompt.text == "a cat"
        assert running.screen.form.text("num_inference_steps") == "0"
        assert running.client.sent(Submit) == []


async def test_cancel_stops_the_followed_job() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        await running.type("a cat")
        await running.pilot.press("f5")
        await until(lambda: "1/20" in running.screen.progress.text, "first step")
        await running.pilot.press("ctrl+x")
        await running.finished()
        assert [command.job for command in running.client.sent(Cancel)] == [running.client.sent(Submit)[0].job]
        assert "stopped in 10 ms" in running.log_text()
        assert running.screen.progress.text == "Stopped in 10 ms."


async def test_ctrl_x_cuts_text_while_there_is_nothing_to_cancel() -> None:
    async with stage() as running:
        await running.type("a cat")
        running.screen.prompt.select_all()
        await running.pilot.press("ctrl+x")
        assert running.screen.prompt.text == ""
        assert running.client.sent(Cancel) == []


async def test_a_second_job_waits_and_is_followed_when_it_starts() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        await running.type("a cat")
        await running.pilot.press("f5")
        await until(lambda: running.screen.following.started, "start")
        first = running.screen.following.job
        await running.pilot.press("f5")
        await until(lambda: len(running.client.sent(Submit)) == 2, "second submit")
        second = running.client.sent(Submit)[1]
        assert first != second.job
        await until(lambda: running.screen.following.job == second.job, "follows the newest own job that starts")


async def test_what_runs_already_is_replayed_and_shown_live() -> None:
    params = GenerationParams(prompt="elsewhere")
    row = JobRow(job="20260101-000000-aaaa", state="running", params=params, created_at=0.0)
    client = ScriptedClient(jobs=(row,))
    submit = Submit(job=row.job, params=params, output_dir="/nowhere")
    client.recorded[row.job] = [*opening(submit, 7), *(step_event(row.job, index, 20) for index in range(5))]
    async with stage(client) as running:
        await until(lambda: "5/20" in running.screen.progress.text, "replayed steps")
        assert running.client.sent(Replay) == [Replay(job=row.job)]
        client.emit(step_event(row.job, 4, 20), step_event(row.job, 5, 20), preview_event(row.job, 5, 20, 32))
        await until(lambda: "6/20" in running.screen.progress.text, "live step")
        steps = [line.split()[0] for line in running.log_text().splitlines() if line.strip()[:1].isdigit()]
        assert steps == ["1", "2", "3", "4", "5", "6"]
        await until(lambda: running.screen.picture.query_one("#live")._cells is not None, "live preview")


async def test_jobs_of_others_are_followed_only_while_nothing_of_ours_is_at_work() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        client, params = running.client, GenerationParams(prompt="theirs", seed=3)
        client.emit(JobStarted(job="theirs-1", seed=3, params=params, total_images=1))
        await until(lambda: running.screen.following.job == "theirs-1", "theirs while idle")
        await running.type("a cat")
        await running.pilot.press("f5")
        await until(lambda: running.screen.following.started and running.screen.following.job != "theirs-1", "ours")
        ours = running.screen.following.job
        client.emit(JobStarted(job="theirs-2", seed=3, params=params, total_images=1), QueueChanged(queued=3, running="theirs-2"))
        await until(lambda: "queue 3" in running.screen.header.status, "queue count")
        assert running.screen.following.job == ours


async def test_a_failed_job_says_why_and_the_next_one_runs() -> None:
    async with stage(ScriptedClient(hold=True)) as running:
        await running.type("a cat")
        await running.pilot.press("f5")
        await until(lambda: running.screen.following.started, "start")
        job = running.screen.following.job
        running.client.emit(JobFailed(job=job, message="The worker [/] was killed \x1b[31mby signal 9."))
        await running.finished()
        assert "The worker [/] was killed by signal 9." in running.log_text()
        running.client.hold = False
        await running.pilot.press("f5")
        await until(lambda: "done in" in running.screen.progress.text, "next job")


async def test_a_refusal_with_a_field_goes_to_that_field() -> None:
    async with stage() as running:
        running.client.emit(Refused(message="Width must be a multiple of 64 px.", field="width"))
        await until(lambda: running.app.focused is running.screen.form.row("width").editor, "focus")
        assert "multiple of 64" in running.screen.form.row("width").error


async def test_what_the_worker_waits_for_is_shown_with_its_seconds() -> None:
    async with stage(ScriptedClient(worker="starting")) as running:
        running.client.emit(WorkerStage(stage="torch", state="started"))
        await until(lambda: running.screen.progress.text.startswith("loading torch 0 s"), "torch")
        running.client.emit(WorkerStage(stage="diffusers", state="started"))
        await until(lambda: running.screen.progress.text.startswith("loading diffusers"), "diffusers")
        running.client.emit(DownloadProgress(model="o/n", file="unet/x.safetensors", done_bytes=50 << 20, total_bytes=100 << 20))
        await until(lambda: "x.safetensors  50 MiB of 100 MiB" in running.screen.progress.text, "download")
        running.client.emit(ModelFailed(model="o/n", message="The model [/] is broken."))
        await until(lambda: "The model [/] is broken." in running.screen_text(), "failure")


async def test_memory_and_a_dead_worker_and_the_servers_state_are_said() -> None:
    async with stage() as running:
        running.client.emit(Heartbeat(rss_bytes=2 << 30))
        await until(lambda: "2.0 GiB" in running.screen.header.status, "memory")
        running.client.emit(WorkerDied(reason="killed by signal 9", exit_code=-9, log_tail=""))
        await until(lambda: "killed by signal 9" in running.log_text(), "death")
        status = ServerStatus(
            version="0.1.0",
            pid=7,
            uptime_s=60,
            idle_s=0,
            idle_timeout_s=1800,
            clients=1,
            queued=0,
            running=None,
            worker_pid=8,
            worker="ready",
            socket="s",
            database="d",
            log="/tmp/[/]log",
        )
        running.client.emit(status)
        await until(lambda: "/tmp/[/]log" in running.screen_text(), "status")


async def test_without_a_server_the_app_opens_says_so_and_f8_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdtui.ui.feed.FIRST_WAIT_S", 600.0)
    client = ScriptedClient()
    up = False

    async def connect(**wanted: object) -> ScriptedClient:
        if not up:
            raise ConnectionError("The server [/] is not there.")
        return client

    async with stage(client, connect=connect) as running:
        await until(lambda: "The server [/] is not there." in running.screen_text(), "reason")
        assert "F8 tries now" in running.screen.progress.text
        await running.type("a cat")
        up = True
        await running.pilot.press("f8")
        await until(lambda: running.screen.model is not None, "second try")
        assert running.screen.prompt.text == "a cat"


async def test_generating_without_a_server_keeps_everything_and_says_so() -> None:
    async def connect(**wanted: object) -> ScriptedClient:
        raise ConnectionError("No server.")

    async with stage(connect=connect) as running:
        await until(lambda: "No server. Next try" in running.screen.progress.text, "reason")
        await running.type("a cat")
        await running.pilot.press("f5")
        await until(lambda: "F8 tries again" in running.screen_text(), "toast")
        assert running.screen.prompt.text == "a cat"


async def test_a_lost_server_is_found_again_and_the_job_is_taken_up() -> None:
    client = ScriptedClient(hold=True)
    async with stage(client) as running:
        await running.type("a cat")
        await running.pilot.press("f5")
        await until(lambda: "1/20" in running.screen.progress.text, "first step")
        job = running.screen.following.job
        client.drop()
        await until(lambda: running.client.sent(Replay), "reconnected")
        assert running.client.sent(Replay)[0].job == job
