"""The program as a user meets it: in tmux, in a pipe, and in xterm on a virtual X server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.terminal.real import Tmux, Xterm, missing_tools, wait_for

SDTUI = [sys.executable, "-m", "sdtui"]
pytestmark = pytest.mark.xdist_group("end_to_end")


def need(*tools: str) -> None:
    """Skip, saying why, where a program is not installed."""
    missing = missing_tools(*tools)
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; .ci/run installs them on Debian")


@pytest.fixture
def env(home: Path) -> Iterator[dict[str, str]]:
    """What the program needs of the environment; its server is stopped in the end."""
    names = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "HF_HUB_OFFLINE")
    yield {name: os.environ[name] for name in names} | {"SDTUI_GENERAL_OUTPUT_DIR": str(home / "out"), "COLORTERM": "truecolor"}
    subprocess.run([*SDTUI, "server", "stop"], check=False, capture_output=True, timeout=30)


def pictures(home: Path) -> list[Path]:
    """The finished pictures; temporary files have leading dots."""
    return sorted(path for path in (home / "out").glob("*.png") if not path.name.startswith("."))


def colours_in(screen: str) -> set[str]:
    """The distinct truecolor foregrounds of a captured screen."""
    return {part.split("m")[0] for part in screen.split("38;2;")[1:]}


def test_a_prompt_typed_in_tmux_becomes_a_picture_on_the_screen_and_on_disk(home: Path, env: dict[str, str]) -> None:
    need("tmux")
    with Tmux(SDTUI, columns=120, rows=36, env=env) as tmux:
        tmux.wait_to_show("Prompt")
        tmux.type("a red cat in the desert")
        tmux.wait_to_show("a red cat in the desert")
        before = len(colours_in(tmux.screen(colours=True)))
        tmux.keys("F5")
        wait_for(lambda: pictures(home), "a picture on disk", 120)
        wait_for(lambda: len(colours_in(tmux.screen(colours=True))) > before + 100, "the picture in cells")
        tmux.wait_to_show("[1, 3, 128, 128]")
        with Image.open(pictures(home)[0]) as image:
            assert image.size == (128, 128)
            assert image.info["parameters"].startswith("a red cat in the desert\n")
        tmux.keys("C-q")
        wait_for(tmux.ended, "the end of the app")


def test_the_work_goes_on_when_the_terminal_is_killed(home: Path, env: dict[str, str]) -> None:
    need("tmux")
    with Tmux(SDTUI, columns=80, rows=24, env=env) as tmux:
        tmux.wait_to_show("Prompt")
        tmux.type("a blue boat on the sea")
        tmux.wait_to_show("a blue boat on the sea")
        tmux.keys("F5")
        jobs = [*SDTUI, "jobs", "--json"]
        wait_for(lambda: b"a blue boat" in subprocess.run(jobs, check=True, capture_output=True).stdout, "the job in the queue")
    wait_for(lambda: pictures(home), "a picture on disk though nobody watches", 120)


def test_without_a_terminal_one_image_is_made_and_its_path_printed(home: Path, env: dict[str, str]) -> None:
    done = subprocess.run(SDTUI, env={**os.environ, **env}, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert [Path(line) for line in done.stdout.split("\n") if line] == pictures(home)


def test_the_same_seed_gives_the_same_pixels_from_the_app_and_the_command_line(home: Path, env: dict[str, str]) -> None:
    command = [*SDTUI, "generate", "a green tree", "--seed", "7", "--steps", "4", "--json"]
    runs = [
        subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=150, check=True) for _ in "12"
    ]
    saved = [next(e for e in map(json.loads, run.stdout.splitlines()) if e["type"] == "image_saved") for run in runs]
    first, second = (Path(event["path"]) for event in saved)
    assert first != second
    with Image.open(first) as one, Image.open(second) as other:
        assert one.tobytes() == other.tobytes()


def test_a_killed_worker_costs_neither_job_nor_picture(home: Path, env: dict[str, str]) -> None:
    environment = {**os.environ, **env}
    subprocess.run([*SDTUI, "generate", "a red star", "--steps", "1"], env=environment, capture_output=True, check=True)
    status = subprocess.run([*SDTUI, "server", "status", "--json"], env=environment, capture_output=True, check=True)
    worker = json.loads(status.stdout)["worker_pid"]
    command = [*SDTUI, "generate", "a yellow star", "--steps", "60", "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as generate:
        assert generate.stdout is not None
        wait_for(lambda: '"step_finished"' in generate.stdout.readline(), "the first step")
        os.kill(worker, signal.SIGKILL)
        rest = [json.loads(line) for line in generate.stdout.read().splitlines()]
    assert generate.returncode == 0
    (cut,) = [event for event in rest if event["type"] == "job_interrupted"]
    assert "SIGKILL" in cut["reason"]
    assert rest[-1]["type"] == "job_finished"
    assert set(rest[-1]["images"]) < {str(path) for path in pictures(home)} and len(pictures(home)) == 2


def test_xterm_shows_the_colours_of_the_picture(home: Path, env: dict[str, str]) -> None:
    need(*Xterm.needed())
    with Xterm(SDTUI, columns=120, rows=36, env=env) as xterm:
        xterm.wait_for_app()
        xterm.type("a red cat in the desert")
        plain = xterm.count_colours()
        xterm.keys("F5")
        wait_for(lambda: pictures(home), "a picture on disk", 120)
        wait_for(lambda: xterm.count_colours() > plain + 100, "the picture on the screen")
