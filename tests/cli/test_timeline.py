"""`sdtui timeline`: a table, JSON, files, full pictures from the server, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from sdtui.bench.personalities import KITTY
from sdtui.bench.recorded import write_recorded
from sdtui.cli.app import main
from sdtui.protocol import DecodeStep, Message, Refused, StepDecoded, StepNotDecoded
from sdtui.settings import tapes_dir
from sdtui.timeline.views import decoded_of
from sdtui.trajectory import INITIAL, Trajectory, tape_path
from tests.cli.conftest import TIMEOUT_S, Cli, make_cli
from tests.cli.in_terminal import finished, lines, mistakes
from tests.cli.scripted_server import Script, scripted_server

JOB, OLDER = "20260102-120000-abcd", "20260101-120000-abcd"
STEPS = 6
Say = Callable[..., list[str]]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str], home: Path) -> Say:
    """Runs `sdtui timeline` in this process: its lines on stdout. What stderr says must match, or be nothing."""

    def run(*arguments: object, code: int = 0, stderr: str = "") -> list[str]:
        assert main(["timeline", *map(str, arguments)]) == code
        said = capfd.readouterr()
        assert re.fullmatch(f"(?s:.*{stderr}.*)" if stderr else "", said.err), said.err
        assert len(said.err.splitlines()) <= 1
        return said.out.splitlines()

    return run


@pytest.fixture
def job(home: Path) -> Trajectory:
    """Six steps of two pictures of 64x64 px; an older job is there, too."""
    os.utime(write_recorded(tapes_dir() / OLDER, 2, latents=(8, 8)), (1e9, 1e9))
    return Trajectory(write_recorded(tapes_dir() / JOB, STEPS, latents=(8, 8), pictures=2))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty directory for what is written."""
    path = tmp_path / "out"
    path.mkdir()
    return path


# --- figures --------------------------------------------------------------------------------------------------------


def test_in_a_pipe_there_is_a_table_of_the_steps(say: Say, job: Trajectory) -> None:
    head, *rows = say(JOB)
    assert head.split() == [
        "step",
        "t",
        "sigma",
        "x",
        "mean",
        "std",
        "norm",
        "x0",
        "mean",
        "std",
        "norm",
        "guidance",
        "change",
        "ms",
    ]
    assert len(rows) == STEPS and say("last", "--plain") == say() == [head, *rows]
    cells = rows[1].split()
    latents, denoised = job.latents(1)[0], job.denoised(1)[0]
    assert cells[:3] == ["2", f"{job.steps[1].timestep:.0f}", f"{job.steps[1].ratio:.3f}"]
    assert cells[3:6] == [f"{latents.mean():.3f}", f"{latents.std():.3f}", f"{(latents**2).sum() ** 0.5:.1f}"]
    assert cells[7] == f"{denoised.std():.3f}" and cells[-1] == "50"
    assert say(JOB, "--picture", "2")[2] != rows[1]


def test_json_is_an_object_for_each_step(say: Say, job: Trajectory) -> None:
    rows = [json.loads(line) for line in say(JOB, "--json")]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[2]["x_std"] == pytest.approx(float(job.latents(2)[0].std()))
    assert rows[2]["guidance"] == pytest.approx(float(job.guidance(2)[0].mean()))
    assert rows[0].keys() >= {"timestep", "sigma", "x_mean", "x_norm", "x0_mean", "x0_std", "x0_norm", "change", "elapsed_s"}


def test_what_no_number_can_say_is_empty_or_null(say: Say, home: Path) -> None:
    write_recorded(tapes_dir() / JOB, 2, latents=(8, 8), guided=False)
    assert [json.loads(line)["guidance"] for line in say(JOB, "--json")] == [None, None]
    assert len(say(JOB)[1].split()) == 11


def test_a_job_is_found_by_the_beginning_of_its_name(say: Say, job: Trajectory) -> None:
    assert len(say("20260101")) == 3 and len(say("20260102-12")) == 1 + STEPS
    assert say("2026", code=2, stderr="JOB: '2026' is the beginning of 2 names") == []


def test_of_a_torn_record_what_is_whole_is_used(say: Say, job: Trajectory, out: Path) -> None:
    data = job.path.read_bytes()
    job.path.write_bytes(data[: job.steps[4].offset + 100])
    told = f"Job {JOB} is recorded up to step 4 of 6."
    assert len(say(JOB, stderr=told)) == 5
    assert say(JOB, "--export", out / "steps", stderr=told) == [str(out / "steps")]
    assert len(list((out / "steps").iterdir())) == 4


# --- files ----------------------------------------------------------------------------------------------------------


def test_each_kind_of_file_is_written_and_its_path_printed(say: Say, job: Trajectory, out: Path) -> None:
    for name in ("steps.mp4", "steps.webp", "steps.gif", "steps.safetensors", "steps"):
        assert say(JOB, "--export", out / name) == [str(out / name)]
    assert {path.name for path in out.iterdir()} == {"steps.mp4", "steps.webp", "steps.gif", "steps.safetensors", "steps"}


def test_options_say_what_is_seen_and_how(say: Say, job: Trajectory, out: Path) -> None:
    asked = ("--view", "channel", "--channel", "3", "--picture", "2", "--every", "4", "--initial", "--fps", "4", "--hold", "1.5")
    (path,) = say(JOB, *asked, "--size", "96x80", "--no-caption", "--export", out / "x.webp")
    with Image.open(path) as image:
        assert image.size == (96, 80) and image.n_frames == 3  # the beginning, steps 4 and 6
        durations = []
        for number in range(3):
            image.seek(number)
            image.load()  # which is when Pillow reads it
            durations.append(image.info["duration"])
    assert durations == [250, 250, 1500]
    captioned = say(JOB, *asked, "--size", "96x80", "--caption", "--export", out / "y.webp")
    with Image.open(captioned[0]) as image:
        assert image.height > 80


def test_a_file_is_overwritten_only_when_that_is_asked(say: Say, job: Trajectory, out: Path) -> None:
    (out / "x.gif").write_text("mine")
    assert say(JOB, "--export", out / "x.gif", code=2, stderr=r"--export: .*x\.gif is there already") == []
    assert (out / "x.gif").read_text() == "mine"
    say(JOB, "--export", out / "x.gif", "--overwrite")
    assert (out / "x.gif").read_bytes()[:6] == b"GIF89a"


def test_on_a_terminal_a_bar_is_drawn_and_taken_away(job: Trajectory, out: Path) -> None:
    with finished(KITTY, "timeline", JOB, "--export", str(out / "x.gif"), "--size", "512x512") as (terminal, code):
        assert code == 0 and mistakes(terminal.look()) == []
        assert [line for line in lines(terminal) if line] == [str(out / "x.gif")]


def test_the_app_is_opened_on_a_terminal_alone(say: Say, job: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def start_app(*, opening: Callable[[object], object]) -> int:
        class App:
            def show_timeline(self, job: str) -> None:
                opened.append(job)

        opening(App())
        return 0

    monkeypatch.setattr("sdtui.cli.start.start_app", start_app)
    say(JOB)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert len(say(JOB)) > 1, "stdin is no terminal"
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert len(say(JOB, "--plain")) > 1 and len(say(JOB, "--json")) > 1 and opened == []
    assert say("20260101") == [] and opened == [OLDER]
    say(JOB, "--picture", "2", code=2, stderr="--picture: it is for --plain, --json and --export")
    say("nothing", code=2, stderr="no steps are recorded of a job 'nothing'")
    assert opened == [OLDER]


# --- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--fps", "0"], "--fps: It must be from 1 to 60"),
        (["--fps", "1000"], "--fps: It must be from 1 to 60"),
        (["--fps", "fast"], "'--fps'"),
        (["--hold", "-1"], "--hold: It must be from 0 to 60 seconds"),
        (["--hold", "inf"], "--hold: It must be"),
        (["--every", "0"], "--every: It must be 1 or more"),
        (["--every", "x"], "'--every'"),
        (["--size", "0x64"], "--size: Width and height must be from 16 to 4096 px; one is 0"),
        (["--size", "64x50000"], "--size: .*one is 50000"),
        (["--size", "64"], "--size: '64' is no size; write width and height in pixels, as in 768x512"),
        (["--view", "gudance"], "--view: 'gudance' is not known"),
        (["--channel", "2"], "--channel: it is for --view channel"),
        (["--view", "channel", "--channel", "5"], "--channel: The latents have 4 channels, and none with the number 5"),
        (["--view", "channel", "--channel", "0"], "'--channel'"),
        (["--picture", "3"], "--picture: recorded of batch 1 are 2 pictures; there is no picture 3"),
        (["--picture", "0"], "'--picture'"),
        (["--batch", "2"], f"--batch: recorded of job {JOB} is batch 1; not 2"),
        (["--initial"], "--initial: There is no x0 prediction before the first step"),
        (["--json"], "--json and --export: give one of them"),
        (["--plain"], "--plain and --export: give one of them"),
    ],
)
def test_what_is_wrong_is_one_sentence_that_names_the_option(
    options: list[str], said: str, say: Say, job: Trajectory, out: Path
) -> None:
    assert say(JOB, "--export", out / "x.mp4", *options, code=2, stderr=said) == []
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("x.avi", r"--export: .*x\.avi must end in one of \.mp4"),
        ("no/x.mp4", "--export: The directory .*no is not there; make it first"),
        ("x.gif --fps 60", "--fps: GIF shows at most 50"),
    ],
)
def test_a_target_that_cannot_be_is_one_sentence(target: str, said: str, say: Say, job: Trajectory, out: Path) -> None:
    name, *more = target.split()
    say(JOB, "--export", out / name, *more, code=2, stderr=said)


@pytest.mark.parametrize(("option", "value"), [("--fps", "3"), ("--view", "rgb"), ("--overwrite", None), ("--no-caption", None)])
def test_options_of_an_export_need_one(option: str, value: str | None, say: Say, job: Trajectory) -> None:
    say(JOB, option, *([value] if value else []), code=2, stderr="it is for --export")


def test_jobs_without_steps_say_why(say: Say, home: Path) -> None:
    say(code=2, stderr="JOB: no steps are recorded of a job 'last'")
    say("j1", code=2, stderr="no steps are recorded of a job 'j1'")
    say("../../etc", code=2, stderr="JOB: The job's name")
    (tapes_dir() / "empty").mkdir(parents=True)
    say("empty", code=2, stderr="The steps of job empty are not recorded, or were removed")
    write_recorded(tapes_dir() / "begun", 0, total=5, latents=(8, 8))
    say("begun", code=2, stderr="no step of job begun is recorded yet")
    path = write_recorded(tapes_dir() / "old", 2, latents=(8, 8))
    path.unlink()
    say("old", code=2, stderr="recorded by an sdtui that did not keep the latents; make it again")


def test_a_record_that_is_none_says_so(say: Say, job: Trajectory) -> None:
    job.path.write_bytes(b"something else")
    say(JOB, code=2, stderr=r"JOB: .*batch-0000\.steps is damaged at its beginning")


def test_without_the_tape_what_needs_it_says_so(say: Say, job: Trajectory, out: Path) -> None:
    tape_path(job.path).unlink()
    assert len(say(JOB)) == 1 + STEPS
    say(JOB, "--export", out / "x.mp4")
    say(JOB, "--export", out / "y.mp4", "--view", "guidance", code=2, stderr="--view: The steps of this job are not recorded")


# --- full pictures --------------------------------------------------------------------------------------------------


def decoded(job: Trajectory, command: DecodeStep, *, write: bool = True) -> StepDecoded:
    path = decoded_of(job, command.step_index, command.picture)
    if write:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (200, 10 * (command.step_index + 1), 0)).save(path)
    return StepDecoded(
        job=command.job, batch_index=command.batch_index, step_index=command.step_index, picture=command.picture,
        path=str(path), elapsed_s=0.1,
    )  # fmt: skip


def refusal(command: DecodeStep, message: str) -> StepNotDecoded:
    return StepNotDecoded(
        job=command.job, batch_index=command.batch_index, step_index=command.step_index, picture=command.picture, message=message
    )


def served(home: Path, script: Callable[[DecodeStep], Sequence[Message | None] | None]) -> Script:
    """A script for decoding alone."""

    def answer(command: Message) -> Sequence[Message | None] | None:
        assert isinstance(command, DecodeStep)
        return script(command)

    return answer


VAE = ("--view", "vae", "--picture", "2", "--no-caption", "--hold", "0")


def test_the_server_decodes_the_steps_that_are_missing(say: Say, job: Trajectory, home: Path, out: Path) -> None:
    decoded(job, DecodeStep(job=JOB, step_index=2, picture=1))
    script = served(home, lambda command: [decoded(job, command)])
    with scripted_server(make_cli(home).socket, script) as commands:
        (path,) = say(JOB, *VAE, "--initial", "--export", out / "x.webp")
        say(JOB, *VAE, "--export", out / "y.webp")
    wanted = [step for step in range(INITIAL, STEPS) if step != 2]
    assert commands == [DecodeStep(job=JOB, step_index=step, batch_index=0, picture=1) for step in wanted]
    with Image.open(path) as image:
        assert image.n_frames == STEPS + 1
        image.seek(4)
        assert abs(image.convert("RGB").getpixel((30, 30))[1] - 40) < 6


def test_answers_that_are_for_others_are_passed_over(say: Say, job: Trajectory, home: Path, out: Path) -> None:
    def script(command: DecodeStep) -> list[Message]:
        other = DecodeStep(job=OLDER, step_index=command.step_index, picture=1)
        first = DecodeStep(job=JOB, step_index=command.step_index, picture=0)
        again = refusal(DecodeStep(job=JOB, step_index=99, picture=1), "another client's")
        return [refusal(other, "of another job"), decoded(job, first, write=False), again, decoded(job, command)]

    with scripted_server(make_cli(home).socket, served(home, script)):
        say(JOB, *VAE, "--export", out / "x.webp")


def test_a_step_that_cannot_be_decoded_ends_it(say: Say, job: Trajectory, home: Path, out: Path) -> None:
    def script(command: DecodeStep) -> list[Message]:
        return [decoded(job, command) if command.step_index < 3 else refusal(command, "Out of\x1b[31m memory.")]

    with scripted_server(make_cli(home).socket, served(home, script)):
        say(JOB, *VAE, "--export", out / "x.mp4", code=3, stderr="Step 4 is not decoded: Out of memory")
    assert list(out.iterdir()) == []


def test_a_server_that_refuses_or_goes_ends_it(say: Say, job: Trajectory, home: Path, out: Path) -> None:
    refused = Refused(message=f"There is no job {JOB}.", field="job", job=JOB)
    with scripted_server(make_cli(home).socket, served(home, lambda _: [refused])):
        say(JOB, *VAE, "--export", out / "x.mp4", code=2, stderr=f"There is no job {JOB}")
    with scripted_server(make_cli(home).socket, served(home, lambda _: None)):
        say(JOB, *VAE, "--export", out / "x.mp4", code=3, stderr="The server (went away before|has gone)")
    assert list(out.iterdir()) == []


def test_nothing_is_decoded_for_a_file_that_cannot_be(say: Say, job: Trajectory, home: Path, out: Path) -> None:
    with scripted_server(make_cli(home).socket, served(home, lambda _: [])) as commands:
        say(JOB, *VAE, "--export", out / "no" / "x.mp4", code=2, stderr="make it first")
        say(JOB, *VAE, "--export", out / "x.mp4", "--fps", "0", code=2, stderr="--fps")
    assert commands == []


# --- Ctrl-C ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_while_the_server_decodes_leaves_nothing(cli: Cli, job: Trajectory, home: Path, out: Path) -> None:
    asked = threading.Event()

    def script(_: DecodeStep) -> list[Message]:
        asked.set()
        return []

    with (
        scripted_server(cli.socket, served(home, script)),
        cli.start("timeline", JOB, *VAE, "--export", str(out / "x.mp4")) as process,
    ):
        assert asked.wait(TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
        assert process.stderr is not None and process.stderr.read() == ""
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["x.mp4", "x.webp", "x.gif", "x/"])
def test_ctrl_c_while_a_file_is_written_leaves_nothing(name: str, cli: Cli, job: Trajectory, out: Path) -> None:
    with cli.start("timeline", JOB, "--export", f"{out}/{name}", "--size", "4000x4000", "--view", "rgb") as process:
        deadline = time.monotonic() + TIMEOUT_S
        while not list(out.iterdir()) and process.poll() is None and time.monotonic() < deadline:
            pass  # until it has begun
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
        assert process.stderr is not None and process.stderr.read() == ""
    assert list(out.iterdir()) == []


# --- the real thing -------------------------------------------------------------------------------------------------


def test_a_real_job_is_shown_and_written_in_every_view(live: Cli, tmp_path: Path) -> None:
    made = live.run("generate", "a red cat", "--steps", "4", "--seed", "3", "--output", str(tmp_path))
    assert made.returncode == 0, made.stderr
    table = live.run("timeline")
    assert table.returncode == 0 and len(table.stdout.splitlines()) == 5, table.stderr
    for view in ("denoised", "latents", "channel", "rgb", "noise_pred", "guidance", "difference", "vae"):
        written = live.run("timeline", "last", "--view", view, "--no-caption", "--export", str(tmp_path / view))
        assert written.returncode == 0, written.stderr
        pictures = sorted((tmp_path / view).iterdir())
        assert len(pictures) == 4
        with Image.open(pictures[-1]) as last, Image.open(made.stdout.strip()) as picture:
            assert last.size == (128, 128)
            if view == "vae":  # the full VAE's picture of the last step is the picture
                assert last.convert("RGB").tobytes() == picture.convert("RGB").tobytes()
