"""`sdtui branch`: what it asks for, what it refuses, and the pictures that come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from sdtui.cli.app import main
from sdtui.metadata import read_png
from sdtui.protocol import (
    BranchPoint,
    GetJob,
    JobChanged,
    JobFailed,
    JobFinished,
    JobQueued,
    Message,
    Refused,
    StepDecoded,
    Submit,
)
from sdtui.settings import tapes_dir
from sdtui.trajectory import Trajectory
from tests.cli.conftest import Cli, make_cli
from tests.cli.scripted_server import row, scripted_server, started
from tests.ui.timeline_jobs import write_steps

PARENT = "20260101-120000-abcd"
Run = Callable[..., tuple[int, str, str, list[Message]]]


@pytest.fixture
def parent(home: Path) -> Trajectory:
    """Six steps of the second batch of two pictures of a job."""
    return Trajectory(write_steps(PARENT, batch=1, pictures=2, batch_count=3, guidance_scale=5.0))


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs `sdtui branch` in this process: exit code, stdout, stderr, what the server was sent. It knows the parent."""

    def call(*arguments: str, end: Callable[[str], Message] | None = None) -> tuple[int, str, str, list[Message]]:
        def script(command: Message) -> Sequence[Message]:
            match command:
                case GetJob(job=job) if job == PARENT:
                    params = Trajectory(tapes_dir() / PARENT / "batch-0001.steps").facts.params
                    return [JobChanged(job=job, row=row(job, "done", params=params))]
                case GetJob(job=job):
                    return [Refused(message=f"There is no job {job!r}.", field="job", job=job)]
                case Submit(job=job, params=params):
                    done = end(job) if end else JobFinished(job=job, elapsed_s=1.0, images=())
                    return [JobQueued(job=job, params=params, position=0), started(job), done]
                case _:
                    raise AssertionError(command)

        with scripted_server(make_cli(home).socket, script) as commands:
            code = main(["branch", *arguments, "--output", str(home / "out")])
        said = capfd.readouterr()
        return code, said.out, said.err, commands

    return call


def submit_of(commands: Sequence[Message]) -> Submit:
    (submit,) = (command for command in commands if isinstance(command, Submit))
    return submit


def test_what_is_not_named_stays_as_in_the_picture_it_goes_on_from(run: Run, parent: Trajectory) -> None:
    code, _, said, commands = run(PARENT, "--step", "3", "--batch", "2", "--picture", "2", "--prompt", "a blue cat")
    assert code == 0, said
    submit = submit_of(commands)
    assert submit.branch == BranchPoint(job=PARENT, step=3, batch_index=1, picture=1)
    same = msgspec.structs.replace(parent.facts.params, batch_count=1, batch_size=1, seed=8)
    assert submit.params == msgspec.structs.replace(same, prompt="a blue cat")


def test_each_option_changes_its_parameter_and_no_other(run: Run, parent: Trajectory) -> None:
    options: dict[str, tuple[str, object]] = {
        "--negative": ("negative_prompt", "moon"),
        "--guidance": ("guidance_scale", 2.5),
        "--scheduler": ("scheduler", "euler"),
        "--sigmas": ("sigmas", "karras"),
        "--steps": ("num_inference_steps", 9),
        "--seed": ("seed", 99),
        "--clip-skip": ("clip_skip", 1),
    }
    given = [text for option, (_, value) in options.items() for text in (option, str(value))]
    code, _, said, commands = run(PARENT, "--step", "1", "--batch", "2", *given)
    assert code == 0, said
    changes = {name: value for name, value in options.values()} | {"batch_count": 1, "batch_size": 1}
    assert submit_of(commands).params == msgspec.structs.replace(parent.facts.params, **changes)


def test_the_beginning_of_a_name_is_enough_where_only_one_begins_so(run: Run, parent: Trajectory) -> None:
    code, _, said, commands = run("20260101-12", "--step", "1", "--batch", "2")
    assert code == 0, said
    assert submit_of(commands).branch == BranchPoint(job=PARENT, step=1, batch_index=1)
    code, _, said, commands = run("last", "--step", "1", "--batch", "2")
    assert code == 0 and submit_of(commands).branch == BranchPoint(job=PARENT, step=1, batch_index=1)
    write_steps("20260101-120000-abce")
    code, _, said, commands = run("20260101-12", "--step", "1", "--batch", "2")
    assert (code, commands) == (2, []) and PARENT in said and "beginning of 2 names" in said
    code, *_ = run(PARENT, "--step", "1", "--batch", "2")
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([PARENT, "--step", "0", "--batch", "2"], "--step: it is 0; 6 steps of job 20260101-120000-abcd are recorded"),
        ([PARENT, "--step", "-1", "--batch", "2"], "--step: it is -1; "),
        ([PARENT, "--step", "6", "--batch", "2"], "so --step is from 1 to 5."),
        ([PARENT, "--step", "three"], "--step"),
        ([PARENT, "--batch", "2"], "--step"),
        ([PARENT, "--step", "1"], "--batch: recorded of job 20260101-120000-abcd is batch 2; not 1"),
        (
            [PARENT, "--step", "1", "--batch", "2", "--picture", "3"],
            "--picture: recorded of batch 2 are 2 pictures; there is no picture 3",
        ),
        ([PARENT, "--step", "1", "--batch", "0"], "--batch"),
        ([PARENT, "--step", "1", "--batch", "2", "--scheduler", "eular"], "--scheduler: Scheduler 'eular' is not known"),
        ([PARENT, "--step", "1", "--batch", "2", "--prompt", " "], "PROMPT: Prompt is empty"),
        ([PARENT, "--step", "1", "--batch", "2", "--name-pattern", "{sed}"], "unknown field {sed}"),
        ([PARENT, "--step", "1", "--batch", "2", "--width", "256"], "No such option: --width"),
        (["2025", "--step", "1"], "no steps are recorded of a job '2025'; "),
        (["../up\x1b[2J", "--step", "1"], "JOB: The job's name '../up"),
    ],
)
def test_bad_input_is_named_and_nothing_is_submitted(run: Run, parent: Trajectory, arguments: list[str], said: str) -> None:
    code, out, err, commands = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err and "Traceback" not in err and "\x1b" not in err
    assert not [command for command in commands if isinstance(command, Submit)]


def test_a_job_without_recorded_steps_and_one_that_the_server_does_not_know_are_named(run: Run, home: Path) -> None:
    (tapes_dir() / PARENT).mkdir(parents=True)
    code, _, said, commands = run(PARENT, "--step", "1")
    assert (code, commands) == (2, []) and f"The steps of job {PARENT} are not recorded" in said
    write_steps("forgotten")
    code, _, said, commands = run("forgotten", "--step", "1")
    assert (code, commands) == (2, [GetJob(job="forgotten")]) and "There is no job 'forgotten'" in said


def test_a_bad_step_is_said_in_json_too(run: Run, parent: Trajectory) -> None:
    code, out, _, _ = run(PARENT, "--step", "6", "--batch", "2", "--json")
    told = json.loads(out)
    assert code == 2 and (told["type"], told["field"]) == ("refused", "branch")


def test_what_the_worker_refuses_is_said_without_an_option_that_is_none(run: Run, parent: Trajectory) -> None:
    code, _, said, _ = run(
        PARENT, "--step", "1", "--batch", "2",
        end=lambda job: JobFailed(job=job, message="Job x has nothing to branch from.", field="branch"),
    )  # fmt: skip
    assert code == 3 and "sdtui: Job x has nothing to branch from." in said


def test_a_step_that_somebody_looks_at_does_not_keep_attach_from_ending(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tests.cli.test_attach import QUEUED, telling

    looked = StepDecoded(job="j", batch_index=0, step_index=1, picture=0, path="/a.png", elapsed_s=0.1)
    ended = JobChanged(job="j", row=row("j", "done"))
    record = telling(QUEUED, started("j"), JobFinished(job="j", elapsed_s=1.0, images=()), state=ended)

    def script(command: Message) -> Sequence[Message]:
        said = record(command) or []
        return [looked, *said] if isinstance(command, GetJob) else [message for message in said if message is not None]

    with scripted_server(make_cli(home).socket, script):
        assert main(["attach", "j"]) == 0
    capfd.readouterr()


# --- with the model that ships --------------------------------------------------------------------------------------


def pixels_of(path: str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


@pytest.mark.xdist_group("cli-live")
def test_a_branch_that_changes_nothing_is_the_same_picture_and_one_with_another_prompt_is_another(live: Cli) -> None:
    out = ("--output", str(live.home / "branches"))
    made = live.run("generate", "a red cat", "--steps", "6", "--seed", "7", "--count", "2", "--scheduler", "euler_a", *out)
    assert made.returncode == 0, made.stderr
    parents = made.stdout.split()
    record = read_png(Path(parents[1])).record
    assert record is not None
    same = live.run("branch", record.job, "--step", "3", "--batch", "2", *out)
    assert same.returncode == 0, same.stderr
    assert pixels_of(same.stdout.strip()) == pixels_of(parents[1]), "not a bit differs"
    other = live.run("branch", record.job, "--step", "3", "--batch", "2", "--prompt", "a blue tree", "--json", *out)
    assert other.returncode == 0, other.stderr
    told = [json.loads(line) for line in other.stdout.splitlines()]
    (saved,) = [event for event in told if event["type"] == "image_saved"]
    assert pixels_of(saved["path"]) != pixels_of(parents[1])
    found = read_png(Path(saved["path"])).record
    assert found is not None and found.branch == BranchPoint(job=record.job, step=3, batch_index=1)
    refused = live.run("queue", "delete", record.job)
    assert refused.returncode == 0, "no branch of it waits any more"
    code = live.run("branch", record.job, "--step", "3", *out)
    assert code.returncode == 2 and "no steps are recorded" in code.stderr
