"""Real terminals to run the program in: tmux, and xterm on a virtual X server. Also used by `screenshots/make.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from PIL import Image

T = TypeVar("T")
POLL_S = 0.1
EDGE_COLOURS = 20
# pytest sets both, and a program would believe them rather than its terminal.
WITHOUT_A_SIZE = ("env", "-u", "COLUMNS", "-u", "LINES")


def wait_for(condition: Callable[[], T], what: str, deadline_s: float = 90.0) -> T:
    """The first true value of `condition`; AssertionError that names `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s:g} s in vain for {what}")
        time.sleep(POLL_S)


def missing_tools(*names: str) -> list[str]:
    """Which of these programs are not installed."""
    return [name for name in names if shutil.which(name) is None]


class Tmux:
    """A detached tmux with one window of a given size that runs one command."""

    def __init__(self, command: list[str], *, columns: int, rows: int, env: Mapping[str, str]) -> None:
        self._directory = tempfile.mkdtemp(prefix="sdtui-tmux-")
        self._base = ["tmux", "-S", f"{self._directory}/s", "-f", "/dev/null"]
        settings = [f"-e{name}={value}" for name, value in env.items()]
        size = ["-x", str(columns), "-y", str(rows)]
        self._run("new-session", "-d", *size, *settings, *WITHOUT_A_SIZE, *command)
        # The pane outlives its program, so that what it said last can be read.
        self._run("set-option", "-g", "remain-on-exit", "on")

    def _run(self, *arguments: str) -> str:
        return subprocess.run([*self._base, *arguments], check=True, capture_output=True, text=True).stdout

    def keys(self, *keys: str) -> None:
        """Press keys by tmux's names."""
        self._run("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text as it is."""
        self._run("send-keys", "-l", text)

    def resize(self, columns: int, rows: int) -> None:
        """Make the window another size, in cells."""
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self, *, colours: bool = False) -> str:
        """What the window shows, with SGR sequences if asked."""
        return self._run("capture-pane", "-p", *(["-e"] if colours else []))

    def wait_to_show(self, text: str, deadline_s: float = 90.0) -> None:
        """Wait until `text` is on the screen; the AssertionError shows the screen."""
        try:
            wait_for(lambda: text in self.screen(), repr(text), deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self.screen()}") from None

    def ended(self) -> bool:
        """Whether the program has ended."""
        return self._run("list-panes", "-F", "#{pane_dead}").strip() == "1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        subprocess.run([*self._base, "kill-server"], check=False, capture_output=True)
        shutil.rmtree(self._directory, ignore_errors=True)


class Xterm:
    """An xterm, alone on a virtual X server of its own, that runs one command."""

    FONT = ("-fa", "DejaVu Sans Mono", "-fs", "10")

    def __init__(self, command: list[str], *, columns: int, rows: int, env: Mapping[str, str]) -> None:
        reader, writer = os.pipe()
        # DejaVu Sans Mono 10 has cells of 8x17 pixels.
        screen = f"{columns * 8}x{rows * 17}x24"
        self._xvfb = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writer), "-screen", "0", screen, "-nolisten", "tcp"],
            pass_fds=[writer],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        with os.fdopen(reader) as pipe:
            self._env = {**os.environ, **env, "DISPLAY": f":{pipe.readline().strip()}"}
        geometry = ["-geometry", f"{columns}x{rows}+0+0", "-bw", "0", "-b", "0", "+sb"]
        self._xterm = subprocess.Popen(
            ["xterm", "-tn", "xterm-256color", *self.FONT, *geometry, "-e", *WITHOUT_A_SIZE, "COLORTERM=truecolor", *command],
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _do(self, *arguments: str) -> None:
        subprocess.run(["xdotool", *arguments], check=True, env=self._env, capture_output=True)

    def keys(self, *keys: str) -> None:
        """Press keys by X's names, such as `F5` or `ctrl+q`."""
        self._focus()
        self._do("key", "--delay", "60", *keys)

    def type(self, text: str) -> None:
        """Type text as it is."""
        self._focus()
        self._do("type", "--delay", "40", text)

    def _focus(self) -> None:
        self._do("search", "--sync", "--class", "xterm", "windowfocus")

    def screenshot(self, path: Path) -> Path:
        """The whole screen as a PNG."""
        subprocess.run(["import", "-window", "root", str(path)], check=True, env=self._env)
        return path

    def count_colours(self) -> int:
        """How many colours are on the screen."""
        with tempfile.TemporaryDirectory() as directory, Image.open(self.screenshot(Path(directory, "s.png"))) as image:
            return len(image.convert("RGB").getcolors(1 << 24) or ())

    def wait_for_app(self) -> None:
        """Wait until more than the terminal's own two colours and their mixtures at edges are on the screen."""
        wait_for(lambda: self.count_colours() > EDGE_COLOURS, "the first frame")

    def settled(self, path: Path) -> Path:
        """The screen as a PNG, once two shots a moment apart are the same."""
        last = b""

        def same() -> bool:
            nonlocal last
            with Image.open(self.screenshot(path)) as image:
                before, last = last, image.tobytes()
            return before == last

        wait_for(same, "a screen that stands still", 30)
        return path

    def ended(self) -> bool:
        """Whether the program, and so the terminal, has ended."""
        return self._xterm.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in (self._xterm, self._xvfb):
            process.terminate()
            process.wait(10)
