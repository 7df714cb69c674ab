"""Real terminals to run a program in. Used by the tests, by `screenshots/make.py` and by `make terminals`."""

from __future__ import annotations

from .display import Display
from .emulators import CELL_PX, Alacritty, Emulator, Kitty, SixelXterm, Xterm
from .tmux import Tmux, TmuxInKitty, TmuxInXterm
from .waiting import missing_tools, wait_for

__all__ = [
    "CELL_PX",
    "Alacritty",
    "Display",
    "Emulator",
    "Kitty",
    "SixelXterm",
    "Tmux",
    "TmuxInKitty",
    "TmuxInXterm",
    "Xterm",
    "missing_tools",
    "wait_for",
]
