"""The step log: thousands of rows, reading back while new ones come, copying."""

from __future__ import annotations

from sdtui.protocol import StepFinished
from sdtui.ui.rows import FactRow, NoteRow, StepRow, row_text, rows_for
from tests.ui.scripted import step_event
from tests.ui.stage import Stage, stage, until


async def fill(running: Stage, count: int, start: int = 0) -> None:
    """Append `count` steps and wait until the log has laid them out."""
    steps = running.screen.steps
    for index in range(start, start + count):
        steps.append(StepRow(step_event("job", index, 10_000)))
    await until(lambda: steps.virtual_size.height == steps.row_count, "laid out")
    await running.pilot.pause()


def visible(running: Stage) -> list[str]:
    """The lines of the log that are on the screen."""
    steps = running.screen.steps
    return [steps.render_line(y).text.strip() for y in range(steps.size.height)]


async def test_five_thousand_rows_follow_the_end_and_lay_out_only_what_is_seen() -> None:
    async with stage() as running:
        steps = running.screen.steps
        laid_out: list[int] = []
        original = steps._lay_out
        steps._lay_out = lambda row, width, selected: (laid_out.append(1), original(row, width, selected))[1]
        await fill(running, 5000)
        assert steps.following
        assert visible(running)[-1].startswith("5000 ")
        assert len(laid_out) < 500


async def test_reading_back_keeps_its_place_while_rows_come_and_end_follows_again() -> None:
    async with stage() as running:
        steps = running.screen.steps
        await fill(running, 300)
        steps.focus()
        await running.pilot.press("home")
        await running.pilot.pause()
        before = visible(running)
        await fill(running, 300, start=300)
        assert visible(running) == before
        assert "below" in str(steps.border_subtitle)
        await running.pilot.press("end")
        await running.pilot.pause()
        assert visible(running)[-1].startswith("600 ")
        await fill(running, 1, start=600)
        assert visible(running)[-1].startswith("601 ")


async def test_y_copies_the_selected_row_and_shift_y_all_of_them() -> None:
    async with stage() as running:
        await fill(running, 30)
        running.screen.steps.focus()
        await running.pilot.press("home", "down", "down", "y")
        assert running.app.clipboard.split()[0] == "3"
        await running.pilot.press("ctrl+c")
        assert running.app.clipboard.split()[0] == "3"
        await running.pilot.press("Y")
        assert len(running.app.clipboard.splitlines()) == 30


async def test_the_oldest_rows_go_when_there_are_too_many_and_the_reader_stays(monkeypatch) -> None:
    monkeypatch.setattr("sdtui.ui.widgets.step_log.MAX_ROWS", 400)
    monkeypatch.setattr("sdtui.ui.widgets.step_log._DROPPED_AT_ONCE", 100)
    async with stage() as running:
        await fill(running, 400)
        steps = running.screen.steps
        steps.scroll_to(y=250, animate=False, immediate=True)
        await running.pilot.pause()
        before = visible(running)
        await fill(running, 1, start=400)
        assert steps.row_count == 301
        assert visible(running) == before


async def test_markup_in_rows_is_text() -> None:
    async with stage() as running:
        running.screen.steps.append(NoteRow("a [/] cat [bold]x[/bold]"), FactRow("saved", "[red].png", "[/]", 0.1))
        await until(lambda: "a [/] cat [bold]x[/bold]" in running.screen_text(), "shown")
        assert "[red].png [/]" in running.screen_text()


def test_rows_fit_their_columns_at_every_width() -> None:
    step = step_event("job", 999, 1000)
    for width in (44, 74, 120):
        assert len(row_text(StepRow(step), width)) <= width
        assert len(row_text(FactRow("latents", "[1, 4, 64, 64]", "float32 mean 0.00 std 14.60 ×14.61", 0.0002), width)) <= width


def test_huge_figures_do_not_break_the_columns() -> None:
    step = step_event("job", 0, 20)
    wild = StepFinished(
        **{name: getattr(step, name) for name in step.__struct_fields__} | {"sigma": 1234567.8, "guidance_norm": None}
    )
    assert len(row_text(rows_for(wild)[0], 44)) <= 44
