"""Notices: which way reaches which terminal, and that no text can become a command to it."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdtui.terminal.notice import BELL, MAX_BYTES, notice, notice_way

from .described import report_of
from .test_verdict import REPORTS

AUTO = {
    "kitty-0.26.5": "osc99",
    "kitty 0.41.1": "osc99",
    "foot-1.13.1": "osc9",
    "iterm2": "osc9",
    "wezterm": "osc9",
    "ghostty": "osc9",
    "tmux 3.5a in kitty, passing on": "osc99",
    "tmux-3.3a-passthrough-on-in-kitty-0.26.5": "osc99",
    "tmux-3.3a-passthrough-off-in-kitty-0.26.5": "bell",
    "screen-4.9.0": "bell",
    "xterm-379": "bell",
    "konsole 22.12.3": "bell",
    "vte 0.70": "bell",
    "xterm.js with images": "bell",
    "silent": "bell",
}
WHOLE = {
    "osc9": re.compile(rb"\x1b\]9;sdtui: ([^\x00-\x1f\x7f]*)\x07"),
    "osc99": re.compile(
        rb"\x1b\]99;i=sdtui:d=0:e=1:o=unfocused:p=title;c2R0dWk=\x1b\\\x1b\]99;i=sdtui:d=1:e=1:p=body;([A-Za-z0-9+/=]*)\x1b\\"
    ),
}


def text_of(data: bytes, way: str) -> str:
    """What the terminal would show."""
    found = WHOLE[way].fullmatch(data)
    assert found is not None, data
    return (base64.b64decode(found[1]) if way == "osc99" else found[1]).decode()


@pytest.mark.parametrize(("name", "way"), AUTO.items())
def test_each_terminal_gets_what_it_documents_else_a_bell(name: str, way: str) -> None:
    assert notice_way("auto", REPORTS[name]) == way


def test_what_is_asked_for_by_name_is_done_where_it_can_get_through() -> None:
    assert notice_way("osc9", REPORTS["xterm-379"]) == "osc9"
    assert notice_way("osc99", None) == "osc99"
    assert notice_way("osc99", REPORTS["screen-4.9.0"]) == "bell"
    assert notice_way("osc9", REPORTS["tmux-3.3a-passthrough-off-in-kitty-0.26.5"]) == "bell"
    assert notice_way("off", REPORTS["kitty 0.41.1"]) == "off"
    assert notice_way("auto", None) == "bell"
    assert notice_way("auto", report_of(b"", term="xterm-kitty", multiplexer="screen")) == "bell"


def test_a_bell_is_a_bell_everywhere_and_off_is_silent() -> None:
    assert notice("done", "bell") == notice("done", "bell", inside_tmux=True) == BELL
    assert notice("done", "off") == b""


def test_inside_tmux_each_sequence_has_its_own_envelope() -> None:
    for way in ("osc9", "osc99"):
        plain, wrapped = notice("done", way), notice("done", way, inside_tmux=True)
        envelopes = re.findall(rb"\x1bPtmux;((?:[^\x1b]|\x1b\x1b)*)\x1b\\", wrapped)
        assert b"".join(envelopes).replace(b"\x1b\x1b", b"\x1b") == plain
        assert len(envelopes) == plain.count(b"\x1b]")


@given(st.text() | st.text(alphabet="\x1b]9;\\\x07[m\x9c\u202e4a\n"))
def test_no_text_leaves_its_notice(text: str) -> None:
    for way in ("osc9", "osc99"):
        shown = text_of(notice(text, way), way)
        assert len(shown.encode()) <= MAX_BYTES
        assert shown.isprintable() or all(ord(character) >= 0xA0 for character in shown if not character.isprintable())


def test_a_long_text_is_cut_between_characters_and_marked() -> None:
    shown = text_of(notice("ä€" * 500, "osc9"), "osc9")
    assert shown.endswith("…")
    assert len(shown.encode()) <= MAX_BYTES
    assert "\ufffd" not in shown
