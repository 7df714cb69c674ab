"""The app on the real server with a small worker: two windows at once, and a server that is killed under them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sdtui.protocol import Status, Submit
from sdtui.server.client import Client, server_running, stop_server
from sdtui.ui.screens.create_jobs import follow_record
from tests.server.harness import FAKE_WORKER, job
from tests.ui.stage import Stage, stage, until

WORKER = f"{sys.executable} {FAKE_WORKER}"


async def connect(*, name: str, subscribe: bool = True, previews: bool = False) -> Client:
    return await Client.connect(name=name, subscribe=subscribe, previews=previews)


@pytest.fixture(autouse=True)
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A server of the test's own, in its own process, started by whoever connects first."""
    monkeypatch.setenv("SDTUI_WORKER_COMMAND", WORKER)
    yield
    await stop_server()


@asynccontextmanager
async def window() -> AsyncIterator[Stage]:
    """An app on the real server."""
    async with stage(connect=connect, size=(140, 36)) as running:
        await until(lambda: running.screen.model is not None, "model")
        yield running


async def submit(submission: Submit) -> None:
    client = await connect(name="test", subscribe=False)
    await client.send(submission)
    await client.send(Status())
    async for _ in client.events():
        break
    await client.close()


def table(running: Stage) -> str:
    view = running.queue.table
    return "\n".join(view.render_line(y).text for y in range(view.size.height))


async def test_two_windows_see_each_others_jobs_and_what_is_done_to_them() -> None:
    async with window() as one:
        await one.type("wait for me")
        await one.pilot.press("f5")
        await until(lambda: one.screen.following.started, "it runs")
        async with window() as other:
            await until(lambda: other.screen.following.job == one.screen.following.job, "the other window follows it")
            await until(lambda: other.screen.following.started, "with what was missed")
            await other.open_queue()
            await other.screen._submit(other.screen.read_params()[0].__class__(prompt="steps 3 from the other"))
            await one.open_queue()
            await until(lambda: "steps 3 from the other" in table(one), "one sees the other's job")
            await until(lambda: "wait for me" in table(other), "and the other way round")
            await one.pilot.press("H")
            await until(lambda: "held" in other.queue.header.status, "held is seen in both")
            await one.select_words("steps 3")
            await one.pilot.press("p")
            await until(lambda: "paused" in table(other), "paused is seen in both")
            await one.pilot.press("c")
            await until(lambda: "cancelled" in table(other), "cancelled is seen in both")
            await one.pilot.press("x", "down", "enter")
            await until(lambda: "steps 3 from the other" not in table(other), "deleted is seen in both")
            await other.select_words("wait for me")
            await other.pilot.press("c", "enter")
            await until(lambda: one.screen.following.over, "the job of the first window is stopped by the second")
            assert "stopped in" in one.log_text()


async def test_a_killed_server_is_found_again_and_the_job_goes_on_where_it_was() -> None:
    async with window() as running:
        await running.type("slow 1500")
        await running.pilot.press("f5")
        await until(lambda: running.screen.following.steps_done > 5, "some steps")
        pid = server_running()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: running.screen.following.over, "its end")
        assert "done in" in running.screen.progress.text
        log = running.log_text()
        assert "interrupted: " in log
        assert "goes on from step" in log
        steps = [int(line.split()[0]) for line in log.splitlines() if line.strip()[:1].isdigit()]
        assert steps == list(range(1, 1501))


async def test_a_window_that_is_opened_later_shows_the_whole_log_of_what_runs_and_of_what_ended() -> None:
    async with window() as first:  # brings the server up
        await submit(job("20260101-000000-done", "steps 30"))
        await until(lambda: first.screen.following.over and first.screen.following.known, "it ended")
        await submit(job("20260101-000000-runs", "wait"))
        await until(lambda: first.screen.following.job == "20260101-000000-runs", "the next runs")
    async with window() as later:
        await until(lambda: later.screen.following.job == "20260101-000000-runs", "what runs")
        await until(lambda: "seed 7" in later.log_text(), "from its beginning")
        await until(lambda: not later.screen.picture.has_class("-empty"), "and its last preview")
        follow_record(later.screen, "20260101-000000-done", pinned=True)
        await until(lambda: "done in" in later.screen.progress.text, "what ended")
        assert len([line for line in later.log_text().splitlines() if line.strip()[:1].isdigit()]) == 30
