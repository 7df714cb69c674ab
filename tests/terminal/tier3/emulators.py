"""Terminals that not every run of the tests needs: newer ones, and those of desktops and browsers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.terminal.real import CELL_PX, Emulator, Kitty, SixelXterm, TmuxInKitty, TmuxInXterm
from tests.terminal.real.emulators import FONT, FONT_SIZE

from . import debian13

MODULES = debian13.CACHE / "xterm.js" / "node_modules" / "@xterm"
BRIDGE = Path(__file__).with_name("bridge.py")


class OfDebian13(Emulator):
    """Needs the folder with Debian 13."""

    tools = ("unshare", "chroot")

    @classmethod
    def why_not(cls) -> str:
        return super().why_not() or debian13.why_not()


class NewKitty(OfDebian13, Kitty):
    """kitty of Debian 13."""

    name = "kitty of Debian 13"
    version_command = tuple(debian13.inside(["kitty", "--version"]))

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        command = super().command([], columns, rows)
        return debian13.inside([*command, *debian13.outside(program)])


class NewTmuxInNewKitty(OfDebian13, TmuxInKitty):
    """tmux, with passthrough allowed, in kitty, both of Debian 13."""

    name = "tmux of Debian 13 in its kitty"
    version_command = tuple(debian13.inside(["tmux", "-V"]))

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        tmux = self.tmux(debian13.outside(program))
        return debian13.inside([*Kitty.command(self, [], columns, rows), *tmux])


class NewTmuxInXterm(OfDebian13, TmuxInXterm):
    """tmux of Debian 13, which knows sixels, in this system's xterm."""

    name = "tmux of Debian 13 in xterm"
    tools = ("unshare", "chroot", "xterm")
    version_command = NewTmuxInNewKitty.version_command
    settings = (*TmuxInXterm.settings, "set -as terminal-features ',*:sixel'")

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        tmux = self.tmux(debian13.outside(program))
        return SixelXterm.command(self, debian13.inside(tmux), columns, rows)


class Foot(Emulator):
    """foot in weston in a window of the X server; its window cannot be resized from outside."""

    name = "foot"
    tools = ("foot", "weston")
    window_class = "weston"
    version_command = ("foot", "--version")
    zoom_key = "ctrl+equal"
    resizable = False

    def __init__(self, command: list[str], **options: Any) -> None:
        super().__init__(command, **options)
        # weston draws a pointer itself: out of the way with it.
        self.display.xdotool("mousemove", *(str(length - 1) for length in self.size_px()))

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        run = self.directory / "wayland"
        run.mkdir(mode=0o700)
        size = f"--width={columns * CELL_PX[0]} --height={rows * CELL_PX[1]}"
        weston = (
            f"weston --backend=x11-backend.so --use-pixman {size} --shell=kiosk-shell.so --socket=s --idle-time=0 --no-config"
        )
        foot = ["foot", "-f", f"{FONT}:size={FONT_SIZE}", "-o", "pad=0x0", *program]
        script = f"""
            {weston} & weston=$!
            while [ ! -S "$XDG_RUNTIME_DIR/s" ]; do sleep 0.05; done
            WAYLAND_DISPLAY=s {shlex.join(foot)}
            kill $weston
        """
        return ["env", f"XDG_RUNTIME_DIR={run}", "sh", "-c", script]


class Konsole(Emulator):
    """KDE's terminal, with the message bus that it needs."""

    name = "konsole"
    tools = ("konsole", "dbus-run-session")
    window_class = "konsole"
    version_command = ("env", "QT_QPA_PLATFORM=offscreen", "konsole", "--version")
    zoom_key = "ctrl+plus"
    # A toolbar that no setting hides, and a rim.
    origin_px = (3, 32)
    beside_px = (6, 35)
    environment: ClassVar[Mapping[str, str]] = {"QT_QPA_PLATFORM": "xcb"}

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        run = self.directory / "run"
        run.mkdir(mode=0o700)
        profile = [f"Font={FONT},{FONT_SIZE}", "ScrollBarPosition=2", "TerminalMargin=0", "BlinkingCursorEnabled=false"]
        properties = [part for setting in profile for part in ("-p", setting)]
        width, height = columns * CELL_PX[0] + self.beside_px[0], rows * CELL_PX[1] + self.beside_px[1]
        geometry = f"{width}x{height}+0+0"
        start = ["konsole", "--separate", "--hide-menubar", "--hide-tabbar", *properties, "--geometry", geometry]
        return ["env", f"XDG_RUNTIME_DIR={run}", "dbus-run-session", "--", *start, "-e", *program]


class Mlterm(Emulator):
    """mlterm."""

    name = "mlterm"
    tools = ("mlterm",)
    window_class = "mlterm"
    version_command = ("mlterm", "--version")
    origin_px = (2, 2)
    beside_px = (4, 4)
    environment: ClassVar[Mapping[str, str]] = {"COLORTERM": "truecolor"}

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        options = [
            "--fontsize=16",
            f"--geometry={columns}x{rows}+0+0",
            "--term=xterm-256color",
            "--sbmod=none",
            "--borderless=true",
        ]
        return ["mlterm", *options, "-e", *program]


class XtermJs(Emulator):
    """xterm.js with its image addon, as in VS Code and other editors, in Chromium."""

    name = "xterm.js"
    tools = ("chromium", "npm")
    window_class = "chromium"

    def command(self, program: list[str], columns: int, rows: int) -> list[str]:
        sizes = [str(columns), str(rows)]
        profile = str(self.directory / "profile")
        return [sys.executable, str(BRIDGE), str(MODULES), str(self.directory / "cell"), *sizes, profile, *program]

    def cell_px(self, columns: int, rows: int) -> tuple[float, float]:
        width, height = json.loads((self.directory / "cell").read_text())
        return width, height

    @classmethod
    def version(cls) -> str:
        """Of the package."""
        return str(json.loads((MODULES / "xterm" / "package.json").read_text())["version"])

    @classmethod
    def why_not(cls) -> str:
        """The same; fetches xterm.js if it must."""
        if (reason := super().why_not()) or MODULES.exists():
            return reason
        MODULES.parents[1].mkdir(parents=True, exist_ok=True)
        fetch = ["npm", "install", "--no-audit", "--no-fund", "--silent", "@xterm/xterm@6.0.0", "@xterm/addon-image@0.9.0"]
        failed = subprocess.run(fetch, cwd=MODULES.parents[1], check=False).returncode
        return "npm could not fetch @xterm/xterm" if failed else ""
