"""The user interface and the commands are killed, or lose their terminal: the job goes on, and the next client sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from sdtui.bench.terminal import Terminal
from sdtui.protocol import Jobs, ListJobs
from sdtui.server.client import Client, server_running
from tests.faults.house import DEADLINE_S, House, pixels_of
from tests.server.harness import asked

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("faults-client")]
REPOSITORY = str(Path(__file__).parents[2])


def environment(house: House) -> dict[str, str]:
    paths = os.pathsep.join((REPOSITORY, os.environ["PYTHONPATH"]))
    return {"SDTUI_GENERAL_OUTPUT_DIR": str(house.pictures), "PYTHONPATH": paths, "SDTUI_GENERAL_NAME_PATTERN": "{job}-{seed}"}


def generating(house: House, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sdtui", "generate", "a red cat", "--output", str(house.pictures), *arguments]
    return subprocess.Popen(command, env={**os.environ, **environment(house)}, stdout=subprocess.DEVNULL)


async def names_once_begun(many: int = 1) -> list[str]:
    """The jobs there are, as soon as there are so many; a client of our own asks."""
    client = await Client.connect(name="looker")
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                rows = (await asked(client, ListJobs(), Jobs)).jobs
                if len(rows) >= many:
                    return [row.job for row in rows]
                await asyncio.sleep(0.02)
    finally:
        await client.close()


async def check_that_they_end(house: House, names: Iterable[str]) -> None:
    house.acknowledged |= set(names)
    server = server_running()
    rows = await house.run([house.job(name) for name in names])
    assert server_running() == server, "the server does not care"
    for name in names:
        assert rows[name].state == "done", (rows[name], house.logs())
        (path,) = house.files_of(name)
        assert rows[name].images == (str(path),)
        pixels_of(path)


@pytest.mark.parametrize("how", ["SIGKILL", "hang-up"])
async def test_a_user_interface_that_dies_leaves_its_job_to_the_next_client(house: House, how: str) -> None:
    with Terminal([sys.executable, "-m", "sdtui"], environment=environment(house)) as terminal:
        terminal.wait_for("Prompt", DEADLINE_S)
        terminal.type("a blue boat on the sea")
        terminal.wait_until(lambda screen: "a blue boat on the sea" in screen.text(), "the prompt", DEADLINE_S)
        terminal.type("\x1b[15~")  # F5
        (name,) = await names_once_begun()
        if how == "SIGKILL":
            os.killpg(terminal.process.pid, signal.SIGKILL)
        else:
            terminal.close()
        terminal.process.wait(DEADLINE_S)
        await check_that_they_end(house, [name])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP], ids=["SIGKILL", "SIGHUP"])
async def test_a_killed_generate_leaves_its_job_to_the_next_client(house: House, how: int) -> None:
    process = generating(house, "--steps", "30")
    (name,) = await names_once_begun()
    process.send_signal(how)
    process.wait(DEADLINE_S)
    await check_that_they_end(house, [name])


async def test_two_clients_die_and_a_third_sees_what_both_asked_for(house: House) -> None:
    processes = [generating(house), generating(house)]
    names = await names_once_begun(2)
    for process in processes:
        process.kill()
        process.wait(DEADLINE_S)
    await check_that_they_end(house, names)
