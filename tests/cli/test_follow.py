"""How a job's rare ends are told, with a server that plays them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from sdtui.cli.app import main
from sdtui.cli.follow import Follower
from sdtui.params import GenerationParams
from sdtui.protocol import (
    Cancel,
    ImageSaved,
    JobCancelled,
    JobDeleted,
    JobFailed,
    JobFinished,
    JobInterrupted,
    JobPaused,
    JobQueued,
    JobResumed,
    MemoryRanOut,
    Message,
    Refused,
    Replay,
    ReplayDone,
    StorageFreed,
    StorageFull,
    Submit,
    new_job_id,
)
from tests.cli.conftest import make_cli
from tests.cli.scripted_server import Script, scripted_server, started, step, submitted

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


def test_a_server_that_always_goes_away_is_told_with_where_to_look(generate: Generate) -> None:
    code, out, err, _ = generate(lambda _: None)
    assert (code, out) == (3, "")
    assert err.count("connecting again") == 3
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
        run = asyncio.create_task(Follower(submit.job, [], submit=submit).run())
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


# --- connections that break ------------------------------------------------------------------------------------------


class Breaking:
    """Plays a job whose connection breaks in the middle; after that its record, and what came then."""

    def __init__(self, first: Sequence[Message], record: Sequence[Message], then: Sequence[Message]) -> None:
        self.first, self.record, self.then = first, record, then

    def __call__(self, command: Message) -> Sequence[Message | None]:
        if isinstance(command, Submit):
            return [*(named(message, command.job) for message in self.first), None]
        if isinstance(command, Replay):
            told = [*self.record, ReplayDone(job="j"), *self.then]
            return [named(message, command.job) for message in told]
        return []


def named(message: Message, job: str) -> Message:
    return msgspec.structs.replace(message, job=job)


def kinds(out: str) -> list[str]:
    return [json.loads(line)["type"] for line in out.splitlines()]


def steps(out: str) -> list[int]:
    return [told["step_index"] for told in map(json.loads, out.splitlines()) if told["type"] == "step_finished"]


QUEUED = JobQueued(job="j", params=GenerationParams(prompt="a cat"), position=0)
SAVED = ImageSaved(
    job="j", path="/p/cat.png", seed=7, image_index=0, width_px=8, height_px=8, size_bytes=1, elapsed_s=0.1
)  # fmt: skip
DONE = JobFinished(job="j", elapsed_s=1.0, images=("/p/cat.png",))


def test_a_broken_connection_is_made_again_and_no_event_is_printed_twice(generate: Generate) -> None:
    before = [QUEUED, started("j"), step("j", 0), step("j", 1)]
    script = Breaking(before, [*before, step("j", 2)], [step("j", 3), SAVED, DONE])
    code, out, err, commands = generate(script, "--json")
    assert code == 0
    assert [type(command) for command in commands] == [Submit, Replay]
    assert kinds(out) == ["job_queued", "job_started", *["step_finished"] * 4, "image_saved", "job_finished"]
    assert steps(out) == [0, 1, 2, 3]
    assert "The connection to the server broke; connecting again." in err


def test_steps_that_a_new_worker_takes_from_the_tape_are_not_printed_again(generate: Generate) -> None:
    before = [QUEUED, started("j"), *(step("j", index) for index in range(4))]
    lost = [QUEUED, started("j"), step("j", 0)]  # the database had not got the rest when the server was killed
    again = [
        JobInterrupted(job="j", reason="the server was killed", attempt=0, max_attempts=3),
        started("j"),
        JobResumed(job="j", batch_index=0, steps_done=3, images_done=0),
        *(step("j", index, replayed=True) for index in (1, 2)),
        step("j", 3, elapsed_s=0.06),
        step("j", 4),
    ]
    code, out, err, _ = generate(Breaking(before, lost, [*again, SAVED, SAVED, DONE]), "--json")
    assert code == 0
    assert steps(out) == [0, 1, 2, 3, 3, 4], "step 3 was computed again, so it is told again"
    assert kinds(out).count("image_saved") == 1
    assert "interrupted: the server was killed" in err and "goes on after 3 steps" in err


def test_a_job_that_the_server_never_got_is_sent_again(generate: Generate) -> None:
    submits: list[Submit] = []

    def script(command: Message) -> Sequence[Message | None]:
        if isinstance(command, Submit):
            submits.append(command)
            return [None] if len(submits) == 1 else [named(QUEUED, command.job), named(DONE, command.job)]
        assert isinstance(command, Replay)
        return [Refused(message="There is no job.", field="job", job=command.job)]

    code, _, _, commands = generate(script)
    assert code == 0
    assert submits[0] == submits[1]
    assert [type(command) for command in commands] == [Submit, Replay, Submit]


def test_a_record_that_is_gone_after_a_break_is_said(generate: Generate) -> None:
    def script(command: Message) -> Sequence[Message | None]:
        if isinstance(command, Submit):
            return [named(QUEUED, command.job), None]
        assert isinstance(command, Replay)
        return [Refused(message="There is no job.", field="job", job=command.job)]

    code, _, err, _ = generate(script)
    assert code == 3
    assert "has no record of job" in err


def test_a_job_that_somebody_deletes_ends_the_command(generate: Generate) -> None:
    code, _, err, _ = generate(
        lambda command: [named(QUEUED, command.job), JobDeleted(job=command.job)] if isinstance(command, Submit) else []
    )
    assert code == 3
    assert "was deleted" in err


async def test_a_cancellation_that_a_broken_connection_swallowed_is_sent_again(home: Path) -> None:
    def script(command: Message) -> Sequence[Message | None]:
        if isinstance(command, Submit):
            os.kill(os.getpid(), signal.SIGINT)
            return [named(QUEUED, command.job)]
        if isinstance(command, Replay):
            return [named(QUEUED, command.job), ReplayDone(job=command.job)]
        assert isinstance(command, Cancel)
        cancels.append(command)
        return [None] if len(cancels) == 1 else [JobCancelled(job=command.job, latency_s=0.006)]

    cancels: list[Cancel] = []
    submit = Submit(job=new_job_id(), params=GenerationParams(prompt="a cat"), output_dir=str(home))
    with scripted_server(make_cli(home).socket, script) as commands:
        end = await asyncio.wait_for(Follower(submit.job, [], submit=submit).run(), 20)
    assert isinstance(end, JobCancelled)
    assert [type(command) for command in commands] == [Submit, Cancel, Replay, Cancel]


# --- what is said on the way ------------------------------------------------------------------------------------------


def test_a_cancelled_job_says_how_fast_it_stopped_and_what_is_kept(generate: Generate) -> None:
    def script(command: Message) -> Sequence[Message]:
        if not isinstance(command, Submit):
            return []
        end = JobCancelled(job=command.job, latency_s=0.006, kept_steps=12, images=("/p/a.png",), detail="It had to be killed.")
        return [named(QUEUED, command.job), end]

    code, _, err, commands = generate(script)
    assert code == 130
    assert "stopped in 6.0 ms" in err and "1 picture had been finished" in err and "It had to be killed." in err
    (submit,) = commands
    assert isinstance(submit, Submit)
    assert f"12 steps are kept: sdtui queue retry {submit.job}" in err


@pytest.mark.parametrize("verbose", [True, False])
def test_what_comes_in_a_jobs_way_is_said(generate: Generate, verbose: bool) -> None:
    way = [
        JobPaused(job="j", steps_done=3, latency_s=0.2),
        JobInterrupted(job="j", reason="killed by SIGSEGV", attempt=1, max_attempts=3, log_tail="last words"),
        JobResumed(job="j", batch_index=0, steps_done=3, images_done=1),
        MemoryRanOut(job="j", batch_index=0, stage="decode", remedy="vae_tiling", message="9 GiB were asked for"),
        StorageFull(job="j", path="/p/cat.png", message="The disk of /p is full"),
        StorageFreed(job="j", path="/p/cat.png", waited_s=3.0),
        JobFinished(job="j", elapsed_s=1.0, images=("/p/cat.png",), advice="Set the batch size to 1."),
    ]
    _, _, err, _ = generate(
        lambda command: [named(message, command.job) for message in [QUEUED, *way]] if isinstance(command, Submit) else [],
        *(["--verbose"] if verbose else []),
    )
    expected = ["paused", "killed by SIGSEGV", "goes on after 3 steps", "VAE tiling", "The disk of /p is full"]
    expected += ["Set the batch size to 1."] + (["last words", "9 GiB were asked for", "1 of 3"] if verbose else [])
    assert [text for text in expected if text not in err] == []


# --- jobs that are left to themselves ---------------------------------------------------------------------------------


def test_detached_the_name_is_all_that_stdout_gets(generate: Generate) -> None:
    code, out, err, commands = generate(
        lambda command: [named(QUEUED, command.job)] if isinstance(command, Submit) else [], "--detach", "--priority", "-5"
    )
    (submit,) = commands
    assert isinstance(submit, Submit)
    assert (code, out) == (0, f"{submit.job}\n")
    assert submit.priority == -5
    assert submit.preview.method == "auto", "whoever looks at it later wants to see it"
    assert f"sdtui attach {submit.job}" in err


def test_detached_with_json_the_event_is_told_and_a_refusal_is_bad_input(generate: Generate) -> None:
    script: Script = lambda command: [named(QUEUED, command.job)] if isinstance(command, Submit) else []  # noqa: E731
    assert kinds(generate(script, "--detach", "--json")[1]) == ["job_queued"]
    full: Script = lambda command: [Refused(message="full", job=command.job)] if isinstance(command, Submit) else []  # noqa: E731
    code, out, err, _ = generate(full, "--detach", "--json")
    assert (code, kinds(out)) == (2, ["refused"])
    assert "full" in err
