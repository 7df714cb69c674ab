"""How a job's rare ends are told, with a server that plays them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sdtui.cli.app import main
from sdtui.cli.follow import Follower
from sdtui.params import GenerationParams
from sdtui.protocol import Cancel, JobCancelled, JobFailed, JobQueued, Message, Refused, Replay, ReplayDone, Submit, new_job_id
from tests.cli.conftest import make_cli
from tests.cli.scripted_server import Script, scripted_server, submitted

Generate = Callable[..., tuple[int, str, str, list[Message]]]


@pytest.fixture
def generate(home: Path, capfd: pytest.CaptureFixture[str]) -> Generate:
    """Runs `sdtui generate` in this process against a script: exit code, stdout, stderr, the commands that were sent."""

    def run(script: Script, *arguments: str) -> tuple[int, str, str, list[Message]]:
        with scripted_server(make_cli(home).socket, script) as commands:
            code = main(["generate", "a cat", "--output", str(home / "out"), *arguments])
        said = capfd.readouterr()
        return code, said.out, said.err, commands

    return run


def failing(message: str, field: str | None = None) -> Script:
    return lambda command: (
        [JobFailed(job=command.job, message=message, field=field, detail="Traceback: line 1")]
        if isinstance(command, Submit)
        else []
    )


def test_a_failed_job_says_why_with_exit_code_3(generate: Generate) -> None:
    code, out, err, _ = generate(failing("The worker was killed (signal 9): out of memory.\x1b[31m"))
    assert (code, out) == (3, "")
    assert "sdtui: The worker was killed (signal 9): out of memory." in err
    assert "\x1b" not in err and "Traceback" not in err


def test_a_failure_that_an_option_caused_names_the_option_with_exit_code_2(generate: Generate) -> None:
    code, _, err, _ = generate(failing("Height must be a multiple of 8 px.", "height"))
    assert code == 2
    assert "--height: Height must be a multiple" in err


def test_with_json_the_failure_is_the_last_line(generate: Generate) -> None:
    code, out, _, _ = generate(failing("no"), "--json")
    assert code == 3
    assert json.loads(out.splitlines()[-1])["type"] == "job_failed"


def test_a_refused_job_is_bad_input(generate: Generate) -> None:
    def refuse(command: Message) -> Sequence[Message]:
        return [Refused(message="The queue is full: 1,000 jobs wait.", job=command.job)] if isinstance(command, Submit) else []

    code, out, err, _ = generate(refuse, "--json")
    assert code == 2
    assert json.loads(out.splitlines()[-1])["type"] == "refused"
    assert "The queue is full" in err


def test_a_server_that_goes_during_a_job_is_told_with_where_to_look(generate: Generate) -> None:
    code, out, err, _ = generate(lambda _: None)
    assert (code, out) == (3, "")
    assert "The server went away" in err and "sdtui jobs " in err and "sdtui server log" in err


def test_other_peoples_jobs_are_none_of_our_business(generate: Generate) -> None:
    def script(command: Message) -> Sequence[Message]:
        assert isinstance(command, Submit)
        params = GenerationParams(prompt="theirs")
        return [
            JobQueued(job="theirs", params=params, position=0),
            JobFailed(job="theirs", message="theirs failed"),
            Refused(message="theirs was refused", job="theirs"),
            JobCancelled(job=command.job),
        ]

    code, out, err, _ = generate(script, "--json")
    assert code == 130
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["job_cancelled"]
    assert "theirs" not in err


def test_options_reach_the_server_as_the_parameters_they_stand_for(generate: Generate, home: Path) -> None:
    arguments = (
        "--negative dog --steps 3 --guidance 2.5 --seed 9 --width 64 --height 72 --scheduler Euler --sigmas karras --count 2 "
    )
    arguments += "--batch-size 3 --clip-skip 1 --dtype float32 --device cpu --revision main --variant fp16 --safety-checker"
    _, _, _, commands = generate(failing("enough"), *arguments.split(), "--model", "owner/name")
    assert submitted(commands) == GenerationParams(
        prompt="a cat",
        negative_prompt="dog",
        num_inference_steps=3,
        guidance_scale=2.5,
        seed=9,
        width=64,
        height=72,
        scheduler="Euler",
        sigmas="karras",
        batch_count=2,
        batch_size=3,
        clip_skip=1,
        dtype="float32",
        device="cpu",
        revision="main",
        variant="fp16",
        safety_checker=True,
        model="owner/name",
    )
    (submit,) = (command for command in commands if isinstance(command, Submit))
    assert submit.output_dir == str(home / "out")
    assert submit.preview.method == "off"  # nobody would see them: stderr is no terminal


def test_a_relative_output_directory_is_sent_as_an_absolute_one(
    generate: Generate, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    _, _, _, commands = generate(failing("enough"), "--output", "here")
    (submit,) = (command for command in commands if isinstance(command, Submit))
    assert submit.output_dir == str(home / "here")


async def test_the_first_ctrl_c_asks_and_waits_and_the_second_leaves_at_once(home: Path) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def deaf(command: Message) -> Sequence[Message]:
        if isinstance(command, Submit):
            os.kill(os.getpid(), signal.SIGINT)
        if isinstance(command, Cancel):
            loop.call_soon_threadsafe(asked.set)
        return []

    submit = Submit(job=new_job_id(), params=GenerationParams(prompt="a cat"), output_dir=str(home))
    with scripted_server(make_cli(home).socket, deaf) as commands:
        run = asyncio.create_task(Follower(submit, []).run())
        await asyncio.wait_for(asked.wait(), 20)
        assert not run.done()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run, 20)
    assert [type(command) for command in commands] == [Submit, Cancel]


def test_the_record_of_a_job_ends_where_the_server_says_so(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def script(command: Message) -> Sequence[Message]:
        assert isinstance(command, Replay)
        return [JobFailed(job="x", message="no [/]"), JobFailed(job="other", message="not this"), ReplayDone(job="x")]

    with scripted_server(make_cli(home).socket, script):
        assert main(["jobs", "x"]) == 0
    said = capfd.readouterr()
    assert "no [/]" in said.out and "not this" not in said.out
