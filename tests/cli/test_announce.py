"""The notice at a job's end: only where it is wanted, and only on a terminal."""

from __future__ import annotations

import os
import pty
import select
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from sdtui.bench.personalities import KITTY, PLAIN, Personality
from sdtui.cli.announce import announce
from sdtui.params import GenerationParams
from sdtui.protocol import JobCancelled, JobFailed, JobFinished, JobQueued, Message, Submit
from sdtui.settings import Notify, Terminal
from tests.cli.conftest import make_cli
from tests.cli.in_terminal import finished
from tests.cli.scripted_server import scripted_server

DONE = JobFinished(job="j", elapsed_s=12.0, images=("/p/a.png",))
Written = Callable[..., bytes]


@pytest.fixture
def written() -> Iterator[Written]:
    """What `announce` writes to a pseudo-terminal."""
    outside, inside = pty.openpty()
    tty.setraw(inside)
    os.set_blocking(outside, False)

    def call(end: Message | None, *, waited_s: float = 10.0, notify: Notify = "bell", after_s: float = 5.0) -> bytes:
        announce(end, waited_s, Terminal(notify=notify, notify_after_s=after_s), inside)
        os.write(inside, b".")
        got = b""
        while not got.endswith(b"."):  # the kernel hands it on in pieces
            readable, _, _ = select.select([outside], [], [], 10)
            assert readable, got
            got += os.read(outside, 1000)
        return got.removesuffix(b".")

    yield call
    os.close(outside)
    os.close(inside)


def test_a_bell_rings_for_a_job_that_took_long(written: Written) -> None:
    assert written(DONE) == b"\x07"
    assert written(JobFailed(job="j", message="no")) == b"\x07"


@pytest.mark.parametrize(
    "more",
    [{"notify": "off"}, {"waited_s": 4.9}, {"end": JobCancelled(job="j")}, {"end": None}],
    ids=["not wanted", "too short", "cancelled by the user", "left"],
)
def test_nothing_is_written_where_nobody_wants_to_know(written: Written, more: Mapping[str, object]) -> None:
    assert written(**{"end": DONE, **more}) == b""


def test_a_pipe_gets_no_notice() -> None:
    reading, writing = os.pipe()
    announce(DONE, 10.0, Terminal(notify="bell"), writing)
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)


@pytest.mark.parametrize(("personality", "notice"), [(KITTY, b"\x1b]99;"), (PLAIN, b"\x07")], ids=["kitty", "plain"])
def test_at_the_end_of_generate_the_notice_is_what_the_terminal_knows(
    home: Path, personality: Personality, notice: bytes
) -> None:
    def script(command: Message) -> Sequence[Message]:
        if not isinstance(command, Submit):
            return []
        queued = JobQueued(job=command.job, params=GenerationParams(prompt="x"), position=0)
        return [queued, msgspec.structs.replace(DONE, job=command.job)]

    wanted = {"SDTUI_TERMINAL_NOTIFY": "auto", "SDTUI_TERMINAL_NOTIFY_AFTER_S": "0"}
    arguments = ("generate", "x", "--no-preview", "--output", str(home / "out"))
    with scripted_server(make_cli(home).socket, script):
        with finished(personality, *arguments, environment=wanted) as (terminal, code):
            assert code == 0 and notice in terminal.output()
        with finished(personality, *arguments) as (terminal, code):
            assert code == 0 and notice not in terminal.output()
