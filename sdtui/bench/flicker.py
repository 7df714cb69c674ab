"""How often a picture is not whole on a real xterm's screen while the next one is drawn over it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
from PIL import ImageGrab

from sdtui.bench.figures import Figure
from sdtui.bench.picture_app import COLUMNS, ROWS, Library
from sdtui.bench.pictures import BENCH, command

_RESOURCES: Final = (
    "decTerminalID: vt340",
    "numColorRegisters: 256",
    "sixelScrolling: true",
    "maxGraphicSize: 2000x2000",
    "privateColorRegisters: true",
)
_XTERM: Final = (
    *("xterm", "-ti", "vt340", "-tn", "xterm-256color", "-geometry", "120x40+0+0", "-bw", "0", "-b", "0", "+sb"),
    *("-fa", "DejaVu Sans Mono", "-fs", "10"),
    *(argument for resource in _RESOURCES for argument in ("-xrm", f"XTerm*{resource}")),
)
_SCREEN: Final = "1280x900x24"
_LARGEST_CELL_PX: Final = (10, 22)
_SAMPLE_S: Final = 1 / 60
_DARK: Final = 22
"""Below every pixel of the frames, above the app's background."""
_HOLE: Final = 0.02
"""A sample with a larger share of dark pixels where the picture is counts; xterm paints some pixels wrongly by itself."""
_TIMEOUT_S: Final = 60.0

Dark = npt.NDArray[np.bool_]


def measure(rounds: int) -> list[Figure]:
    """The share of samples in which a part of a sixel picture is missing; nothing where there is no X server or no xterm."""
    missing = [name for name in ("Xvfb", "xterm") if shutil.which(name) is None]
    if missing:
        sys.stderr.write(f"Whether sixel flickers is not measured: {' and '.join(missing)} not installed.\n")
        return []
    figures = []
    with _display() as display:
        for library in get_args(Library):
            samples = [_watch(library, display) for _ in range(rounds)]
            target = 0.0 if library == "sdtui" else None
            name = "sixel in xterm, samples with a part missing" + ("" if target is not None else f": {library}")
            note = f"{sum(len(one) for one in samples)} samples"
            share = median(float(np.mean(one)) for one in samples)
            figures.append(Figure(bench=BENCH, name=name, value=share * 100, unit="%", target=target, note=note))
    return figures


@contextmanager
def _display() -> Iterator[str]:
    """A virtual X server; its display."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", _SCREEN, "-nolisten", "tcp"],
        pass_fds=[writing],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as pipe:
            yield f":{pipe.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


def _watch(library: Library, display: str) -> list[bool]:
    """For each sample between the first whole picture and the last one: whether a part was missing."""
    with tempfile.TemporaryDirectory(prefix="sdtui-b-") as directory:
        pipe = Path(directory, "pipe")
        os.mkfifo(pipe)
        app = ["env", "COLORTERM=truecolor", *command(library, "sixel", "detailed", str(pipe))]
        terminal = subprocess.Popen(
            [*_XTERM, "-e", *app],
            env={**os.environ, "DISPLAY": display},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            samples, done_at = _sample(descriptor, display)
        finally:
            os.close(descriptor)
            terminal.terminate()
            terminal.wait()
    return _judge([dark for at_s, dark in samples if at_s < done_at])


def _sample(descriptor: int, display: str) -> tuple[list[tuple[float, Dark]], float]:
    """What was dark when, from the first frame to when the app says that it is done, and when that was."""
    box = (0, 0, COLUMNS * _LARGEST_CELL_PX[0], ROWS * _LARGEST_CELL_PX[1])
    samples: list[tuple[float, Dark]] = []
    told = b""
    deadline = time.monotonic() + _TIMEOUT_S
    while not told.endswith(b"\n") or b'"done"' not in told:
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"The app in xterm was not done within {_TIMEOUT_S:.0f} s.")
        told += _read(descriptor)
        if b'"began"' in told:
            shot = np.asarray(ImageGrab.grab(bbox=box, xdisplay=display))[::2, ::2]
            samples.append((now, shot.max(axis=2) < _DARK))
        time.sleep(max(0.0, now + _SAMPLE_S - time.monotonic()))
    done: dict[str, Any] = json.loads(told.splitlines()[-1])
    return samples, float(done["at"])


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""


def _judge(samples: list[Dark]) -> list[bool]:
    """Where the picture is at the end, there it must be from when it is first whole."""
    down, across = np.nonzero(~samples[-1])
    inside = np.s_[down.min() : down.max() + 1, across.min() : across.max() + 1]
    holes = [float(dark[inside].mean()) > _HOLE for dark in samples]
    return holes[holes.index(False) :]
