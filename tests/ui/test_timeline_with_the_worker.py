"""The Timeline screen on the real server and worker: a running job, full pictures, a branch, a killed worker, a deleted job."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from PIL import Image, ImageChops

from sdtui.protocol import Delete
from sdtui.server.client import server_running, stop_server
from sdtui.ui.screens.timeline_branch import BranchDialog
from tests.ui.stage import Stage, stage
from tests.ui.test_timeline_jobs import compare
from tests.ui.test_with_the_server import connect
from tests.ui.timeline_jobs import notice, settled, timeline, title

DEADLINE_S = 150.0
"""torch and diffusers are imported once; on a busy machine that takes most of this."""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
async def server() -> AsyncIterator[None]:
    yield
    await stop_server()


async def until(running: Stage, condition: Callable[[], Any], what: str) -> None:
    """As the other tests wait, as long as a worker may take."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}\n{running.screen_text()}\n{running.toasts()}"
        await running.pilot.pause(0.05)


def worker_pid() -> int:
    """The process that the server started."""
    pid = server_running()
    assert pid is not None
    return next(child.pid for child in psutil.Process(pid).children() if "sdtui.worker" in " ".join(child.cmdline()))


async def test_a_job_is_scrubbed_while_it_runs_then_decoded_branched_compared_and_deleted() -> None:
    async with stage(connect=connect, size=(160, 44)) as running:
        await until(running, lambda: running.screen.model is not None, "the model")
        running.screen.form.row("num_inference_steps").text = "30"
        running.screen.form.row("seed").text = "7"
        await running.type("a red cat in the desert")
        await running.pilot.press("f5", "alt+3")
        screen = timeline(running)
        await until(running, lambda: screen.record is not None and screen.record.count > 2, "its first steps, while it runs")
        parent = screen.job
        await until(running, lambda: screen.record.complete and screen.running is None, "its end")
        assert screen.step == 29  # it was followed
        await settled(screen)
        assert notice(screen) == ""
        # scrubbing: x0 settles long before the end
        assert screen.one.seen is not None
        final = screen.one.seen.frame.rgb
        await running.pilot.press("home", "right")
        await settled(screen)
        assert screen.one.seen.frame.rgb != final
        # the full VAE at the end gives the job's own picture
        await running.pilot.press("end", "d")
        await until(running, lambda: "full VAE · 128×128" in title(screen.one), "the full picture")
        await until(running, lambda: screen.row is not None and screen.row.images, "the job's own picture")
        with Image.open(screen.row.images[0]) as saved:
            seen = screen.one.seen.frame
            difference = ImageChops.difference(saved.convert("RGB"), Image.frombytes("RGB", saved.size, seen.rgb))
            assert max(high for _, high in difference.getextrema()) <= 1
        # a branch takes over the first steps, and gives another picture
        await running.pilot.press("home", *["right"] * 6, "b")
        await until(running, lambda: isinstance(running.app.screen, BranchDialog), "the dialog")
        running.app.screen._prompt("prompt").load_text("a blue house in the desert")
        await running.pilot.press("f5")
        await until(running, lambda: screen.job not in (None, parent), "the branch")
        await until(
            running, lambda: screen.record is not None and screen.record.job != parent and screen.record.complete, "its end"
        )
        branch = screen.job
        await until(running, lambda: screen.row is not None and screen.row.branch is not None, "what it branched from")
        assert (screen.row.branch.job, screen.row.branch.step) == (parent, 6)
        lines = await compare(running)
        assert len(lines) == 1
        one, other = screen.sides()
        record, its_parent = one.record, other.record
        assert (record.trajectory.latents(5) == its_parent.trajectory.latents(5)).all()
        assert not (record.trajectory.latents(29) == its_parent.trajectory.latents(29)).all()
        await running.pilot.press("escape", "u")
        await until(running, lambda: screen.job == parent and screen.record is not None, "the parent")
        assert screen.step == 5
        # a worker that is killed while it decodes says so, and the next one decodes
        os.kill(worker_pid(), signal.SIGSTOP)
        stopped = worker_pid()
        await running.pilot.press("d")
        await until(running, lambda: "decoding with the full VAE" in title(screen.one), "it is asked for")
        os.kill(stopped, signal.SIGKILL)
        await until(running, lambda: "not decoded: " in title(screen.one), "that it came to nothing")
        await running.pilot.press("d")
        await until(running, lambda: "full VAE · 128×128" in title(screen.one), "the next worker's picture")
        # the job is deleted by somebody else
        client = await connect(name="other", subscribe=False)
        await client.send(Delete(job=str(parent)))
        await until(running, lambda: "was deleted" in screen.one.sentence, "the sentence")
        await client.close()
        await running.pilot.press("comma")
        await until(running, lambda: screen.job == branch and screen.record is not None, "the job that is left")
