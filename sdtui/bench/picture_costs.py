"""What pictures cost beside their frames: the terminal's memory, and the time until it is known what it can show."""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from typing import Final

from sdtui.bench.figures import Figure, milliseconds
from sdtui.bench.personalities import KITTY, SILENT, Personality
from sdtui.bench.picture_frames import frames
from sdtui.bench.screen import Screen
from sdtui.bench.terminal import Terminal
from sdtui.terminal.kitty import KittySink
from sdtui.terminal.picture import CellSize, Frame, Spot

BENCH: Final = "terminal"
MANY: Final = 1000
_EARLY: Final = 100
_CELLS: Final = (16, 8)
"""Small, so that a thousand pictures take seconds; each one in the terminal takes as much again."""
_CELL_PX: Final = (8, 17)
_THEIR_FRAMES: Final = f"""
import sys
from rich.console import Console
from sdtui.bench.picture_frames import frames
from textual_image.renderable.tgp import Image
pictures = frames("latent")
console = Console(force_terminal=True, color_system="truecolor", width=80, height=40, legacy_windows=False)
for number in range(int(sys.argv[1])):
    image = Image(pictures[number % len(pictures)], width={_CELLS[0]}, height={_CELLS[1]})
    sys.stdout.write("\\x1b[1;1H")
    console.print(image)
    image.cleanup()
"""
"""What its widget does with each new picture, without the app around it."""
_OUR_PROBE: Final = """
import os, time
from sdtui.terminal.probe import start_probe
began = time.monotonic()
probe = start_probe()
report = probe.collect()
print(f"took {time.monotonic() - began:.6f} {report.complete} .", flush=True)
probe.restore()
"""
_THEIR_PROBE: Final = """
import sys, time
stdout, sys.__stdout__ = sys.__stdout__, None  # importing it would ask already
from textual_image.renderable import sixel, tgp
sys.__stdout__ = stdout
began = time.monotonic()
known = sixel.query_terminal_support() or tgp.query_terminal_support()
print(f"took {time.monotonic() - began:.6f} {known} .", flush=True)
"""
_LATENCIES_S: Final = (0.0, 0.1)
_PATIENCE_MS: Final = 300.0
_TIMEOUT_S: Final = 120.0


def measure_memory() -> list[Figure]:
    """What a terminal with kitty's graphics holds after a thousand frames, and how much more than after a hundred."""
    ours, theirs = _our_memory(), _their_memory()
    columns, rows = _CELLS
    note = f"pictures of {columns}x{rows} cells; kitty's quota is 320 MB"
    return [
        Figure(bench=BENCH, name=f"kitty, images held after {MANY} frames", value=ours[1][0], unit="", target=1),
        Figure(
            bench=BENCH,
            name=f"kitty, memory from frame {_EARLY} to {MANY}",
            value=(ours[1][1] - ours[0][1]) / 1e6,
            unit="MB",
            target=0,
            note=note,
        ),
        Figure(bench=BENCH, name=f"kitty, images held after {MANY} frames: textual-image", value=theirs[1][0], unit=""),
        Figure(
            bench=BENCH,
            name=f"kitty, memory from frame {_EARLY} to {MANY}: textual-image",
            value=(theirs[1][1] - theirs[0][1]) / 1e6,
            unit="MB",
        ),
    ]


Held = tuple[int, int]
"""Images, and the bytes of their pixels."""


def _our_memory() -> tuple[Held, Held]:
    screen, sink = Screen(80, 40, _CELL_PX), KittySink(CellSize(*_CELL_PX))
    shown = [Frame.of(picture) for picture in frames("latent")]
    held: list[Held] = []
    for number in range(MANY):
        if number == _EARLY:
            held.append((screen.images_held, screen.bytes_held))
        screen.feed(b"".join(sink.show(shown[number % len(shown)], Spot(0, 0, *_CELLS), budget_bytes=20_000)))
    return held[0], (screen.images_held, screen.bytes_held)


def _their_memory() -> tuple[Held, Held]:
    held: list[Held] = []
    for count in (_EARLY, MANY):
        command = [sys.executable, "-c", _THEIR_FRAMES, str(count)]
        screen = Screen(80, 40, _CELL_PX)
        written = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True).stdout
        screen.feed(written.replace(b"\n", b"\r\n"))
        held.append((screen.images_held, screen.bytes_held))
    return held[0], held[1]


def measure_probe(rounds: int) -> list[Figure]:
    """From the first question to the verdict, on terminals near and far, and on one that never answers."""
    figures = []
    for name, program in (("", _OUR_PROBE), (": textual-image", _THEIR_PROBE)):
        mine = not name
        for latency_s in _LATENCIES_S:
            took_s, known = _probe(program, KITTY, latency_s, rounds)
            where = f"{latency_s * 1000:.0f} ms away" if latency_s else "at hand"
            note = "" if known else "and does not know what the terminal can show"
            figures.append(milliseconds(BENCH, f"probe of a terminal {where}{name}", took_s, note=note))
            if mine and latency_s:
                figures.append(
                    Figure(bench=BENCH, name="the same, in round trips", value=took_s / latency_s, unit="x", target=1.2)
                )
        took_s, _ = _probe(program, SILENT, 0.0, rounds)
        target = _PATIENCE_MS if mine else None
        figures.append(milliseconds(BENCH, f"probe of a terminal that never answers{name}", took_s, target))
    return figures


def _probe(program: str, personality: Personality, latency_s: float, rounds: int) -> tuple[float, bool]:
    """The median time in seconds, and whether the terminal was known afterwards, every time."""
    times, known = [], True
    for _ in range(rounds):
        command = [sys.executable, "-c", program]
        with Terminal(command, personality=personality, latency_s=latency_s, cell_px=_CELL_PX) as terminal:
            terminal.wait_until(lambda screen: " ." in screen.text(), "the time it took", _TIMEOUT_S)
            took, answered = terminal.text().partition("took ")[2].split()[:2]
            times.append(float(took))
            known = known and answered == "True"
    return median(times), known
