"""What is learnt of a line, on a clock of our own: lines of known rate and latency, and lines that change or say nothing."""

from __future__ import annotations

import pytest

from sdtui.terminal.pacing import FRAME_S, LOST_S, Pacer


class Line:
    """A line of known rate and latency with a pacer on it."""

    def __init__(self, bytes_per_s: float, latency_s: float) -> None:
        self.bytes_per_s, self.latency_s = bytes_per_s, latency_s
        self.now_s = 100.0
        self.pacer = Pacer(lambda: self.now_s)
        self.send(0)

    def send(self, size_bytes: int) -> float:
        """Send a frame when the pacer lets it, and acknowledge it; the seconds it was under way."""
        self.now_s += self.pacer.wait_s()
        elapsed_s = self.latency_s + size_bytes / self.bytes_per_s
        self.pacer.sent(size_bytes)
        self.now_s += elapsed_s
        self.pacer.acknowledged()
        return elapsed_s


@pytest.mark.parametrize("bytes_per_s", [20_000.0, 100_000.0, 1_000_000.0])
@pytest.mark.parametrize("latency_s", [0.002, 0.15, 0.4])
def test_frames_shrink_until_they_are_through_in_time_whatever_the_latency(bytes_per_s: float, latency_s: float) -> None:
    line = Line(bytes_per_s, latency_s)
    for _ in range(20):
        last_s = line.send(min(70_000, line.pacer.budget_bytes()))
    assert line.pacer.bytes_per_s == pytest.approx(bytes_per_s, rel=0.05)
    assert last_s - latency_s <= FRAME_S * 1.05


def test_a_fast_line_takes_all_there_is() -> None:
    line = Line(1e9, 0.001)
    for _ in range(5):
        line.send(65_000)
    assert line.pacer.budget_bytes() > 500_000
    assert not line.pacer.is_slow_for(500_000)


def test_a_line_that_becomes_fast_again_is_used_again() -> None:
    line = Line(30_000, 0.02)
    for _ in range(10):
        line.send(line.pacer.budget_bytes())
    slow = line.pacer.budget_bytes()
    line.bytes_per_s = 1e9
    for _ in range(10):
        line.send(line.pacer.budget_bytes())
    assert line.pacer.budget_bytes() > 20 * slow


def test_half_of_the_time_is_left_to_text() -> None:
    line = Line(100_000, 0.05)
    line.send(10_000)
    assert line.pacer.wait_s() == pytest.approx(0.1)


def test_a_frame_is_waited_for_and_then_given_up() -> None:
    line = Line(100_000, 0.05)
    line.pacer.sent(50_000)
    assert line.pacer.in_flight
    patience_s = line.pacer.patience_s
    assert patience_s > LOST_S + 50_000 / 20_000, "on a line of 20 kB/s it would not be lost yet"
    assert line.pacer.wait_s() == pytest.approx(patience_s)
    line.now_s += patience_s + 0.1
    assert not line.pacer.in_flight
    assert line.pacer.wait_s() == 0
    assert line.pacer.budget_bytes() < 50_000


def test_the_figures_are_those_of_the_last_live_frames() -> None:
    line = Line(1e9, 0.0)
    assert line.pacer.figures() is None
    for _ in range(30):
        line.pacer.sent(12_000)
        line.pacer.acknowledged()
        line.now_s += 0.2
    line.pacer.sent(700_000, live=False)
    line.pacer.acknowledged()
    figures = line.pacer.figures()
    assert figures is not None
    assert figures[0] == 12_000
    assert figures[1] == pytest.approx(5.0)
    line.now_s += LOST_S + 1
    assert line.pacer.figures() is None


def test_a_large_picture_on_a_slow_line_is_waited_for_until_it_must_be_there() -> None:
    line = Line(15_000, 0.1)
    line.send(1500)
    line.pacer.sent(400_000)
    assert line.pacer.patience_s > 400_000 / 15_000


def test_an_answer_to_nothing_changes_nothing() -> None:
    line = Line(100_000, 0.05)
    line.pacer.acknowledged()
    assert line.pacer.bytes_per_s is None


@pytest.mark.parametrize(("latency_s", "slow"), [(None, False), (0.001, False), (0.15, True)])
def test_of_a_line_that_is_not_known_yet_only_its_distance_counts(latency_s: float | None, slow: bool) -> None:
    assert Pacer(latency_s=latency_s).is_slow_for(300_000) is slow
