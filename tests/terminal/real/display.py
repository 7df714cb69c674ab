"""An X server of one's own without a monitor, whose pixels are read from memory."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

WIDTH_PX, HEIGHT_PX = 1400, 1000
# The XWD format's header (X11/XWDFile.h): its size, then these fields of four bytes, most significant first.
WIDTH, HEIGHT, BYTES_PER_LINE, COLOURS = 4, 5, 12, 19
COLOUR_BYTES = 12


class Display:
    """Xvfb with one screen of 24 bits and no window manager: windows sit in the upper left corner, as large as they like."""

    def __init__(self, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> None:
        self._directory = tempfile.mkdtemp(prefix="sdtui-x-")
        reader, writer = os.pipe()
        screen = ["-screen", "0", f"{width_px}x{height_px}x24", "-fbdir", self._directory, "-nocursor"]
        # Without -noreset the server starts afresh when its last client leaves, and turns away who comes meanwhile.
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writer), *screen, "-noreset", "-nolisten", "tcp"],
            pass_fds=[writer],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        with os.fdopen(reader) as pipe:
            self.name = f":{pipe.readline().strip()}"
        with Path(self._directory, "Xvfb_screen0").open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.xdotool("mousemove", str(width_px), str(height_px))

    def image(self) -> Image.Image:
        """The screen as it is now; quick enough to catch a picture that flickers."""
        header = struct.unpack_from(">25I", self._memory)
        start = header[0] + header[COLOURS] * COLOUR_BYTES
        stride, height = header[BYTES_PER_LINE], header[HEIGHT]
        pixels = self._memory[start : start + stride * height]
        return Image.frombytes("RGB", (header[WIDTH], height), pixels, "raw", "BGRX", stride)

    def xdotool(self, *arguments: str) -> str:
        """Do something to a window or the keyboard; what the tool says."""
        command = ["xdotool", *arguments]
        done = subprocess.run(command, check=True, env={**os.environ, "DISPLAY": self.name}, capture_output=True, text=True)
        return done.stdout

    def window(self, window_class: str) -> str:
        """The id of the window of this class; empty while there is none to be seen."""
        search = ["xdotool", "search", "--onlyvisible", "--class", window_class]
        environment = {**os.environ, "DISPLAY": self.name}
        found = subprocess.run(search, env=environment, capture_output=True, text=True, check=False).stdout.split()
        return found[-1] if found else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._memory.close()
        self._server.terminate()
        self._server.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)
