"""The server as a process of its own: started by whoever needs it, alone, and gone when nobody does."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

import sdtui
from sdtui import settings
from sdtui.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    Hello,
    JobFinished,
    JobInterrupted,
    Jobs,
    JobStarted,
    ListJobs,
    QueueChanged,
    StepFinished,
)
from sdtui.server import client as client_module
from sdtui.server import launch
from sdtui.server.client import Client, ServerUnavailable, read_server_log, server_running, start_server, stop_server
from sdtui.server.logfile import MAX_LOG_BYTES
from sdtui.server.queue import SERVER_DIED
from sdtui.server.schema import SCHEMA_VERSION
from tests.server.harness import DEADLINE_S, FAKE_COMMAND, asked, end_of, events_until, first, job, record_of, status, until


@pytest.fixture(autouse=True)
async def no_server_is_left(monkeypatch: pytest.MonkeyPatch, home: Path) -> AsyncIterator[None]:
    """Servers of these tests have the fake worker, and end with the test."""
    monkeypatch.setenv("SDTUI_WORKER_COMMAND", shlex.join(FAKE_COMMAND))
    yield
    for process in launch.started:  # those too that lost a race and are still on their way
        process.kill()
        process.wait()
    launch.started.clear()


async def gone(pid: int) -> None:
    """Wait until a process has ended, whether anybody has taken note of it or not."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), DEADLINE_S)
    finally:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)


def process_link(pid: int, name: str) -> str:
    return str(Path(f"/proc/{pid}/{name}").readlink())


def process_status(pid: int | None) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def subprocess_that_exits(code: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    return process


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])


def by_hand(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdtui.server"],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


async def test_the_first_client_starts_a_server_detached_from_the_terminal() -> None:
    client = await Client.connect(name="test")
    pid = client.welcome.pid
    assert pid == server_running() != os.getpid()
    assert os.getsid(pid) == pid
    log = str(settings.server_log_path())
    assert [process_link(pid, name) for name in ("cwd", "fd/0", "fd/1", "fd/2")] == ["/", "/dev/null", log, log]
    assert f"(pid {pid}) listens" in read_server_log()[0]
    await client.close()


async def test_everything_the_server_makes_is_private() -> None:
    client = await Client.connect(name="test")
    await until(settings.worker_log_path().exists)
    paths = [settings.socket_path(), settings.database_path(), settings.server_log_path(), settings.worker_log_path()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in paths} == {0o700}
    await client.close()


async def test_the_worker_keeps_the_users_umask() -> None:
    """Pictures are the user's own business; only what the server keeps is private."""
    os.umask(umask := os.umask(0o022))
    client = await Client.connect(name="test")
    worker = (await status(client)).worker_pid
    assert f"Umask:\t{umask:04o}" in process_status(worker)
    await client.close()


async def test_clients_that_race_get_one_server() -> None:
    clients = await asyncio.gather(*(Client.connect(name=f"racer {number}") for number in range(4)))
    assert len({client.welcome.pid for client in clients}) == 1
    for client in clients:
        await client.close()


async def test_when_the_other_server_of_a_race_leaves_another_one_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    loser = subprocess_that_exits(3)
    starts = iter([lambda: loser, start_server])

    def next_start() -> subprocess.Popen[bytes]:
        return next(starts)()

    monkeypatch.setattr(client_module, "start_server", next_start)
    client = await Client.connect(name="test")
    assert client.welcome.pid not in (loser.pid, os.getpid())
    await client.close()


async def test_a_second_server_says_which_one_is_first() -> None:
    client = await Client.connect(name="test")
    second = by_hand()
    assert second.returncode == 3
    assert f"A server is running already (pid {client.welcome.pid}). `sdtui server stop` ends it." in second.stderr
    assert (await status(client)).pid == client.welcome.pid
    await client.close()


async def test_without_leave_to_start_one_no_server_is_started() -> None:
    with pytest.raises(ServerUnavailable, match="No server is running"):
        await Client.connect(name="test", start=False)
    assert server_running() is None
    assert not settings.server_log_path().exists()


async def test_the_stale_socket_of_a_dead_server_is_replaced() -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(settings.socket_path()))
    client = await Client.connect(name="test")
    assert client.welcome.pid == server_running()
    await client.close()


async def test_stopping_waits_until_the_process_is_gone_and_takes_the_socket_away() -> None:
    client = await Client.connect(name="test")
    worker = (await status(client)).worker_pid
    assert worker is not None
    assert await stop_server() == client.welcome.pid
    assert server_running() is None
    assert not settings.socket_path().exists()
    await gone(worker)
    assert [message async for message in client.events() if isinstance(message, JobStarted)] == []
    assert await stop_server() is None
    await client.close()


async def test_a_server_of_another_version_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await Client.connect(name="test")
    monkeypatch.setattr(client_module, "Hello", partial(Hello, protocol=PROTOCOL_VERSION + 1))
    with pytest.raises(ServerUnavailable, match="Stop it with `sdtui server stop`"):
        await Client.connect(name="newer")
    assert await stop_server() == client.welcome.pid
    assert server_running() is None
    await client.close()


async def test_a_large_log_is_put_aside_at_the_start() -> None:
    log = settings.server_log_path()
    log.parent.mkdir(parents=True)
    log.touch()
    os.truncate(log, MAX_LOG_BYTES + 1)
    client = await Client.connect(name="test")
    assert (log.parent / "server.log.1").stat().st_size == MAX_LOG_BYTES + 1
    assert f"(pid {client.welcome.pid}) listens" in read_server_log()[0]
    await client.close()


async def test_sigterm_is_an_orderly_stop() -> None:
    process = start_server()
    await until(server_running)
    process.send_signal(signal.SIGTERM)
    await gone(process.pid)
    assert process.wait() == 0
    assert not settings.socket_path().exists()
    assert read_server_log()[-1].endswith("stopped")


async def test_the_loss_of_the_terminal_is_survived() -> None:
    client = await Client.connect(name="test")
    await client.send(job("one", "wait"))
    await first(client, JobStarted)
    os.kill(client.welcome.pid, signal.SIGHUP)
    await until(lambda: any("the work goes on" in line for line in read_server_log()))
    assert (await status(client)).running == "one"
    await client.close()


async def test_a_server_outlives_the_end_of_the_session_and_is_found_at_the_next_login(home: Path) -> None:
    """systemd removes XDG_RUNTIME_DIR at the last logout, and makes an empty one at the next login."""
    client = await Client.connect(name="test")
    await client.send(job("one", "wait"))
    await first(client, JobStarted)
    await client.close()
    shutil.rmtree(home / "run")
    (home / "run").mkdir(mode=0o700)
    again = await Client.connect(name="again")
    assert again.welcome.pid == client.welcome.pid
    assert [(row.job, row.state) for row in again.welcome.jobs] == [("one", "running")]
    await again.close()


async def test_a_server_is_found_from_a_session_with_another_runtime_directory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await Client.connect(name="test")
    (home / "other").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "other"))
    again = await Client.connect(name="again")
    assert again.welcome.pid == client.welcome.pid == server_running()
    assert await stop_server() == client.welcome.pid
    for each in (client, again):
        await each.close()


async def test_a_server_whose_database_was_taken_away_leaves() -> None:
    client = await Client.connect(name="test")
    shutil.rmtree(settings.data_dir())
    await gone(client.welcome.pid)
    assert any("is gone" in line for line in read_server_log())
    await client.close()


async def test_a_killed_server_loses_no_job(home: Path) -> None:
    client = await Client.connect(name="test")
    await client.send(job("running", "slow 200", output_dir=str(home)))
    await events_until(client, lambda message: isinstance(message, StepFinished) and message.step_index == 20)
    await client.send(job("waiting"))
    await events_until(client, lambda message: getattr(message, "job", "") == "waiting")
    os.kill(client.welcome.pid, signal.SIGKILL)
    assert [message async for message in client.events() if isinstance(message, JobFinished)] == []
    await client.close()
    again = await Client.connect(name="again")
    assert again.welcome.pid != client.welcome.pid
    assert [(row.job, row.state) for row in again.welcome.jobs] in (
        [("running", "interrupted"), ("waiting", "queued")],
        [("running", "running"), ("waiting", "queued")],
    )
    async with asyncio.timeout(DEADLINE_S):
        while [row.state for row in (await asked(again, ListJobs(), Jobs)).jobs] != ["done", "done"]:
            await first(again, QueueChanged)
    told = await record_of(again, "running")
    (cut,) = [message for message in told if isinstance(message, JobInterrupted)]
    assert cut.reason == SERVER_DIED
    steps = [message.step_index for message in told if isinstance(message, StepFinished)]
    assert steps == list(range(200)), "each step is recorded once, over both servers"
    assert (home / "running.png").read_bytes() == b"picture", "the picture is made once"
    await again.close()


async def test_a_worker_that_outlived_its_server_is_ended_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await Client.connect(name="test")
    await client.send(job("one", "deaf"))
    await first(client, JobStarted)
    worker = (await status(client)).worker_pid
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    os.kill(client.welcome.pid, signal.SIGKILL)
    assert process_status(worker) != ""
    await client.close()
    again = await Client.connect(name="again")
    await gone(worker)
    assert any(f"worker (pid {worker}) still lives and is killed" in line for line in read_server_log())
    await again.send(Cancel(job="one"))
    await again.close()


async def test_a_server_that_nobody_needs_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTUI_SERVER_IDLE_TIMEOUT_S", "1")
    client = await Client.connect(name="test")
    pid = client.welcome.pid
    await client.send(job("one"))
    await end_of(client, "one")
    await client.close()
    await gone(pid)
    assert any("nobody needed it for 1 s" in line for line in read_server_log())
    assert not settings.socket_path().exists()


async def test_a_newer_database_is_reported_by_the_client() -> None:
    path = settings.database_path()
    path.parent.mkdir(parents=True)
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ServerUnavailable) as caught:
        await Client.connect(name="test")
    assert "could not start (exit code 1)" in str(caught.value)
    assert f"has version 99; this sdtui ({sdtui.__version__}) knows versions up to {SCHEMA_VERSION}" in str(caught.value)


async def test_a_mistake_in_the_settings_is_reported_by_the_client() -> None:
    settings.settings_path().parent.mkdir(parents=True)
    settings.settings_path().write_text("[server]\nmax_client = 3\n")
    with pytest.raises(ServerUnavailable, match="did you mean 'max_clients'"):
        await Client.connect(name="test")


async def test_a_server_that_never_answers_is_reported_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "START_TIMEOUT_S", 0.2)
    log = settings.server_log_path()
    log.parent.mkdir(parents=True)
    log.write_text("something went wrong\n")
    process = sleeper()
    monkeypatch.setattr(client_module, "start_server", lambda: process)
    try:
        with pytest.raises(ServerUnavailable, match=r"did not answer within 0 s\.\nThe end of its log:\n  something went wrong"):
            await Client.connect(name="test")
    finally:
        process.kill()
        process.wait()


async def test_an_unsafe_runtime_directory_is_reported(home: Path) -> None:
    (home / "run" / "sdtui").mkdir()
    (home / "run" / "sdtui").chmod(0o755)
    with pytest.raises(ServerUnavailable, match="must be a directory of yours with mode 0700"):
        await Client.connect(name="test")
    assert by_hand().returncode == 1
    (home / "run" / "sdtui").chmod(0o700)


def test_a_client_costs_no_database_and_no_user_interface() -> None:
    """`sdtui` starts as fast as what it imports."""
    code = "import sys, sdtui.server.client; print(*sorted(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    heavy = {"sqlite3", "textual", "rich", "typer", "torch", "diffusers", "tomlkit", "numpy", "PIL"}
    assert heavy.isdisjoint(told.stdout.split())
