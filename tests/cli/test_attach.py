"""Coming back to a job that was started elsewhere."""

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
    GetJob,
    JobCancelled,
    JobChanged,
    JobFailed,
    JobFinished,
    JobQueued,
    JobStarted,
    Message,
    QueueChanged,
    Refused,
    Replay,
    ReplayDone,
    Welcome,
)
from tests.cli.conftest import make_cli
from tests.cli.scripted_server import IDLE, Script, row, scripted_server, started, step

Attach = Callable[..., tuple[int, str, str]]
QUEUED = JobQueued(job="j", params=GenerationParams(prompt="a cat"), position=0)
RUNNING = msgspec.structs.replace(IDLE, jobs=(row("j", "running"),), queue=QueueChanged(queued=0, running="j"))


@pytest.fixture
def attach(home: Path, capfd: pytest.CaptureFixture[str]) -> Attach:
    """Runs `sdtui attach` in this process against a script: exit code, stdout, stderr."""

    def run(script: Script, *arguments: str, welcome: Welcome = RUNNING) -> tuple[int, str, str]:
        with scripted_server(make_cli(home).socket, script, welcome):
            code = main(["attach", *arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def telling(*record: Message, then: Sequence[Message] = (), state: JobChanged | None = None) -> Script:
    """A server with the record of job `j`, what comes after it, and how the job is."""

    def script(command: Message) -> Sequence[Message]:
        if isinstance(command, GetJob):
            return [] if state is None else [state, *then]
        assert isinstance(command, Replay) and command.job == "j", command
        return [*record, ReplayDone(job="j"), *([] if state else then)]

    return script


def test_the_running_job_is_shown_from_its_beginning_to_its_end(attach: Attach) -> None:
    done = JobFinished(job="j", elapsed_s=1.0, images=())
    code, out, _ = attach(telling(QUEUED, started("j"), step("j", 0), then=[step("j", 1), done]), "--json")
    assert code == 0
    told = [json.loads(line) for line in out.splitlines()]
    assert [event["type"] for event in told] == ["job_queued", "job_started", "step_finished", "step_finished", "job_finished"]


def test_a_job_that_has_ended_is_shown_from_its_record(attach: Attach) -> None:
    ended = JobChanged(job="j", row=row("j", "failed"))
    record = (QUEUED, started("j"), JobFailed(job="j", message="out of memory"))
    code, out, err = attach(telling(*record, state=ended), "j", welcome=IDLE)
    assert (code, out) == (3, "")
    assert "sdtui: out of memory" in err


def test_a_job_that_was_retried_goes_on_after_its_first_end(attach: Attach) -> None:
    record = (QUEUED, started("j"), JobFailed(job="j", message="killed"))
    waiting = JobChanged(job="j", row=row("j", "queued"))
    done = JobFinished(job="j", elapsed_s=1.0, images=())
    code, out, err = attach(telling(*record, state=waiting, then=[started("j"), done]), "j", "--json")
    assert (code, err) == (0, err)
    assert [json.loads(line)["type"] for line in out.splitlines()][-3:] == ["job_failed", "job_started", "job_finished"]
    begun = (*record, QUEUED, started("j"))
    code, _, _ = attach(telling(*begun, then=[done]), "j")
    assert code == 0


def test_where_nothing_runs_the_one_that_comes_next_is_followed(attach: Attach) -> None:
    waiting = msgspec.structs.replace(IDLE, jobs=(row("j"), row("k")), queue=QueueChanged(queued=2, running=None))
    code, _, _ = attach(telling(QUEUED, then=[JobCancelled(job="j")]), welcome=waiting)
    assert code == 130


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        (QueueChanged(queued=0, running=None), "sdtui jobs lists those that have ended"),
        (QueueChanged(queued=2, running=None, held=True), "the queue is held, and sdtui queue go-on lets it go on"),
        (QueueChanged(queued=2, running=None, trouble="the disk is full"), "the disk is full"),
        (QueueChanged(queued=0, running=None, paused=1), "sdtui queue resume JOB"),
    ],
)
def test_that_nothing_runs_is_a_failure_with_the_reason(attach: Attach, queue: QueueChanged, said: str) -> None:
    rows = (row("j"), row("k")) if queue.queued else ()
    code, out, err = attach(telling(), welcome=msgspec.structs.replace(IDLE, jobs=rows, queue=queue))
    assert (code, out) == (3, "")
    assert "No job runs." in err and said in err


def test_a_job_that_does_not_exist_is_bad_input(attach: Attach) -> None:
    code, out, err = attach(lambda _: [Refused(message="There is no job 'x'.", field="job", job="x")], "x")
    assert (code, out) == (2, "")
    assert "sdtui: There is no job 'x'." in err


async def test_ctrl_c_leaves_and_cancels_nothing(home: Path) -> None:
    def script(command: Message) -> Sequence[Message]:
        assert isinstance(command, Replay)
        os.kill(os.getpid(), signal.SIGINT)
        return [QUEUED, JobStarted(job="j", seed=1, params=QUEUED.params, total_images=1)]

    with scripted_server(make_cli(home).socket, script, RUNNING) as commands:
        run = asyncio.create_task(Follower("j", [], interrupt="leave").run())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run, 20)
    assert [type(command) for command in commands] == [Replay]
