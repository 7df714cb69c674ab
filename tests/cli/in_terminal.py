"""Running `sdtui` in a scripted terminal, and looking at what it left there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from sdtui.bench.personalities import Personality
from sdtui.bench.screen import Screen
from sdtui.bench.terminal import Terminal
from sdtui.cli.card import PHOTO

DEADLINE_S = 60.0
SDTUI = (sys.executable, "-m", "sdtui")
UTF8 = {"LC_ALL": "C.UTF-8"}
DONE = "[done]"
# Runs sdtui with its arguments, then shows what is left in the terminal's input, and whether its modes are as before.
AND_THEN = f"""
import os, select, signal, subprocess, sys, termios
before = termios.tcgetattr(0)
process = subprocess.Popen([sys.executable, "-m", "sdtui", *sys.argv[1:]])
signal.signal(signal.SIGINT, signal.SIG_IGN)
code = process.wait()
same = termios.tcgetattr(0) == before
raw = termios.tcgetattr(0)
raw[3] &= ~(termios.ICANON | termios.ECHO)
termios.tcsetattr(0, termios.TCSANOW, raw)
left = b""
while select.select([0], [], [], 1.0)[0]:
    left += os.read(0, 1000)
print("[" + str(code), ascii(left), "same" if same else "other", "]", "{DONE}", flush=True)
"""


@contextmanager
def finished(
    personality: Personality,
    *arguments: str,
    columns: int = 100,
    rows: int = 45,
    environment: Mapping[str, str] | None = None,
    command: tuple[str, ...] = SDTUI,
    **more: Any,
) -> Iterator[tuple[Terminal, int]]:
    """The terminal after `sdtui` with these arguments has ended in it, and the exit code."""
    terminal = Terminal(
        [*command, *arguments],
        personality=personality,
        columns=columns,
        rows=rows,
        environment=UTF8 | dict(environment or {}),
        **more,
    )
    with terminal:
        yield terminal, terminal.wait_for_end(DEADLINE_S)


def mistakes(screen: Screen) -> list[str]:
    """What was written wrongly; questions that this terminal does not know are none."""
    return [error for error in screen.finish() if "this terminal" not in error]


def lines(terminal: Terminal) -> list[str]:
    """The screen's text, blanks at the ends left out."""
    return [line.rstrip() for line in terminal.text().splitlines()]


def photo(columns: int, rows: int, cell_px: tuple[int, int] = (8, 17)) -> Image.Image:
    """The picture that ships, in as many pixels as so many cells have."""
    with Image.open(PHOTO) as image:
        return image.convert("RGB").resize((columns * cell_px[0], rows * cell_px[1]), Image.Resampling.BICUBIC)


def tmux_that_says(directory: Path, line: str) -> dict[str, str]:
    """An environment in which `tmux` says this of itself, whatever it is asked."""
    program = directory / "tmux"
    program.write_text(f"#!/bin/sh\necho '{line}'\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}
