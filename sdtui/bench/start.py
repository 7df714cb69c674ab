"""How long until the app can be used, against the least Textual app; and `sdtui --help` against importing Typer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Final

import psutil

from sdtui.bench.figures import Figure, milliseconds, ratios
from sdtui.bench.isolation import isolated
from sdtui.bench.terminal import in_terminal

APP_TARGET: Final = 1.8
HELP_TARGET: Final = 2.0
_KEY: Final = "Ж"
"""A letter that no escape sequence and no text of the app contains."""
_TIMEOUT_S: Final = 60.0
_HELLO: Final = ([sys.executable, "-m", "sdtui.bench.hello"], "Hello")
APP: Final = (sys.executable, "-m", "sdtui")
_APP: Final = (APP, "Prompt")
_HELP_RUNS: Final = 3
"""Runs of the short commands for each round of the app."""


def measure(rounds: int) -> list[Figure]:
    """The ratios; the programs alternate, each round in fresh directories, so every start of the app starts a server too."""
    frames: dict[str, list[float]] = {"hello": [], "app": []}
    answers: dict[str, list[float]] = {"hello": [], "app": []}
    processor: dict[str, list[float]] = {"hello": [], "app": []}
    for index in range(rounds + 1):
        for name, (command, marker) in (("hello", _HELLO), ("app", _APP)):
            frame_s, answer_s, cpu_s = _first_frame(command, marker)
            if index > 0:  # the first round fills the disk's cache and writes byte code
                frames[name].append(frame_s)
                answers[name].append(answer_s)
                processor[name].append(cpu_s)
    imports, helps = _short_commands(rounds * _HELP_RUNS)
    return [
        milliseconds("start", "hello world answers a key after", median(answers["hello"]), note=f"{rounds} rounds"),
        milliseconds("start", "sdtui answers a key after", median(answers["app"])),
        *ratios(
            "start", "first interactive frame", answers["app"], answers["hello"], target=APP_TARGET, note="first key is answered"
        ),
        *ratios("start", "first frame", frames["app"], frames["hello"]),
        *ratios(
            "start", "processor time until then", processor["app"], processor["hello"], note="hardly moved by other programs"
        ),
        *ratios("start", "sdtui --help", helps, imports, target=HELP_TARGET, note="against python -c 'import typer'"),
    ]


def _first_frame(command: Sequence[str], marker: str) -> tuple[float, float, float]:
    """Seconds from the start to the first frame, to the answer to a key typed then, and of processor time until that."""
    with isolated():
        began = time.monotonic()
        with in_terminal(command) as terminal:
            framed = terminal.wait_for(marker, _TIMEOUT_S)
            terminal.type(_KEY)
            answered = terminal.wait_for(_KEY, _TIMEOUT_S)
            used = psutil.Process(terminal.process.pid).cpu_times()
    return framed - began, answered - began, used.user + used.system


def _short_commands(runs: int) -> tuple[list[float], list[float]]:
    imports: list[float] = []
    helps: list[float] = []
    for _ in range(runs):
        imports.append(_run([sys.executable, "-c", "import typer"]))
        helps.append(_run([sys.executable, "-m", "sdtui", "--help"]))
    return imports, helps


def _run(command: Sequence[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began
