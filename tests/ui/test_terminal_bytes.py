"""What the app says to a terminal besides what it draws: notices, and how it wants keys with alt."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdtui.bench.personalities import KITTY, TMUX, XTERM, Personality
from sdtui.bench.terminal import Terminal

APP = """
import os, sys
from sdtui.terminal.probe import start_probe
from sdtui.terminal.verdict import settle_colorterm
probe = start_probe()
from textual.widgets import Label
from sdtui.ui.terminal_app import TerminalApp

class Small(TerminalApp[None]):
    BINDINGS = [("alt+5", "announce_end", "End"), ("q", "quit", "Quit")]
    def compose(self):
        yield Label("it runs")
    def action_announce_end(self):
        self.announce("a red cat \\x07\\x1b]0;title\\x07 is done", sys.argv[1])
        self.query_one(Label).update("announced")
    def judge_terminal(self):
        super().judge_terminal()
        self.query_one(Label).update("it is judged")

settle_colorterm(probe.collect(), os.environ)
Small(probe=probe).run()
print("ended well")
"""
SET, PUT_BACK = b"\x1b[?1036;1039s\x1b[?1036;1039h", b"\x1b[?1036;1039r"


def output_of(personality: Personality, wanted: str) -> bytes:
    """All that a terminal got from an app that announced something when alt+5 was pressed."""
    root = str(Path(__file__).parents[2])
    with Terminal([sys.executable, "-c", APP, wanted], personality=personality, cwd=root, columns=80, rows=24) as terminal:
        terminal.wait_until(lambda _: "it is judged" in terminal.text(), "a judged terminal", 40)
        terminal.type("\x1b5")
        terminal.wait_until(lambda _: "announced" in terminal.text(), "alt+5", 40)
        terminal.type("q")
        assert terminal.wait_for_end(40) == 0
        return terminal.output()


@pytest.mark.parametrize(
    ("personality", "wanted", "notice"),
    [
        (XTERM, "osc9", b"\x1b]9;sdtui: a red cat is done\x07"),
        (KITTY, "auto", b"\x1b]99;i=sdtui:d=1:e=1:p=body;YSByZWQgY2F0IGlzIGRvbmU=\x1b\\"),
        (XTERM, "off", b""),
    ],
)
def test_a_notice_reaches_the_terminal_as_it_knows_them(personality: Personality, wanted: str, notice: bytes) -> None:
    output = output_of(personality, wanted)
    assert notice in output
    assert (b"sdtui: " in output) == (wanted == "osc9")
    assert (b"\x1b]9;" in output) == (wanted == "osc9")
    assert b"]0;title" not in output


@pytest.mark.parametrize(("personality", "told"), [(XTERM, True), (KITTY, False), (TMUX, False)])
def test_only_xterm_is_told_to_send_alt_as_escape_and_is_left_as_it_was(personality: Personality, told: bool) -> None:
    output = output_of(personality, "off")
    assert (SET in output, PUT_BACK in output) == (told, told)
    assert output.rfind(SET) <= output.rfind(PUT_BACK)
