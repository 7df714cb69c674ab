"""`sdtui generate` and what follows from it, with a real server and a real worker on the model that ships."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdtui.bench.terminal import in_terminal
from sdtui.initial_image import digest_of_file
from sdtui.metadata import read_png
from sdtui.protocol import MESSAGES
from tests.cli.conftest import TIMEOUT_S, Cli
from tests.initial_images import encoded, plain

pytestmark = pytest.mark.xdist_group("cli-live")
QUICK = ("--steps", "2", "--seed", "7")
_numbers = itertools.count()


@pytest.fixture
def out(live: Cli) -> Path:
    """A directory for this test's pictures."""
    return live.home / f"out-{next(_numbers)}"


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_path_is_all_that_stdout_gets_and_the_picture_says_how_it_was_made(live: Cli, out: Path) -> None:
    done = live.run("generate", "a red cat", "--output", str(out), "--negative", "moon", *QUICK)
    assert done.returncode == 0, done.stderr
    (path,) = out.iterdir()
    assert done.stdout == f"{path}\n"
    record = read_png(path).record
    assert record is not None
    assert (record.params.prompt, record.params.negative_prompt, record.params.seed) == ("a red cat", "moon", 7)
    assert (record.params.width, record.params.height) == (128, 128)
    assert "step 2 of 2" in done.stderr and "1 picture in" in done.stderr
    assert "\x1b" not in done.stderr and "\r" not in done.stderr


def test_json_is_one_event_a_line_from_queued_to_finished(live: Cli, out: Path) -> None:
    done = live.run("generate", "a red cat", "--json", "--output", str(out), *QUICK)
    assert done.returncode == 0, done.stderr
    told = events(done.stdout)
    kinds = [event["type"] for event in told]
    assert kinds[0] == "job_queued"
    before = [event for event in told[1 : kinds.index("job_started")]]
    assert {event.get("stage") for event in before} <= {"load"}, "nothing but the model's loading comes before the start"
    assert kinds.count("step_finished") == 2 and kinds.count("image_saved") == 1
    assert "preview_ready" not in kinds
    assert set(kinds) <= {kind.__struct_config__.tag for kind in MESSAGES}
    assert kinds[-1] == "job_finished"
    assert {event["job"] for event in told} == {told[-1]["job"]}
    (saved,) = (event for event in told if event["type"] == "image_saved")
    assert saved["seed"] == 7 and Path(saved["path"]).is_file()
    embeddings = next(event for event in told if event["type"] == "stage_finished" and event["stage"] == "embeddings")
    assert [2, 77, 128] in [tensor["shape"] for tensor in embeddings["tensors"]]


def test_verbose_writes_the_step_log_to_stderr(live: Cli, out: Path) -> None:
    done = live.run("generate", "a red cat", "--verbose", "--output", str(out), *QUICK)
    assert done.returncode == 0, done.stderr
    for part in (
        "prompt: 5 of 77",
        "a | red | cat",
        "[2, 77, 128]",
        "[1, 4, 16, 16]",
        "[1, 3, 128, 128]",
        "1/2",
        "2/2",
        "float32",
    ):
        assert part in done.stderr
    assert done.stdout.count("\n") == 1


def test_a_count_makes_so_many_pictures_with_seeds_one_after_the_other(live: Cli, out: Path) -> None:
    done = live.run("generate", "a tree", "--count", "2", "--name-pattern", "{seed}-{prompt}", "--output", str(out), *QUICK)
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == ["7-a_tree.png", "8-a_tree.png"]


def test_the_same_name_twice_makes_two_files(live: Cli, out: Path) -> None:
    for name in ("cat.png", "cat-2.png"):
        done = live.run("generate", "a cat", "--name-pattern", "cat", "--output", str(out), *QUICK)
        assert Path(done.stdout.strip()).name == name, done.stderr


def test_a_dash_reads_the_prompt_from_stdin(live: Cli, out: Path) -> None:
    done = live.run("generate", "-", "--output", str(out), *QUICK, input="a blue boat\nat sea\n")
    record = read_png(Path(done.stdout.strip())).record
    assert record is not None and record.params.prompt == "a blue boat\nat sea"


def test_markup_and_control_characters_in_a_prompt_are_taken_as_text(live: Cli, out: Path) -> None:
    prompt = "[/] a [bold]cat\x1b]0;owned\x07"
    done = live.run("generate", prompt, "--verbose", "--output", str(out), *QUICK)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr + done.stdout and "\x07" not in done.stderr
    record = read_png(Path(done.stdout.strip())).record
    assert record is not None and record.params.prompt == prompt


def test_a_width_that_only_the_model_can_refuse_is_bad_input_too(live: Cli, out: Path) -> None:
    done = live.run("generate", "a cat", "--width", "130", "--json", "--output", str(out), *QUICK)
    assert done.returncode == 2
    assert "--width: Width must be a multiple of" in done.stderr
    last = events(done.stdout)[-1]
    assert (last["type"], last["field"]) == ("job_failed", "width")
    assert not list(out.iterdir())


@pytest.fixture
def tiny_disk(out: Path) -> Iterator[Path]:
    """A disk of 8 kB; a picture of the shipped model takes about 20."""
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(out)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    yield out
    subprocess.run(["umount", str(out)], check=True)


def test_on_a_full_disk_the_picture_waits_for_room_and_is_saved_then(live: Cli, tiny_disk: Path) -> None:
    with live.start("generate", "a red cat", "--output", str(tiny_disk), *QUICK) as process:
        assert process.stderr is not None and process.stdout is not None
        waiting = next(line for line in process.stderr if "waiting for room on the disk" in line)
        assert str(tiny_disk) in waiting
        assert not list(tiny_disk.glob("*.png"))
        subprocess.run(["mount", "-o", "remount,size=1m", str(tiny_disk)], check=True)
        said = process.stderr.read()
        path = process.stdout.read().strip()
        assert process.wait(TIMEOUT_S) == 0, said
    assert "written after" in said
    assert [str(file) for file in tiny_disk.iterdir()] == [path]


def test_ctrl_c_cancels_the_job_and_leaves_no_file(live: Cli, out: Path) -> None:
    with live.start("generate", "a cat", "--steps", "1000", "--output", str(out)) as process:
        assert process.stderr is not None
        assert any("step 1 of 1000" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 130
    assert "Cancelled; stopped in" in said and "Traceback" not in said
    assert not list(out.iterdir())
    (row,) = events(live.run("jobs", "--json", "--limit", "1").stdout)
    assert row["state"] == "cancelled"


def test_a_reader_that_leaves_ends_the_command_without_a_traceback(live: Cli, out: Path) -> None:
    with live.start("generate", "a cat", "--json", "--output", str(out), *QUICK) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 141
    assert "Traceback" not in said and "goes on" in said


def test_jobs_lists_the_newest_first_and_one_job_with_all_that_happened(live: Cli, out: Path) -> None:
    done = live.run("generate", "a yellow star", "--json", "--output", str(out), *QUICK)
    job = events(done.stdout)[-1]["job"]
    assert live.run("jobs").stdout.splitlines()[1].split()[:2] == [job, "done"]
    assert events(live.run("jobs", job, "--json").stdout) == events(done.stdout)
    record = live.run("jobs", job).stdout
    assert "2/2" in record and str(out) in record


def test_a_job_that_does_not_exist_is_named(live: Cli) -> None:
    done = live.run("jobs", "20000101-000000-ffff")
    assert (done.returncode, done.stdout) == (2, "")
    assert "20000101-000000-ffff" in done.stderr


def test_the_server_says_how_it_is(live: Cli) -> None:
    live.run("server", "start")
    status = json.loads(live.run("server", "status", "--json").stdout)
    assert status["socket"] == str(live.socket)
    assert str(status["pid"]) in live.run("server", "status").stdout
    assert str(status["pid"]) in live.run("server", "log").stdout


def test_meta_reads_what_generate_wrote(live: Cli, out: Path) -> None:
    path = live.run("generate", "a cat", "--clip-skip", "1", "--output", str(out), *QUICK).stdout.strip()
    shown = live.run("meta", path).stdout
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith("Seed")] == ["7"]
    found = json.loads(live.run("meta", path, "--json").stdout)
    assert found["record"]["params"]["prompt"] == "a cat"
    assert found["fields"]["Clip skip"] == "2"


def test_a_picture_begun_with_gives_its_proportions_and_is_named_in_what_the_result_says(live: Cli, out: Path) -> None:
    source = live.home / "red cat.png"
    source.write_bytes(encoded(plain()))
    done = live.run("generate", "a red cat", "--init", str(source), "--strength", "0.5", "--output", str(out), "--steps", "4")
    assert done.returncode == 0, done.stderr
    assert "step 2 of 2" in done.stderr
    path = Path(done.stdout.strip())
    with Image.open(path) as image:
        assert image.size == (128, 80)
    found = read_png(path)
    assert found.record is not None and found.fields["Denoising strength"] == "0.5"
    assert found.record.init_image_digest == digest_of_file(source)
    source.unlink()
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in live.run("meta", str(path)).stdout.splitlines())
    assert (shown["Initial image"], shown["Strength"]) == ("red_cat.png", "0.5")
    assert shown["Initial image's hash"] == found.record.init_image_digest
    assert not re.search("Initial|Strength|Resize", live.run("meta", live.run().stdout.strip()).stdout)
    assert "red_cat.png, strength 0.5" in live.run("jobs").stdout


def test_on_a_terminal_there_is_a_bar_and_a_forming_picture_and_then_the_path(
    live: Cli, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in live.environment.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "sdtui", "generate", "a cat", "--output", str(out), *QUICK]
    with in_terminal(command) as terminal:
        terminal.wait_for("━", TIMEOUT_S)
        terminal.wait_for("▀", TIMEOUT_S)
        terminal.wait_for("1 picture in", TIMEOUT_S)
        terminal.wait_for(str(out), TIMEOUT_S)
        assert terminal.process.wait(TIMEOUT_S) == 0


def test_without_a_terminal_the_bare_command_makes_one_picture_and_prints_where_it_is(live: Cli) -> None:
    done = live.run()
    assert done.returncode == 0, done.stderr
    assert "No terminal" in done.stderr
    record = read_png(Path(done.stdout.strip())).record
    assert record is not None and record.params.prompt == "a red cat in the desert"


def test_inspect_mode_tells_what_each_block_gives_in_json_and_in_the_log_and_keeps_the_picture(live: Cli, out: Path) -> None:
    plain = live.run("generate", "a red cat", "--output", str(out), *QUICK)
    done = live.run("generate", "a red cat", "--inspect", "blocks", "--json", "--output", str(out), *QUICK)
    assert done.returncode == 0, done.stderr
    runs = [event for event in events(done.stdout) if event["type"] == "modules_ran"]
    steps = [("unet", 0), ("unet", 1)]
    assert [(run["network"], run["step_index"]) for run in runs] == [("text_encoder", None), *steps, ("vae", None)]
    blocks = {module["path"]: module for module in runs[1]["modules"]}
    assert blocks["mid_block.resnets.0"]["shape"] == [2, 192, 4, 4] and blocks["mid_block.resnets.0"]["std"] > 0
    assert "unet step 2: " in done.stderr and "mid_block.resnets.0" in done.stderr
    (saved,) = (event for event in events(done.stdout) if event["type"] == "image_saved")
    with Image.open(plain.stdout.strip()) as one, Image.open(saved["path"]) as other:
        assert one.tobytes() == other.tobytes()


def test_an_unknown_inspect_mode_is_refused_with_those_there_are(live: Cli, out: Path) -> None:
    done = live.run("generate", "a red cat", "--inspect", "everything", "--output", str(out))
    assert done.returncode == 2
    assert "off" in done.stderr and "blocks" in done.stderr and "modules" in done.stderr
