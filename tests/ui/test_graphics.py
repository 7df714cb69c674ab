"""Which terminals get finished pictures in pixels: what real ones answer, on a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import termios
import threading

import pytest

from sdtui.ui.widgets.preview.graphics import ask, draws_pixels, may_ask, still_surface

TRUECOLOR = {"COLORTERM": "truecolor"}
KITTY = b"\x1bP>|kitty(%s)\x1b\\\x1b[?62;c"
XTERM = b"\x1bP>|XTerm(379)\x1b\\\x1b[?64;1;2;4;6;9;15c"


@pytest.mark.parametrize(
    ("answer", "environ", "expected"),
    [
        (KITTY % b"0.41.1", TRUECOLOR, True),
        (KITTY % b"0.26.5", TRUECOLOR, False),  # no placeholders: red boxes
        (KITTY % b"0.41.1", {}, False),  # 256 colours lose the image's number
        (XTERM, {}, True),
        (b"\x1b[?62;22;14c", TRUECOLOR, False),  # 14 is not 4
        (b"", TRUECOLOR, False),
    ],
)
def test_what_an_answer_means(answer: bytes, environ: dict[str, str], expected: bool) -> None:
    assert draws_pixels(answer, environ) is expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "foot-extra"}, True),
        ({"TERM": "xterm-256color", "XTERM_VERSION": "XTerm(379)"}, True),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-0/default,1,0"}, False),
        ({"TERM": "screen-256color", "KONSOLE_VERSION": "221203"}, False),
        ({}, False),
    ],
)
def test_only_terminals_that_answer_are_asked(environ: dict[str, str], expected: bool) -> None:
    assert may_ask(environ) is expected


def test_an_answer_in_pieces_is_read_to_its_end_and_the_terminal_is_left_as_it_was() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    def answer() -> None:
        os.read(master, 100)
        for at in range(0, len(XTERM), 5):
            os.write(master, XTERM[at : at + 5])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert ask(slave, slave)[0] == XTERM
        assert termios.tcgetattr(slave) == before
    finally:
        thread.join()
        os.close(master)
        os.close(slave)


def test_without_a_terminal_nothing_is_asked_and_half_cells_do() -> None:
    assert still_surface({"TERM": "xterm-kitty", **TRUECOLOR}) is None
