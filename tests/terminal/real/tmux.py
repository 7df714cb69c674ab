"""tmux: on its own with no terminal around it, and inside an emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import ClassVar, Self

from .emulators import WITHOUT_A_SIZE, Emulator, Kitty, SixelXterm
from .waiting import wait_for


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


class TmuxInside(Emulator):
    """An emulator that runs tmux, which runs the command; a subclass also names the emulator."""

    # Until the window is resized, tmux tells its programs nothing of another font.
    zoom_key = ""
    version_command = ("tmux", "-V")
    settings: ClassVar[tuple[str, ...]] = ("set -g status off", "set -as terminal-features ',*:RGB'")

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        return super().command(self.tmux(program), columns, rows)

    def tmux(self, program: list[str]) -> list[str]:
        """The command line that runs a program in tmux."""
        configuration = self.directory / "tmux.conf"
        configuration.write_text("\n".join(self.settings) + "\n")
        # The session takes over the environment of the program that starts the server.
        return ["tmux", "-S", str(self.directory / "s"), "-f", str(configuration), "new-session", *program]

    def _end(self) -> None:
        subprocess.run(["tmux", "-S", str(self.directory / "s"), "kill-server"], check=False, capture_output=True, env=os.environ)
        super()._end()


class TmuxInXterm(TmuxInside, SixelXterm):
    """tmux in an xterm that could show sixels itself."""

    name = "tmux in xterm"
    tools = ("tmux", "xterm")


class TmuxInKitty(TmuxInside, Kitty):
    """tmux, with passthrough allowed, in kitty."""

    name = "tmux in kitty"
    tools = ("tmux", "kitty")
    settings = (*TmuxInside.settings, "set -g allow-passthrough on")
