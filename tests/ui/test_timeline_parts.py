"""The parts of the Timeline screen by themselves: curves, the line of steps, the jobs' lines, and which steps belong together."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from sdtui.params import GenerationParams
from sdtui.protocol import BranchPoint, JobRow
from sdtui.settings import tapes_dir
from sdtui.text import is_safe
from sdtui.trajectory import INITIAL
from sdtui.ui.timeline_jobs import family_lines, line_text, recorded_jobs
from sdtui.ui.timeline_record import Record, open_record, same_place
from sdtui.ui.widgets.curves import Chart, Curve, _Colours, _plot, _Wish, column_of, figure_text
from sdtui.ui.widgets.scrubber import Scrubber, Track
from tests.ui.timeline_jobs import write_steps

COLOURS = _Colours((0, 0, 0), ((255, 0, 0), (0, 255, 0)))


def drawn(chart: Chart, width: int, height: int = 4) -> list[str]:
    return [line.text for line in _plot(chart, _Wish((chart,), width, height, COLOURS), Console()).lines]


# --- curves ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 2, 5, 20, 50, 300, 1000])
@pytest.mark.parametrize("width", [12, 33, 60, 128])
def test_the_mark_of_a_step_lies_where_its_value_is_drawn(total: int, width: int) -> None:
    for step in {0, 1, total // 3, total - 1} & {*range(total)}:
        values = [1.0 if place == step else None for place in range(total)]
        lines = drawn(Chart("x", (Curve(tuple(values), total),)), width)
        assert {at for line in lines for at, letter in enumerate(line) if letter != " "} == {column_of(step, total, width)}
        assert all(cell_len(line) == width for line in lines)


def test_what_is_no_number_leaves_a_gap() -> None:
    values = (1.0, 1.0, math.nan, None, math.inf, 1.0, 1.0)
    lines = drawn(Chart("x", (Curve(values, 7),)), 42)
    filled = {at for line in lines for at, letter in enumerate(line) if letter != " "}
    assert {0, column_of(1, 7, 42)} <= filled
    assert not filled & {*range(column_of(2, 7, 42), column_of(4, 7, 42) + 1)}


@pytest.mark.parametrize("values", [(), (None, None), (0.0, 0.0), (math.inf,), (-1.0, 5.0), (1e-300, 1e300), (-3e38, 3e38)])
@pytest.mark.parametrize("is_log", [True, False])
def test_any_values_can_be_drawn(values: tuple[float | None, ...], is_log: bool) -> None:
    assert "cannot be drawn" not in "".join(drawn(Chart("x", (Curve(values, 5),), is_log), 30))


@given(st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=30), st.integers(0, 3))
def test_curves_of_any_numbers_fill_their_room(values: list[float | None], more: int) -> None:
    lines = drawn(Chart("x", (Curve(tuple(values), len(values) + more),) * 2, is_log=bool(more)), 24)
    assert all(cell_len(line) == 24 for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (math.inf, "∞"), (-math.inf, "-∞"), (0.0, "0"), (1.5, "1.500"), (1234.5, "1234")],
)
def test_figures_are_short(value: float | None, text: str) -> None:
    assert figure_text(value) == text


# --- the line of steps ----------------------------------------------------------------------------------------------


@given(st.integers(1, 1000), st.sampled_from([0, INITIAL]), st.integers(8, 200))
def test_a_click_on_a_mark_goes_to_its_step_where_each_has_a_cell_of_its_own(total: int, first: int, cells: int) -> None:
    class Sized(Scrubber):
        _cells = cells  # type: ignore[assignment]

    line, track = Sized(), Track(first, first, total, total)
    columns = [line._column(step, track) for step in range(first, total)]
    assert columns == sorted(columns)
    assert columns[0] >= 0
    assert columns[-1] <= cells - 1
    for step, column in zip(range(first, total), columns, strict=True):
        there = line._step(column, track)
        assert first <= there < total
        assert line._column(there, track) == column
        assert total - first > cells or there == step
    assert sum(len(text) for text, _ in line._line(track)) == cells


# --- steps that belong together -------------------------------------------------------------------------------------


def record(job: str, steps: int, total: int | None = None) -> Record:
    return Record(write_steps(job, steps, total))


def test_jobs_of_as_many_steps_are_compared_step_by_step_also_while_one_grows() -> None:
    one, other = record("one", 8), record("other", 3, 8)
    assert [same_place(one, step, other) for step in (INITIAL, 0, 2, 7)] == [INITIAL, 0, 2, 2]


def test_other_numbers_of_steps_meet_at_the_nearest_noise_level() -> None:
    one, other = record("one", 4), record("other", 8)
    assert [same_place(one, step, other) for step in range(4)] == [1, 3, 5, 7]
    assert [same_place(other, step, one) for step in range(8)] == [0, 0, 1, 1, 1, 2, 2, 3]


def test_pictures_and_files_are_opened_from_both_ends() -> None:
    for batch in (0, 1):
        write_steps("job", batch=batch, pictures=3)
    directory = tapes_dir() / "job"
    opened = open_record(directory, -1, -1)
    assert (opened.number, opened.files, opened.record.picture, opened.record.facts.batch_index) == (1, 2, 2, 1)
    assert open_record(directory, 5, 4).record.picture == 1


# --- jobs -----------------------------------------------------------------------------------------------------------


def row(job: str, parent: str | None = None, prompt: str = "a red cat") -> JobRow:
    branch = BranchPoint(job=parent, step=3) if parent is not None else None
    return JobRow(job=job, state="done", params=GenerationParams(prompt=prompt), created_at=0.0, branch=branch)


def test_jobs_are_listed_newest_first() -> None:
    for age, job in enumerate(("new", "older", "oldest")):
        write_steps(job, age_s=age)
    write_steps("oldest", batch=1, age_s=-5)
    (tapes_dir() / "without").mkdir()
    assert recorded_jobs(tapes_dir()) == ["oldest", "new", "older"]


def test_jobs_that_name_each_other_as_parents_are_all_listed_once() -> None:
    rows = {job: row(job, parent) for job, parent in (("a", "b"), ("b", "a"), ("c", "c"), ("d", "gone"))}
    lines = family_lines(list(rows), rows, {})
    assert sorted(line.job for line in lines) == ["a", "b", "c", "d"]


def test_a_long_line_of_branches_is_listed() -> None:
    rows = {f"j{number}": row(f"j{number}", f"j{number - 1}" if number else None) for number in range(3000)}
    lines = family_lines(list(rows), rows, {})
    assert [line.depth for line in lines] == list(range(3000))


@given(st.text(max_size=400), st.integers(0, 120), st.integers(0, 3))
def test_a_line_fits_and_is_safe(prompt: str, width: int, depth: int) -> None:
    rows = {"20260101-000000-abcd": row("20260101-000000-abcd", "p" if depth else None, prompt)}
    (line,) = family_lines(list(rows), rows, {})
    text = line_text(line._replace(depth=depth), width, 3)
    assert cell_len(text) <= max(width, 1)
    assert is_safe(text)
