"""The driver in a real app: keys typed early, terminals that go, suspension, and what is left when it ends."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sdtui.bench.personalities import KITTY, NONSENSE, SILENT, TMUX, Personality, flooding
from sdtui.bench.terminal import Terminal

DEADLINE_S = 40.0
APP = """
import os, sys
from sdtui.terminal.probe import start_probe
from sdtui.terminal.verdict import settle_colorterm
probe = start_probe()
from textual.widgets import Input
from sdtui.ui.terminal_app import TerminalApp
from sdtui.ui.widgets.preview.live import LivePicture
from sdtui.terminal.picture import Frame

class Small(TerminalApp[None]):
    CSS = "LivePicture { width: 20; height: 10; }"
    BINDINGS = [("escape", "mark", "Mark")]
    def action_mark(self):
        self.query_one(Input).insert_text_at_cursor("<escape>")
    def compose(self):
        yield Input()
        yield LivePicture()
    def on_mount(self):
        self.query_one(LivePicture).show_still(Frame(2, 2, bytes((200, 30, 30)) * 4))
        if "crash" in sys.argv:
            self.set_timer(1.0, lambda: 1 / 0)

settle_colorterm(probe.collect(), os.environ)
Small(probe=probe).run()
print("ended well")
"""


def small(personality: Personality, *arguments: str, **more: object) -> Terminal:
    """An app with an input and a red picture."""
    root = str(Path(__file__).parents[2])
    return Terminal([sys.executable, "-c", APP, *arguments], personality=personality, cwd=root, columns=80, rows=24, **more)


def is_red(terminal: Terminal) -> bool:
    red, green, blue = terminal.picture((4, 6, 6, 3)).resize((1, 1)).getpixel((0, 0))
    return red > 150 and green < 80 and blue < 80


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.mark.parametrize("latency_s", [0.0, 0.1, 0.4])
def test_what_is_typed_while_the_terminal_is_asked_is_the_apps(latency_s: float) -> None:
    with small(KITTY, latency_s=latency_s) as terminal:
        terminal.type("early")
        until(lambda: is_red(terminal), "the picture")
        terminal.type("-late")
        until(lambda: "early-late" in terminal.text(), "both in the input")


@pytest.mark.parametrize("personality", [SILENT, NONSENSE, flooding()], ids=lambda personality: personality.name)
def test_a_terminal_that_says_nothing_or_too_much_gets_the_app_all_the_same(personality: Personality) -> None:
    with small(personality) as terminal:
        until(lambda: is_red(terminal), "the picture in half cells")
        terminal.type("keys")
        until(lambda: "keys" in terminal.text(), "keys")


def test_an_escape_key_is_one_while_answers_are_waited_for() -> None:
    with small(SILENT) as terminal:
        until(lambda: is_red(terminal), "the picture")
        terminal.type("a\x1b")
        until(lambda: "a<escape>" in terminal.text(), "the key, though nothing followed it")


@pytest.mark.parametrize("personality", [KITTY, TMUX], ids=lambda personality: personality.name)
def test_a_crash_leaves_no_picture_and_tells_itself(personality: Personality, tmux_in_kitty: dict[str, str]) -> None:
    with small(personality, "crash", environment=tmux_in_kitty) as terminal:
        until(lambda: terminal.look().images_held, "the picture")
        terminal.wait_for_end(DEADLINE_S)
        assert terminal.look().images_held == 0
        assert "ZeroDivisionError" in terminal.text()


def test_an_app_whose_terminal_hangs_up_ends() -> None:
    with small(KITTY, dies_after_bytes=6000) as terminal:
        assert terminal.process.wait(DEADLINE_S) is not None


def test_a_suspended_app_draws_its_picture_again() -> None:
    with small(KITTY) as terminal:
        until(lambda: is_red(terminal), "the picture")
        app = psutil.Process(terminal.process.pid)
        app.send_signal(signal.SIGTSTP)
        until(lambda: app.status() == psutil.STATUS_STOPPED, "a stopped app")
        until(lambda: terminal.look().images_held == 0, "a terminal without its picture")
        app.send_signal(signal.SIGCONT)
        until(lambda: is_red(terminal), "the picture again")
        terminal.type("x")
        until(lambda: "x" in terminal.text(), "keys again")


def test_leaving_waits_for_answers_under_way_and_restores_the_terminal() -> None:
    with small(KITTY, latency_s=0.2) as terminal:
        until(lambda: is_red(terminal), "the picture")
        terminal.type(b"\x11")  # ctrl+q
        assert terminal.wait_for_end(DEADLINE_S) == 0
        assert "ended well" in terminal.text()
        asked = terminal.output().count(b"\x1b[5n")
        answered = b"".join(data for _, kind, data in terminal.happenings if kind == "sent").count(b"\x1b[0n")
        assert answered == asked
