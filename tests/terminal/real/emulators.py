"""Terminal emulators, each alone on an X server of its own and running one command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psutil
from PIL import Image

from .display import Display
from .waiting import missing_tools, wait_for

FONT = "DejaVu Sans Mono"
FONT_SIZE = 10
# What the font makes of a cell in every emulator here.
CELL_PX = (8, 17)
# pytest sets both, and a program would believe them rather than its terminal.
WITHOUT_A_SIZE = ("env", "-u", "COLUMNS", "-u", "LINES")
SETTLED_LOOKS = 4


class Emulator:
    """What all terminal emulators have in common; a subclass says how its program is started."""

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    window_class: ClassVar[str]
    zoom_key: ClassVar[str] = ""
    """The key for a larger font, by X's name; empty where there is none."""
    version_command: ClassVar[tuple[str, ...]]
    resizable: ClassVar[bool] = True
    """Whether the window can be given another size from outside."""
    origin_px: ClassVar[tuple[int, int]] = (0, 0)
    """Where in the window the first cell is."""
    beside_px: ClassVar[tuple[int, int]] = (0, 0)
    """How much wider and higher the window is than its cells."""
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, command: list[str], *, columns: int = 120, rows: int = 36, env: Mapping[str, str] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sdtui-e-"))
        self.display = Display()
        self.env = {**os.environ, **self.environment, **(env or {}), "DISPLAY": self.display.name}
        # No emulator is to start a message bus that outlives it.
        self.env["DBUS_SESSION_BUS_ADDRESS"] = "disabled:"
        for name in ("TERM_PROGRAM", "TMUX", "KITTY_WINDOW_ID", "WAYLAND_DISPLAY"):
            self.env.pop(name, None)
        try:
            self.process = subprocess.Popen(
                self.command([*WITHOUT_A_SIZE, *command], columns, rows),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(self.directory / "stderr").open("wb"),
                start_new_session=True,
            )
            wait_for(lambda: self.ended() or self.display.window(self.window_class), f"a window of {self.name}", 60)
            self.window = self.display.window(self.window_class)
            assert self.window, f"{self.name} ended at once: {(self.directory / 'stderr').read_text()}"
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        """The command line that runs a program in a window of so many cells."""
        raise NotImplementedError

    @classmethod
    def needed(cls) -> tuple[str, ...]:
        """The programs that must be installed."""
        return ("Xvfb", "xdotool", *cls.tools)

    @classmethod
    def version(cls) -> str:
        """The first number that the program says when asked for its version."""
        done = subprocess.run(cls.version_command, capture_output=True, text=True, check=False)
        found = re.search(r"\d[\w.]*", done.stdout + done.stderr)
        return found.group() if found else "?"

    @classmethod
    def why_not(cls) -> str:
        """What keeps this terminal from being tried, as words; empty where nothing does."""
        missing = missing_tools(*cls.needed())
        return f"{', '.join(missing)} not installed" if missing else ""

    def keys(self, *keys: str) -> None:
        """Press keys by X's names, such as `F5` or `ctrl+q`."""
        self.display.xdotool("windowfocus", self.window, "key", "--delay", "60", *keys)

    def type(self, text: str) -> None:
        """Type text as it is."""
        self.display.xdotool("windowfocus", self.window, "type", "--delay", "40", text)

    def size_px(self) -> tuple[int, int]:
        """Width and height of the window."""
        lines = self.display.xdotool("getwindowgeometry", "--shell", self.window).splitlines()
        sizes = dict(line.split("=", 1) for line in lines)
        return int(sizes["WIDTH"]), int(sizes["HEIGHT"])

    def cell_px(self, columns: int, rows: int) -> tuple[float, float]:
        """How large a cell is, in a window of so many."""
        width, height = self.size_px()
        return (width - self.beside_px[0]) // columns, (height - self.beside_px[1]) // rows

    def resize(self, width_px: int, height_px: int) -> None:
        """Make the window another size."""
        self.display.xdotool("windowsize", self.window, str(width_px), str(height_px))

    def zoom(self) -> None:
        """Make the font one step larger; `zoom_key` says whether that is possible."""
        self.keys(self.zoom_key)

    def image(self) -> Image.Image:
        """The window as it is now."""
        return self.display.image().crop((0, 0, *self.size_px()))

    def screenshot(self, path: Path) -> Path:
        """The window as it is now, as a PNG."""
        self.image().save(path)
        return path

    def settled(self, path: Path | None = None) -> Image.Image:
        """The window once a few looks in a row saw the same; also as a PNG, where a path is given."""
        last, same = b"", 0

        def stands_still() -> bool:
            nonlocal last, same
            now = self.image().tobytes()
            same = same + 1 if now == last else 0
            last = now
            return same >= SETTLED_LOOKS

        wait_for(stands_still, "a screen that stands still", 30)
        image = self.image()
        if path is not None:
            image.save(path)
        return image

    def count_colours(self) -> int:
        """How many colours are in the window."""
        return len(self.image().getcolors(1 << 24) or ())

    def wait_for_app(self, edge_colours: int = 20) -> None:
        """Wait until more than the terminal's own two colours and their mixtures at edges are on the screen."""
        wait_for(lambda: self.count_colours() > edge_colours, "the first frame")

    def rss_bytes(self) -> int:
        """The memory that the emulator itself occupies."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def ended(self) -> bool:
        """Whether the program, and so the terminal, has ended."""
        return self.process.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if hasattr(self, "process"):
            self._end()
        self.display.__exit__(None, None, None)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self) -> None:
        """End the emulator, and with it what it started."""
        family = [*psutil.Process(self.process.pid).children(recursive=True)] if not self.ended() else []
        if not self.ended():
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(10)
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            process.kill()


class Xterm(Emulator):
    """xterm as Debian configures it: no pictures, 24-bit colours."""

    name = "xterm"
    tools = ("xterm",)
    window_class = "xterm"
    version_command = ("xterm", "-version")
    zoom_key = "shift+KP_Add"
    environment: ClassVar[Mapping[str, str]] = {"COLORTERM": "truecolor"}
    options: ClassVar[tuple[str, ...]] = ()

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        geometry = ["-geometry", f"{columns}x{rows}+0+0", "-bw", "0", "-b", "0", "+sb"]
        font = ["-fa", FONT, "-fs", str(FONT_SIZE)]
        return ["xterm", "-tn", "xterm-256color", *font, *geometry, *self.options, "-e", *program]


class SixelXterm(Xterm):
    """xterm as a VT340 with 256 colours: pictures by sixel."""

    name = "xterm (sixel)"
    options: ClassVar[tuple[str, ...]] = (
        *("-ti", "vt340"),
        *("-xrm", "XTerm*decTerminalID: vt340"),
        *("-xrm", "XTerm*numColorRegisters: 256"),
        *("-xrm", "XTerm*sixelScrolling: true"),
        *("-xrm", "XTerm*maxGraphicSize: 2000x2000"),
        *("-xrm", "XTerm*privateColorRegisters: true"),
    )


class Kitty(Emulator):
    """kitty, drawing without a graphics card."""

    name = "kitty"
    tools = ("kitty",)
    window_class = "kitty"
    version_command = ("kitty", "--version")
    zoom_key = "ctrl+shift+equal"
    environment: ClassVar[Mapping[str, str]] = {"LIBGL_ALWAYS_SOFTWARE": "1"}

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        settings = {
            "font_family": FONT,
            "font_size": str(FONT_SIZE),
            "remember_window_size": "no",
            "initial_window_width": f"{columns}c",
            "initial_window_height": f"{rows}c",
            "update_check_interval": "0",
            "confirm_os_window_close": "0",
            "cursor_blink_interval": "0",
            "placement_strategy": "top-left",
        }
        options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        return ["kitty", "--config", "NONE", *options, *program]


class Alacritty(Emulator):
    """alacritty: no pictures, 24-bit colours."""

    name = "alacritty"
    tools = ("alacritty",)
    window_class = "Alacritty"
    version_command = ("alacritty", "--version")
    environment: ClassVar[Mapping[str, str]] = {"LIBGL_ALWAYS_SOFTWARE": "1", "WINIT_X11_SCALE_FACTOR": "1"}

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        settings = {
            "window.dimensions.columns": str(columns),
            "window.dimensions.lines": str(rows),
            "font.normal.family": f'"{FONT}"',
            "font.size": str(FONT_SIZE),
        }
        options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        return ["alacritty", *options, "-e", *program]
