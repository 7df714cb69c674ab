"""Jobs that are left and come back to, with a real server and a small worker: lost connections, dead servers, hang-ups."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdtui.bench.terminal import Terminal
from sdtui.params import GenerationParams
from sdtui.protocol import JobQueued, Submit
from sdtui.server.client import Client
from tests.cli.conftest import TIMEOUT_S, Cli, make_cli
from tests.server.harness import FAKE_COMMAND


@pytest.fixture
def served() -> Iterator[Cli]:
    """A command line whose server starts the small worker."""
    home = Path(tempfile.mkdtemp(prefix="sdtui-l-"))
    cli = make_cli(home)
    repository = str(Path(__file__).parents[2])
    cli.environment |= {"SDTUI_WORKER_COMMAND": shlex.join(FAKE_COMMAND), "PYTHONPATH": repository}
    yield cli
    cli.run("server", "stop")
    shutil.rmtree(home, ignore_errors=True)


def detached(cli: Cli, prompt: str, *arguments: str) -> str:
    done = cli.run("generate", prompt, "--detach", "--output", str(cli.home / "out"), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def told(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def until(process: subprocess.Popen[str], text: str) -> str:
    """What it writes to stderr up to the line that holds `text`; it is ended where that line never comes."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} did not come: {''.join(lines)}")


def server_pid(cli: Cli) -> int:
    return int(json.loads(cli.run("server", "status", "--json").stdout)["pid"])


def state_of(cli: Cli, job: str) -> str:
    return next(row["state"] for row in told(cli.run("jobs", "--json").stdout) if row["job"] == job)


def test_a_detached_job_is_shown_from_its_beginning_when_somebody_comes_back(served: Cli) -> None:
    job = detached(served, "wait a moment")
    with served.start("attach", "--verbose") as process:
        said = until(process, "start ")
        assert f"job         {job}" in said
        assert served.run("queue", "cancel", job, "--when", "after-step").returncode == 0
        assert "stopped in" in until(process, "stopped in")
        assert process.wait(TIMEOUT_S) == 130
    assert state_of(served, job) == "cancelled"
    again = served.run("attach", job)
    assert again.returncode == 130 and "stopped in" in again.stderr


def test_ctrl_c_on_attach_leaves_and_the_job_goes_on(served: Cli) -> None:
    job = detached(served, "wait")
    with served.start("attach", job, "-v") as process:
        until(process, "start ")
        process.send_signal(signal.SIGINT)
        assert f"job {job} goes on" in until(process, "goes on")
        assert process.wait(TIMEOUT_S) == 130
    assert state_of(served, job) == "running"


def test_a_server_that_is_killed_costs_generate_a_line_and_the_job_nothing(served: Cli) -> None:
    served.run("server", "start")
    pid = server_pid(served)
    with served.start("generate", "slow 600", "--json", "--output", str(served.home / "out")) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if json.loads(line).get("step_index") == 150:  # the beginning is in the database by then
                break
        os.kill(pid, signal.SIGKILL)
        lines += process.stdout
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 0, said
        assert "connecting again" in said
    events = [json.loads(line) for line in lines]
    steps = [event["step_index"] for event in events if event["type"] == "step_finished"]
    assert sorted(set(steps)) == list(range(600)), "each step was told"
    assert [event["type"] for event in events].count("image_saved") == 1
    assert events[-1]["type"] == "job_finished"


def test_a_hang_up_ends_the_command_and_not_the_job(served: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "sdtui", "generate", "wait", "--no-preview", "-v"]
    with Terminal(command, environment={"LC_ALL": "C.UTF-8"}) as terminal:
        terminal.wait_for("start ", TIMEOUT_S)
        os.kill(terminal.process.pid, signal.SIGHUP)
        terminal.process.wait(TIMEOUT_S)
    (row,) = told(served.run("jobs", "--json").stdout)
    assert row["state"] == "running"
    assert served.run("queue", "cancel", row["job"]).returncode == 0


def test_a_terminal_that_vanishes_without_a_hang_up_ends_the_command_too(served: Cli) -> None:
    job = detached(served, "slow 9000")
    outside, inside = pty.openpty()
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-m", "sdtui", "attach", job, "-v"]
    process = subprocess.Popen(
        command, env=served.environment | {"TERM": "xterm-256color"}, stdin=inside, stdout=inside, stderr=inside
    )
    os.close(inside)
    shown = b""
    while b"start " not in shown:
        shown += os.read(outside, 10_000)
    os.close(outside)
    assert process.wait(TIMEOUT_S) == 141
    assert state_of(served, job) == "running"


def test_the_queue_is_changed_and_shown_as_it_is_then(served: Cli) -> None:
    running, first, second = (detached(served, f"wait {name}") for name in "abc")
    assert served.run("queue", "move", second, "first").returncode == 0
    assert served.run("queue", "edit", first, "--prompt", "wait longer", "--steps", "9").returncode == 0
    rows = told(served.run("jobs", "--queue", "--json").stdout)
    assert [row["job"] for row in rows] == [running, second, first]
    assert (rows[2]["params"]["prompt"], rows[2]["params"]["num_inference_steps"]) == ("wait longer", 9)
    copy = served.run("queue", "duplicate", first).stdout.strip()
    assert served.run("queue", "priority", copy, "-3").returncode == 0
    assert served.run("queue", "hold").returncode == 0
    assert served.run("queue", "pause", running, second).returncode == 0
    assert state_of(served, running) == "paused"
    nothing = served.run("attach")
    assert nothing.returncode == 3 and "the queue is held" in nothing.stderr
    assert served.run("queue", "cancel-all").stderr == "2 jobs cancelled.\n"
    assert served.run("queue", "retry", first, "--json").returncode == 0
    refused = served.run("queue", "delete", first)
    assert refused.returncode == 2 and first in refused.stderr
    assert served.run("queue", "clear").stderr.startswith("1 job forgotten")
    left = {row["job"] for row in told(served.run("jobs", "--json").stdout)}
    assert left == {running, second, first}


def test_watching_in_a_pipe_tells_each_change_in_a_line_and_outlives_the_server(served: Cli) -> None:
    job = detached(served, "wait")
    with served.start("jobs", "--watch") as process:
        assert process.stdout is not None
        seen = next(line for line in process.stdout if "running" in line)
        assert job in seen
        served.run("queue", "pause", job)
        assert job in next(line for line in process.stdout if "paused" in line)
        served.run("server", "stop")
        until(process, "waiting for another one")
        second = detached(served, "steps 2")
        assert any(second in line and "done" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0


def test_watching_with_json_tells_events(served: Cli) -> None:
    detached(served, "wait")
    with served.start("jobs", "--watch", "--json") as process:
        assert process.stdout is not None
        assert next(event for line in process.stdout if (event := json.loads(line))["type"] == "jobs")
        job = detached(served, "steps 2")
        assert any(json.loads(line)["type"] == "job_queued" and job in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)


async def submit_many(count: int, output: Path) -> None:
    """Over one connection, as thirty commands would take their time."""
    client = await Client.connect(name="test", subscribe=False, start=False)
    for number in range(count):
        params = GenerationParams(prompt=f"wait [/] {number}")
        await client.send(Submit(job=f"job-{number}", params=params, output_dir=str(output)))
    queued = 0
    async for message in client.events():
        queued += isinstance(message, JobQueued)
        if queued == count:
            break
    await client.close()


def test_watching_on_a_terminal_is_a_table_that_stays_current(served: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    job = detached(served, "wait for it")
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "sdtui", "jobs", "--watch"]
    with Terminal(command, environment={"LC_ALL": "C.UTF-8"}, columns=120, rows=20) as terminal:
        terminal.wait_until(lambda screen: job in screen.text() and "1 job runs" in screen.text(), "the running job")
        served.run("queue", "pause", job)
        terminal.wait_until(lambda screen: "1 paused" in screen.text() and "paused" in screen.text(), "the paused job")
        asyncio.run(submit_many(30, served.home))
        terminal.wait_until(lambda screen: "more that wait" in screen.text() and "wait [/] 1" in screen.text(), "a cut list")
        terminal.type("\x03")
        assert terminal.wait_for_end(TIMEOUT_S) == 0
