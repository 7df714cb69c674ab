"""The writer's thread: what goes first, what may be left out, and that nobody waits for a line that takes nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from sdtui.terminal.writer import Burst, TerminalWriter

DEADLINE_S = 20.0


class Line:
    """A pipe with a writer at one end, which takes nothing until it is read."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.writer = TerminalWriter(self.writing)

    def fill(self) -> int:
        """Fill the pipe, so that whatever is written next waits; how many bytes that took."""
        os.set_blocking(self.writing, False)
        count = 0
        try:
            while True:
                count += os.write(self.writing, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(self.writing, True)
            return count

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        got = b""
        while len(got) < count:
            got += os.read(self.reading, count - len(got))
        return got


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    os.close(made.reading)
    if made.writer.is_alive():
        made.writer.close()
    os.close(made.writing)


def burst(*parts: bytes, divisible: bool = True, last: bytes = b"") -> tuple[Burst, threading.Event]:
    written = threading.Event()
    return Burst(parts, written.set, divisible=divisible, last=last), written


def test_text_overtakes_the_parts_of_a_picture_that_wait(line: Line) -> None:
    picture, written = burst(b"[1]", b"[2]", last=b"?")
    line.writer.draw(picture)
    line.writer.write(b"text ")
    line.writer.write(b"more ")
    line.writer.start()
    assert line.read(17) == b"text more [1][2]?"
    assert written.wait(DEADLINE_S)


def test_nobody_waits_for_a_line_that_takes_nothing(line: Line) -> None:
    filled = line.fill()
    line.writer.start()
    for _ in range(100):  # each more than the pipe would hold, and more writes than Textual's own writer queues
        line.writer.write(b"x" * 1000)
    picture, written = burst(b"p" * 100_000)
    line.writer.draw(picture)
    assert not written.is_set()
    assert line.read(filled) == b"." * filled
    assert line.read(200_000) == b"x" * 100_000 + b"p" * 100_000
    assert written.wait(DEADLINE_S)


def test_a_picture_that_has_no_place_any_more_is_left_out_but_for_its_question(line: Line) -> None:
    picture, written = burst(b"[1]", b"[2]", last=b"?")
    line.writer.draw(picture)
    line.writer.drop(picture)
    line.writer.start()
    assert line.read(1) == b"?"
    assert written.wait(DEADLINE_S)


@pytest.mark.parametrize(("divisible", "rest"), [(True, b"?"), (False, b"[2][3]?")])
def test_in_the_middle_only_a_picture_in_independent_parts_is_left_out(line: Line, divisible: bool, rest: bytes) -> None:
    picture, _ = burst(b"[1]", b"[2]", b"[3]", divisible=divisible, last=b"?")
    line.writer.draw(picture)
    assert picture.next_part() == b"[1]"
    line.writer.drop(picture)
    line.writer.start()
    assert line.read(len(rest)) == rest


def test_a_picture_that_the_terminal_is_to_hold_is_sent_even_if_it_lost_its_place(line: Line) -> None:
    picture, _ = burst(b"[1]", b"[2]", divisible=False)
    line.writer.draw(picture)
    line.writer.drop(picture)
    line.writer.start()
    assert line.read(6) == b"[1][2]"


def test_at_the_end_everything_is_left_out_and_the_cut_is_told(line: Line) -> None:
    begun, _ = burst(b"[1]", b"[2]", divisible=False)
    waiting, _ = burst(b"[3]", divisible=False)
    line.writer.draw(begun)
    line.writer.draw(waiting)
    begun.next_part()
    assert line.writer.drop_all() is True
    assert line.writer.drop_all() is False


def test_a_closed_writer_has_written_what_waited(line: Line) -> None:
    line.writer.start()
    line.writer.write(b"the end")
    line.writer.close()
    assert not line.writer.is_alive()
    assert line.read(7) == b"the end"


def test_a_terminal_that_hangs_up_ends_nothing_but_its_output(line: Line) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = TerminalWriter(writing)
    writer.start()
    picture, written = burst(b"[1]", b"[2]")
    writer.write(b"lost")
    writer.draw(picture)
    assert written.wait(DEADLINE_S)
    writer.close()
    os.close(writing)
    assert not writer.is_alive()


def test_a_terminal_left_non_blocking_gets_everything(line: Line) -> None:
    os.set_blocking(line.writing, False)
    line.writer.start()
    line.writer.write(b"y" * 300_000)
    assert line.read(300_000) == b"y" * 300_000
