"""The real `python -m sdtui.worker.inspector`, and the client's end of it, over real pipes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sdtui.protocol import (
    Cancel,
    DryRunDone,
    InspectionFailed,
    MeasureWeight,
    Message,
    ModulesRead,
    ReadModules,
    ReadSource,
    RunDry,
    encode,
    read_message_blocking,
)
from sdtui.server.inspector import Inspector, InspectorError

DEADLINE_S = 150
ECHO = """
import sys
from sdtui.protocol import *
from sdtui.anatomy.structs import Component, Module
while (message := read_message_blocking(sys.stdin.buffer)) is not None:
    if message.model == "die":
        sys.stderr.write("it had a reason\\n")
        sys.stderr.flush()
        sys.exit(3)
    if message.model == "garbage":
        sys.stdout.buffer.write(b"\\x00\\x00\\x00\\x05hello")
    elif message.model == "noise":
        sys.stdout.buffer.write(encode(Status()))
        sys.stdout.buffer.write(encode(InspectionFailed(request=10_000, message="of nobody")))
        sys.stdout.buffer.write(encode(InspectionFailed(request=message.request, message="after the noise")))
    elif message.model != "hang":
        component = Component(name=message.model, modules=(Module(path=""),))
        sys.stdout.buffer.write(encode(ModulesRead(request=message.request, component=component)))
    sys.stdout.buffer.flush()
"""
"""An inspector without torch: what it is asked says how it behaves."""


class Process:
    """An inspector process whose log is a file."""

    def __init__(self, home: Path) -> None:
        self.log = home / "inspector.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sdtui.worker.inspector"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "0", "HF_HUB_OFFLINE": "0"},
            )

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def ask(self, message: Message) -> Message:
        assert self.process.stdout is not None
        self.write(encode(message))
        reply = read_message_blocking(self.process.stdout)
        assert reply is not None, self.log.read_text()[-2000:]
        return reply

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One process for all that leave it alive."""
    running = Process(tmp_path_factory.mktemp("inspector"))
    yield running
    running.process.kill()
    running.process.wait()


# --- the process ----------------------------------------------------------------------------------------------------


def test_it_answers_what_it_is_asked(process: Process, tiny_dir: Path) -> None:
    modules = process.ask(ReadModules(request=1, model=str(tiny_dir), component="unet"))
    assert isinstance(modules, ModulesRead) and modules.request == 1
    run = process.ask(RunDry(request=2, model=str(tiny_dir)))
    assert isinstance(run, DryRunDone) and run.request == 2
    assert sum(stage.parameters for stage in run.stages) > modules.component.root.total_parameters


def test_it_stands_back_behind_the_worker(process: Process, tiny_dir: Path) -> None:
    process.ask(ReadModules(request=1, model=str(tiny_dir), component="vae"))
    assert os.getpriority(os.PRIO_PROCESS, process.process.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    maps = Path(f"/proc/{process.process.pid}/maps").read_text()
    assert "/dev/nvidia" not in maps and "/dev/kfd" not in maps


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (ReadModules(request=7, model="/no/such/model", component="unet"), "/no/such/model"),
        (ReadModules(request=7, model="nobody/nothing", component="unet"), "neither a path nor a model in the hub's cache"),
        (ReadModules(request=7, model="\x1b[31m/x\x00", component="unet"), "'/x' is neither a folder"),
        (ReadModules(request=7, model="scenes-128", component=""), "no component ''"),
        (RunDry(request=7, model="scenes-128", width_px=7), "width must be a multiple of 8"),
        (MeasureWeight(request=7, model="scenes-128", component="unet", key=""), "no tensor ''"),
        (ReadSource(request=7, model="scenes-128", component="unet", path="x" * 10_000), "no module 'xxx"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(process: Process, message: Message, says: str) -> None:
    reply = process.ask(message)
    assert isinstance(reply, InspectionFailed) and reply.request == 7
    assert says in reply.message and "\n" not in reply.message and "\x1b" not in reply.message
    assert len(reply.message) < 1_000


def test_a_message_for_the_worker_is_passed_over(process: Process) -> None:
    process.write(encode(Cancel(job="x")))
    assert isinstance(process.ask(ReadModules(request=8, model="scenes-128", component="vae")), ModulesRead)


def test_an_answer_too_large_for_a_frame_is_said(process: Process, tmp_path: Path) -> None:
    from sdtui.bench.layouts import write_sparse

    names = {f"{'long' * 200}.{number}.weight": (1,) for number in range(5_000)}
    path = write_sparse(tmp_path / "strange.safetensors", names)
    reply = process.ask(ReadModules(request=9, model=str(path), component="weights"))
    assert isinstance(reply, InspectionFailed) and "too large to be sent" in reply.message


@pytest.mark.parametrize(
    ("last_words", "code", "says"),
    [
        (b"", 0, ""),
        (b"\x00\x00\x00\x05hello", 65, "MalformedFrame"),
        (b"\xff\xff\xff\xff", 65, "FrameTooLarge"),
        (b"\x00\x00", 65, "TruncatedFrame"),
    ],
    ids=["end", "garbage", "too large", "truncated"],
)
def test_it_ends_with_its_client(tmp_path: Path, last_words: bytes, code: int, says: str) -> None:
    process = Process(tmp_path)
    process.write(last_words)
    assert process.end() == code
    assert says in process.log.read_text()


def test_it_ends_in_the_middle_of_a_long_answer(tmp_path: Path) -> None:
    process = Process(tmp_path)
    for number in range(200):
        process.write(encode(RunDry(request=number, model="scenes-128", width_px=2048, height_px=2048)))
    assert process.process.stdout is not None
    assert read_message_blocking(process.process.stdout) is not None, "it is at work"
    assert process.end() == 0


# --- the client's end -----------------------------------------------------------------------------------------------


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Inspector]:
    inspector = Inspector((sys.executable, "-c", ECHO), log_path=tmp_path / "log", patience_s=DEADLINE_S)
    yield inspector
    await inspector.close()


def named(model: str) -> ReadModules:
    return ReadModules(request=0, model=model, component="")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # a process that ends has no event here
            await asyncio.sleep(0.005)


async def test_the_real_one_answers_through_it(tiny_dir: Path, tmp_path: Path) -> None:
    inspector = Inspector(log_path=tmp_path / "log", patience_s=DEADLINE_S)
    await inspector.start()
    pid = inspector.pid
    assert pid is not None
    run = await inspector.request(RunDry(request=0, model=str(tiny_dir)))
    assert run.stages
    with pytest.raises(InspectorError, match="no component"):
        await inspector.request(ReadModules(request=0, model=str(tiny_dir), component="nope"))
    source = await inspector.request(ReadSource(request=0, model=str(tiny_dir), component="unet", path="conv_in"))
    assert source.class_name == "Conv2d"
    assert inspector.pid == pid, "one process for all"
    await inspector.close()
    assert not is_alive(pid)


async def test_many_requests_get_each_their_own_answer(echo: Inspector) -> None:
    replies = await asyncio.gather(*(echo.request(named(f"m{number}")) for number in range(50)))
    assert [reply.component.name for reply in replies] == [f"m{number}" for number in range(50)]
    assert len({reply.request for reply in replies}) == 50


async def test_answers_of_nobody_are_passed_over(echo: Inspector) -> None:
    with pytest.raises(InspectorError, match="after the noise"):
        await echo.request(named("noise"))


@pytest.mark.parametrize(("model", "says"), [("die", "Its log ends with: it had a reason"), ("garbage", "what is no message")])
async def test_a_death_is_told_and_the_next_request_starts_another(echo: Inspector, model: str, says: str) -> None:
    with pytest.raises(InspectorError, match=says):
        await echo.request(named(model))
    assert (await echo.request(named("again"))).component.name == "again"


async def test_a_kill_is_told_to_all_who_wait(echo: Inspector) -> None:
    await echo.request(named("first"))
    waiting = [asyncio.create_task(echo.request(named("hang"))) for _ in range(3)]
    await until(lambda: len(echo._waiting) == 3)
    assert echo.pid is not None
    os.kill(echo.pid, signal.SIGKILL)
    for task in waiting:
        with pytest.raises(InspectorError, match="The inspector ended"):
            await task
    assert (await echo.request(named("again"))).component.name == "again"


async def test_one_that_hangs_is_ended(echo: Inspector) -> None:
    await echo.request(named("first"))
    echo._patience_s = 0.01
    pid = echo.pid
    with pytest.raises(InspectorError, match="did not answer within"):
        await echo.request(named("hang"))
    assert echo.pid is None and pid is not None
    await echo.close()
    assert not is_alive(pid)


async def test_one_that_nobody_needs_ends_by_itself(tmp_path: Path) -> None:
    inspector = Inspector((sys.executable, "-c", ECHO), log_path=tmp_path / "log", idle_s=0.05)
    await inspector.request(named("first"))
    pid = inspector.pid
    assert pid is not None
    await until(lambda: not is_alive(pid))
    assert inspector.pid is None
    assert (await inspector.request(named("again"))).component.name == "again"
    await inspector.close()


async def test_closing_ends_one_that_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdtui.server.companion._END_S", 0.05)
    deaf = "import sys, time; sys.stdin.buffer.read(1); sys.stdin.close(); time.sleep(1000)"
    inspector = Inspector((sys.executable, "-c", deaf), log_path=tmp_path / "log")
    await inspector.start()
    pid = inspector.pid
    task = asyncio.create_task(inspector.request(named("x")))
    await until(lambda: bool(inspector._waiting))
    await inspector.close()
    with pytest.raises(InspectorError, match="was ended"):
        await task
    assert pid is not None and not is_alive(pid)


async def test_one_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    inspector = Inspector((str(tmp_path / "nothing"),), log_path=tmp_path / "log")
    with pytest.raises(InspectorError, match="could not be started"):
        await inspector.request(named("x"))
    await inspector.close()


async def test_a_request_that_cannot_be_sent_is_told(echo: Inspector) -> None:
    with pytest.raises(InspectorError, match="cannot be sent"):
        await echo.request(named("\udc80"))
    assert (await echo.request(named("well"))).component.name == "well"


async def test_one_who_no_longer_waits_disturbs_nobody(echo: Inspector) -> None:
    task: asyncio.Task[Any] = asyncio.create_task(echo.request(named("gone")))
    await until(lambda: bool(echo._waiting))
    task.cancel()
    assert (await echo.request(named("here"))).component.name == "here"


def test_the_client_needs_no_torch() -> None:
    code = "import sys, sdtui.server.inspector; print(any(m.split('.')[0] in ('torch', 'diffusers') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
