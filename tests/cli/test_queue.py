"""The commands of `sdtui queue` and the lists of `sdtui jobs`, against a server that is scripted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from sdtui.cli.app import main
from sdtui.params import GenerationParams
from sdtui.protocol import (
    Cancel,
    CancelWaiting,
    Delete,
    DeleteEnded,
    Duplicate,
    Edit,
    EndedDeleted,
    GetJob,
    Hold,
    JobCancelled,
    JobChanged,
    JobDeleted,
    JobFinished,
    JobPaused,
    JobRow,
    Jobs,
    ListJobs,
    Message,
    Move,
    Pause,
    QueueChanged,
    Refused,
    Resume,
    Retry,
    SetPriority,
    WaitingCancelled,
)
from tests.cli.conftest import make_cli
from tests.cli.scripted_server import IDLE, Script, row, scripted_server

Run = Callable[..., tuple[int, str, str, list[Message]]]


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process against a script: exit code, stdout, stderr, the commands that were sent."""

    def call(script: Script, *arguments: str) -> tuple[int, str, str, list[Message]]:
        with scripted_server(make_cli(home).socket, script, IDLE) as commands:
            code = main(arguments)
        said = capfd.readouterr()
        return code, said.out, said.err, commands

    return call


def changed(state: str = "queued", **more: object) -> JobChanged:
    return JobChanged(job="j", row=row("j", state, **more), position=2 if state == "queued" else None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "command", "answer", "said"),
    [
        ("pause j", Pause(job="j"), JobPaused(job="j", steps_done=7, latency_s=0.5), "paused within 500 ms, 7 steps kept."),
        ("pause j", Pause(job="j"), changed("paused"), "Job j is paused."),
        ("resume j", Resume(job="j"), changed(), "Job j is queued, 2 jobs before it."),
        ("cancel j", Cancel(job="j"), JobCancelled(job="j", latency_s=0.006), "stopped in 6.0 ms"),
        ("cancel j --when after-image", Cancel(job="j", when="after_image"), JobCancelled(job="j"), "before it had begun"),
        ("cancel j --when after-step", Cancel(job="j", when="after_step"), JobCancelled(job="j", kept_steps=3), "queue retry j"),
        ("retry j", Retry(job="j"), changed(), "Job j is queued"),
        ("move j first", Move(job="j", to="first"), changed(), "2 jobs before it"),
        ("priority j -5", SetPriority(job="j", priority=-5), changed(priority=-5), "priority -5"),
        ("hold", Hold(on=True), QueueChanged(queued=3, running=None, held=True), "3 waiting, held: sdtui queue go-on"),
        ("go-on", Hold(on=False), QueueChanged(queued=3, running="j"), "1 job runs, 3 waiting."),
        ("delete j", Delete(job="j"), JobDeleted(job="j"), "Job j is forgotten; its pictures stay."),
        ("clear", DeleteEnded(), EndedDeleted(count=4), "4 jobs forgotten"),
        ("clear --older-than 7d", DeleteEnded(older_than_s=604_800.0), EndedDeleted(count=1), "1 job forgotten"),
        ("cancel-all", CancelWaiting(), WaitingCancelled(count=9), "9 jobs cancelled."),
    ],
)  # fmt: skip
def test_each_command_is_sent_and_its_answer_is_said(
    run: Run, arguments: str, command: Message, answer: Message, said: str
) -> None:
    code, out, err, commands = run(lambda _: [answer], "queue", *arguments.split())
    assert (code, out) == (0, "")
    assert said in err
    assert commands == [command]
    code, out, err, _ = run(lambda _: [answer], "queue", *arguments.split(), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["type"] == answer.__struct_config__.tag


def test_a_duplicates_new_name_is_all_that_stdout_gets(run: Run) -> None:
    def script(command: Message) -> Sequence[Message]:
        assert isinstance(command, Duplicate)
        return [JobChanged(job="another", row=row("another")), JobChanged(job=command.new_job, row=row(command.new_job))]

    code, out, _, commands = run(script, "queue", "duplicate", "j", "--new-seed")
    (command,) = commands
    assert isinstance(command, Duplicate)
    assert (code, out) == (0, f"{command.new_job}\n")
    assert (command.job, command.same_seed) == ("j", False)


def test_an_edit_changes_what_is_named_and_nothing_else(run: Run) -> None:
    before = GenerationParams(prompt="a cat", seed=7, num_inference_steps=30, negative_prompt="dog", width=256)

    def script(command: Message) -> Sequence[Message]:
        return (
            [JobChanged(job="j", row=msgspec.structs.replace(row("j"), params=before))]
            if isinstance(command, GetJob)
            else [changed()]
        )

    changes = ("--prompt", "new", "--steps", "50", "--seed", "random")
    code, _, _, commands = run(script, "queue", "edit", "j", *changes, "--negative", "")
    assert code == 0
    asked, edit = commands
    assert asked == GetJob(job="j") and isinstance(edit, Edit)
    assert edit.params == msgspec.structs.replace(before, prompt="new", num_inference_steps=50, seed=None, negative_prompt="")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("edit j", "Nothing to change was named"),
        ("edit j --steps 0", "--steps: Steps must be from 1 to 1000"),
        ("edit j --prompt", "requires an argument"),
        ("move j sideways", "WHERE: 'sideways' is not known"),
        ("move j frist", "did you mean 'first'?"),
        ("cancel j --when later", "--when: 'later' is not known"),
        ("priority j 101", "less than or equal to 100. See sdtui queue priority --help."),
        ("priority j high", "a valid integer"),
        ("clear --older-than yesterday", "--older-than: 'yesterday' is no time; write 90s"),
        ("clear --older-than -1d", "is no time"),
        ("pause", "Missing argument 'JOB...'"),
        ("puase j", "No such command 'puase'"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(run: Run, arguments: str, said: str) -> None:
    code, out, err, commands = run(lambda _: [changed()], "queue", *arguments.split())
    assert (code, out) == (2, "")
    assert said in err and "Traceback" not in err
    assert [command for command in commands if not isinstance(command, GetJob)] == []


def test_a_refusal_is_bad_input_with_the_servers_reason_and_the_other_jobs_are_still_done(run: Run) -> None:
    def script(command: Message) -> Sequence[Message]:
        assert isinstance(command, Retry)
        return [Refused(message="Job a\x1b[31m is running.", job="a")] if command.job == "a" else [changed()]

    code, _, err, commands = run(script, "queue", "retry", "a", "j", "a")
    assert code == 2
    assert "sdtui: Job a is running." in err and "Job j is queued" in err
    assert commands == [Retry(job="a"), Retry(job="j")]


def test_a_job_that_ended_before_it_could_be_cancelled_is_a_failure(run: Run) -> None:
    code, _, err, _ = run(lambda _: [JobFinished(job="j", elapsed_s=1, images=())], "queue", "cancel", "j")
    assert code == 3
    assert "had ended before that: done" in err


def test_a_server_that_goes_before_it_answers_is_a_failure(run: Run) -> None:
    code, _, err, _ = run(lambda _: None, "queue", "hold")
    assert code == 3 and "went away before it answered" in err


# --- lists ------------------------------------------------------------------------------------------------------------

ALL = (
    row("r", "running", prompt="runs", steps_done=12, total_steps=20, started_at=1.7e9),
    row("q", "queued", prompt="waits", priority=5),
    row("p", "paused", prompt="rests", steps_done=3, total_steps=20),
    row("d", "done", prompt="x" * 200, started_at=1.7e9, finished_at=1.7e9 + 2),
    row("f", "failed", prompt="failed [/] \x1b[31m"),
)


def paged(rows: Sequence[JobRow], size: int) -> Script:
    """A server whose frames hold so many rows."""

    def script(command: Message) -> Sequence[Message]:
        assert isinstance(command, ListJobs)
        wanted = {"all": rows, "queue": rows[:3], "ended": rows[3:]}[command.which]
        page = tuple(wanted[command.offset :][: min(size, command.limit)])
        return [Jobs(jobs=page, total=len(wanted), which=command.which, offset=command.offset)]

    return script


def names(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "jobs"),
    [
        ("jobs", "rqpdf"),
        ("jobs --limit 2", "rq"),
        ("jobs --queue", "rqp"),
        ("queue", "rqp"),
        ("queue list --limit 1", "r"),
        ("jobs --ended", "df"),
        ("jobs --state paused", "p"),
        ("jobs --state failed", "f"),
    ],
)
def test_the_lists_are_asked_for_page_by_page(run: Run, arguments: str, jobs: str) -> None:
    code, out, err, _ = run(paged(ALL, 2), *arguments.split())
    assert (code, names(out)) == (0, list(jobs))
    assert "\x1b" not in out
    assert ("further job" in err) == ("--limit" in arguments)
    if "list" not in arguments and arguments != "queue":
        lines = run(paged(ALL, 2), *arguments.split(), "--json")[1].splitlines()
        assert [json.loads(line)["job"] for line in lines] == list(jobs)


def test_a_row_shows_progress_priority_and_time(run: Run) -> None:
    out = run(paged(ALL, 9), "jobs")[1]
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert re.search(r"running +12/20 ", lines["r"]) and re.search(r"queued +5 ", lines["q"])
    assert "2.0 s" in lines["d"] and lines["d"].endswith("…") and "failed [/]" in lines["f"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [("jobs", "No jobs yet."), ("jobs --queue", "The queue is empty."), ("jobs --ended", "No job has ended yet."),
     ("jobs --state failed", "No job is failed.")],
)  # fmt: skip
def test_an_empty_list_is_said_and_is_no_failure(run: Run, arguments: str, said: str) -> None:
    code, out, err, _ = run(paged((), 2), *arguments.split())
    assert (code, out) == (0, "")
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("jobs --state finished", "--state: 'finished' is not known; did you mean"),
        ("jobs j --queue", "JOB and --queue: give one of them."),
        ("jobs --ended --state done", "--ended and --state: give one"),
        ("jobs --watch --queue", "--queue and --watch: give one"),
        ("jobs --limit 0", "--limit"),
    ],
)
def test_options_that_cannot_be_are_named(run: Run, arguments: str, said: str) -> None:
    code, out, err, commands = run(paged(ALL, 2), *arguments.split())
    assert (code, out, commands) == (2, "", [])
    assert said in err
