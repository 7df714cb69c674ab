"""The real `python -m sdtui.worker.explainer`, through the client's end of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from sdtui.metadata import read_png
from sdtui.params import GenerationParams
from sdtui.protocol import (
    Advance,
    ExplainerReply,
    ExplainingFailed,
    ExplainingStarted,
    LinesRan,
    Message,
    ReadModules,
    SaveExplained,
    StartExplaining,
    encode,
    read_message_blocking,
)
from sdtui.server.explainer import Explainer, ExplainerError
from tests.worker.test_bit_identity import STEPS, plain

DEADLINE_S = 150


class Process:
    """An explainer process whose log is a file."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.log = home / "explainer.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sdtui.worker.explainer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | environment,
            )

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self) -> Message:
        assert self.process.stdout is not None
        reply = read_message_blocking(self.process.stdout)
        assert reply is not None, self.log.read_text()[-2000:]
        return reply

    def ask(self, message: Message) -> Any:
        self.write(encode(message))
        return self.read()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(DEADLINE_S)


def params(tiny_dir: Path, **changes: Any) -> GenerationParams:
    values = {"prompt": "a red cat", "negative_prompt": "moon", "model": str(tiny_dir), "seed": 7, "num_inference_steps": STEPS}
    return GenerationParams(**(values | changes))


def start(tiny_dir: Path, number: int = 1, **changes: Any) -> StartExplaining:
    return StartExplaining(request=number, params=params(tiny_dir, **changes))


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One process for all that leave it alive."""
    home = tmp_path_factory.mktemp("explainer")
    (home / "config" / "sdtui").mkdir(parents=True)
    (home / "config" / "sdtui" / "settings.toml").write_text("[worker]\nthreads = 1\n")  # as the bits of the tests' own run
    names = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
    running = Process(home, **names)
    yield running
    running.process.kill()
    running.process.wait()


def to_the_end(process: Process, **more: Any) -> LinesRan:
    while True:
        reply = process.ask(Advance(request=2, to="end", **more))
        assert isinstance(reply, LinesRan)
        if reply.stopped:
            return reply


# --- the process ----------------------------------------------------------------------------------------------------


def test_it_explains_and_saves_the_pipeline_s_own_picture(
    process: Process, tiny_dir: Path, plain_pipe: Any, tmp_path: Path
) -> None:
    _, (expected,) = plain(plain_pipe, "euler_a", "default", [7], 4.0)
    started = process.ask(start(tiny_dir, scheduler="euler_a"))
    assert isinstance(started, ExplainingStarted), started
    assert (started.function, started.file) == ("text_to_image", "sdtui/scratch/text_to_image.py")
    assert started.source.splitlines()[started.next_line - started.first_line].lstrip().startswith("tokenizer, ")
    assert started.given["prompt"] == "'a red cat'" and started.given["generator"] == "a generator on cpu, seed 7"
    assert (started.params.width, started.params.scheduler, started.device, started.dtype) == (64, "euler_a", "cpu", "float32")
    assert set(started.notes) == set(started.lines) and started.total_steps == STEPS
    early = process.ask(SaveExplained(request=2, path=str(tmp_path / "early.png")))
    assert isinstance(early, ExplainingFailed) and "no picture yet" in early.message
    ran = to_the_end(process)
    assert ran.finished and ran.picture is not None
    assert ran.picture.rgb == np.asarray(expected).tobytes()
    paths = [process.ask(SaveExplained(request=3, path=str(tmp_path / "a {cat}.png"))).path for _ in range(2)]
    assert [Path(path).name for path in paths] == ["a_{cat}.png", "a_{cat}-2.png"]
    assert np.array_equal(np.asarray(Image.open(paths[0])), np.asarray(expected))
    record = read_png(Path(paths[0])).record
    assert record is not None and record.params == started.params and record.inexact == ()


def test_what_was_changed_on_the_way_is_in_the_record(process: Process, tiny_dir: Path, tmp_path: Path) -> None:
    process.ask(start(tiny_dir))
    process.ask(Advance(request=2, to="stage"))
    to_the_end(process, guidance_scale=9.0)
    saved = process.ask(SaveExplained(request=3, path=str(tmp_path / "x.png")))
    record = read_png(Path(saved.path)).record
    assert record is not None and record.inexact == ("guidance changed to 9 before the first step",)


def test_it_stands_back_behind_the_terminal(process: Process, tiny_dir: Path) -> None:
    process.ask(start(tiny_dir))
    assert os.getpriority(os.PRIO_PROCESS, process.process.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"model": "/no/such/model"}, "model", "does not exist"),
        ({"model": "nobody/nothing"}, "model", "nobody/nothing"),
        ({"width": 66}, "width", "must be a multiple of 8"),
        ({"num_inference_steps": 0}, "num_inference_steps", "from 1 to 1000"),
        ({"scheduler": "lcm", "num_inference_steps": 51}, "num_inference_steps", "at most 50"),
        ({"batch_count": 2}, "batch_count", "Batch count must be 1 in explain mode"),
        ({"batch_size": 2}, "batch_size", "Batch size must be 1 in explain mode"),
        ({"clip_skip": 1}, "clip_skip", "Clip skip must be 0 in explain mode"),
        ({"safety_checker": True}, "safety_checker", "must be off"),
        ({"device": "cuda:99"}, "device", "cuda:99"),
        ({"init_image": "/no/such/picture.png"}, "init_image", "/no/such/picture.png"),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_are_named(
    process: Process, tiny_dir: Path, changes: dict[str, Any], field: str, says: str
) -> None:
    reply = process.ask(start(tiny_dir, 7, **changes))
    assert isinstance(reply, ExplainingFailed) and (reply.request, reply.field) == (7, field), reply
    assert says in reply.message and "\n" not in reply.message
    after = process.ask(Advance(request=8))
    assert isinstance(after, ExplainingFailed) and "Nothing is explained" in after.message, (
        "the run before is dropped all the same"
    )


@pytest.mark.parametrize("path", ["x.png", "/x.jpg", "", "/no/such/dir\x1b[31m/x"])
def test_a_path_that_is_none_is_told(process: Process, tiny_dir: Path, path: str) -> None:
    process.ask(start(tiny_dir))
    to_the_end(process)
    reply = process.ask(SaveExplained(request=9, path=path))
    assert isinstance(reply, ExplainingFailed) and reply.field == "path" and "\x1b" not in reply.message


def test_a_directory_that_cannot_be_written_is_told(process: Process, tiny_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process.ask(start(tiny_dir))
    to_the_end(process)
    reply = process.ask(SaveExplained(request=9, path=str(tmp_path / "file" / "x.png")))
    assert isinstance(reply, ExplainingFailed) and "is not a directory" in reply.message


def test_a_new_run_drops_the_one_before_wherever_it_is(process: Process, tiny_dir: Path) -> None:
    assert isinstance(process.ask(start(tiny_dir, 1, num_inference_steps=500)), ExplainingStarted)
    messages = [*(Advance(request=number, to="end") for number in range(2, 40)), start(tiny_dir, 40, num_inference_steps=1)]
    process.write(b"".join(encode(message) for message in [*messages, Advance(request=41)]))
    replies = [process.read() for _ in range(2, 42)]
    assert [reply.request for reply in replies if isinstance(reply, ExplainerReply)] == list(range(2, 42)), "each is answered"
    *old, started, ran = replies
    dropped = [reply for reply in old if isinstance(reply, ExplainingFailed)]
    assert dropped and "was dropped" in dropped[0].message
    assert len(old) - len(dropped) <= 3, "it does not go on to its end"
    assert isinstance(started, ExplainingStarted) and started.total_steps == 1
    assert isinstance(ran, LinesRan) and ran.lines[0].line == started.next_line


def test_another_family_is_refused_before_its_weights_are_read(process: Process, tmp_path: Path) -> None:
    from tests.worker.test_other_families import build_xl

    build_xl(tmp_path).save_pretrained(tmp_path / "tiny-xl")
    for weights in (tmp_path / "tiny-xl").rglob("*.safetensors"):
        header = weights.read_bytes()[:8]
        length = 8 + int.from_bytes(header, "little")
        data = weights.read_bytes()
        weights.write_bytes(data[:length] + bytes(len(data) - length))  # reading them would not fail, but show
    reply = process.ask(start(tmp_path / "tiny-xl"))
    assert isinstance(reply, ExplainingFailed) and reply.field == "model"
    assert "shaped like Stable Diffusion 1.x and 2.x; this model has a text_encoder_2 besides" in reply.message


def test_a_message_for_the_inspector_is_passed_over(process: Process, tiny_dir: Path) -> None:
    process.write(encode(ReadModules(request=1, model="scenes-128", component="unet")))
    assert isinstance(process.ask(start(tiny_dir)), ExplainingStarted)


@pytest.mark.parametrize(("last_words", "code"), [(b"", 0), (b"\x00\x00\x00\x05hello", 65)], ids=["end", "garbage"])
def test_it_ends_with_its_client(tmp_path: Path, last_words: bytes, code: int) -> None:
    process = Process(tmp_path)
    process.write(last_words)
    assert process.end() == code


def test_it_ends_in_the_middle_of_a_run(tmp_path: Path) -> None:
    process = Process(tmp_path)
    long = StartExplaining(request=1, params=GenerationParams(prompt="a red cat", num_inference_steps=1000))
    assert isinstance(process.ask(long), ExplainingStarted)
    process.write(b"".join(encode(Advance(request=number, to="end")) for number in range(2, 500)))
    assert isinstance(process.read(), LinesRan), "it is at work"
    assert process.end() == 0


def test_settings_that_cannot_be_read_are_in_its_log(tmp_path: Path) -> None:
    (tmp_path / "sdtui").mkdir()
    (tmp_path / "sdtui" / "settings.toml").write_text("[worker]\nthreads = -1\n")
    process = Process(tmp_path, XDG_CONFIG_HOME=str(tmp_path))
    assert process.end() == 2 and "threads" in process.log.read_text()


# --- the client's end -----------------------------------------------------------------------------------------------


@pytest.fixture
async def explainer(tmp_path: Path) -> AsyncIterator[Explainer]:
    end = Explainer(log_path=tmp_path / "log", patience_s=DEADLINE_S)
    yield end
    await end.close()


async def test_the_client_s_end_goes_on_after_a_death(explainer: Explainer, tiny_dir: Path) -> None:
    request = StartExplaining(request=0, params=params(tiny_dir))
    started = await explainer.request(request)
    ran = await explainer.request(Advance(request=0, to="stage"))
    assert ran.stopped and ran.lines[0].line == started.next_line
    with pytest.raises(ExplainerError, match="Guidance must be from 0 to 50") as refused:
        await explainer.request(Advance(request=0, guidance_scale=1e9))
    assert refused.value.field == "guidance_scale"
    assert explainer.pid is not None
    os.kill(explainer.pid, 9)
    with pytest.raises(ExplainerError, match=r"The explainer (ended|was ended)|Nothing is explained"):
        while True:
            await explainer.request(Advance(request=0))
            await asyncio.sleep(0)
    again = await explainer.request(request)
    assert msgspec.structs.replace(again, request=started.request) == started


async def test_what_answers_nothing_is_handed_on(tmp_path: Path) -> None:
    code = """
import sys
from sdtui.protocol import *
while (message := read_message_blocking(sys.stdin.buffer)) is not None:
    sys.stdout.buffer.write(encode(DownloadProgress(model="m", file="f", done_bytes=1, total_bytes=2)))
    sys.stdout.buffer.write(encode(ExplainingFailed(request=message.request, message="no", field="x", line=3, detail="d")))
    sys.stdout.buffer.flush()
"""
    told: list[Message] = []
    explainer = Explainer((sys.executable, "-c", code), log_path=tmp_path / "log", on_message=told.append)
    with pytest.raises(ExplainerError, match="no") as error:
        await explainer.request(Advance(request=0))
    assert (error.value.field, error.value.line, error.value.detail) == ("x", 3, "d")
    assert [type(message).__name__ for message in told] == ["DownloadProgress"]
    await explainer.close()
