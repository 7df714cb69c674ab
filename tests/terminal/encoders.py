"""Pictures to decode, and encoders that are not ours: textual-image's renderables, run in a process of their own.

Importing them asks the terminal, so they never run in the process of the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from PIL import Image

_RENDER = """
import io, sys
from PIL import Image
from rich.console import Console
from textual_image.renderable import halfcell, sixel, tgp
kind, columns, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
image = Image.open(io.BytesIO(sys.stdin.buffer.read()))
renderable = {"halfcell": halfcell, "sixel": sixel, "tgp": tgp}[kind].Image(image, width=columns, height=rows)
console = Console(force_terminal=True, color_system="truecolor", width=80, height=40, legacy_windows=False)
console.print(renderable)
sys.__stdout__.flush()
"""


def gradient(width: int, height: int) -> Image.Image:
    """Smooth in each channel, different in every corner."""
    down, across = np.mgrid[0:height, 0:width]
    red, green = across * 255 // max(1, width - 1), down * 255 // max(1, height - 1)
    return Image.fromarray(np.stack([red, green, 255 - (red + green) // 2], axis=2).astype(np.uint8), "RGB")


def noise(width: int, height: int, seed: int = 7) -> Image.Image:
    """The hardest picture to compress."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8), "RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures of one size, of 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one.convert("RGB"), np.int16) - np.asarray(other.convert("RGB"), np.int16)).mean())


def textual_image(kind: str, picture: Image.Image, columns: int, rows: int, cell_px: tuple[int, int] = (8, 17)) -> bytes:
    """What textual-image writes to show a picture; `kind` is halfcell, sixel or tgp."""
    from io import BytesIO

    file = BytesIO()
    picture.save(file, "PNG")
    env = {**os.environ, "TEXTUAL_CELL_WIDTH": str(cell_px[0]), "TEXTUAL_CELL_HEIGHT": str(cell_px[1]), "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", _RENDER, kind, str(columns), str(rows)]
    written = subprocess.run(command, input=file.getvalue(), capture_output=True, check=True, env=env)
    return written.stdout.replace(b"\n", b"\r\n")
