"""What `sdtui doctor` says of the terminal: the report in lines, what would give more, and a test card in each way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json, table
from sdtui.text import count_noun, format_seconds, safe_text

if TYPE_CHECKING:
    from sdtui.cli.inline import Inline
    from sdtui.cli.picture import Asked
    from sdtui.terminal.capabilities import Capabilities
    from sdtui.terminal.report import Report, Tmux
    from sdtui.terminal.verdict import Verdict

_MAX_SAVED_BYTES: Final = 1 << 20
"""A report has some kilobytes."""
_CARD_COLUMNS: Final = 72
_CARD_ROWS: Final = 18
"""At most; so that a card and its label fit a usual window."""


def examine(*, requested: str | None, json: bool, save: str | None, replay: str | None) -> int:
    """`sdtui doctor --terminal`; its exit code. Raises `CommandError` for a file that cannot be used.

    `requested`: the only way to show the card in; None for each that the terminal claims.
    """
    if replay is not None:
        _tell(_replayed(replay), json=json)
        return EXIT_DONE
    from sdtui.cli.picture import asked_terminal

    on_stderr = not sys.stdout.isatty() and sys.stderr.isatty()
    with asked_terminal(2 if on_stderr else 1) as asked:
        pass
    if on_stderr:
        note(f"stdout is no terminal; this is the one of stderr{'.' if json else ', and no test card is drawn.'}")
    if save is not None:
        _save(asked.report, save)
    _tell(asked, json=json)
    if not json and sys.stdout.isatty():
        _show_cards(asked, requested)
    return EXIT_DONE


def _replayed(name: str) -> Asked:
    """A saved report, judged as if it came from this terminal. Raises `CommandError`."""
    from sdtui.cli.picture import Asked
    from sdtui.terminal.report import Report
    from sdtui.terminal.verdict import judge

    try:
        with Path(name).open("rb") as file:
            data = file.read(_MAX_SAVED_BYTES + 1)
        if len(data) > _MAX_SAVED_BYTES:
            raise CommandError(
                f"--replay: {name} is no saved report: it has more than {_MAX_SAVED_BYTES:,} bytes.", EXIT_BAD_INPUT
            )
        report = Report.from_json(data)
    except OSError as error:
        raise CommandError(f"--replay: {name} cannot be read: {error.strerror}.", EXIT_BAD_INPUT) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        why = f"{name} is no saved report: {error}. sdtui doctor --save makes one."
        raise CommandError(f"--replay: {why}", EXIT_BAD_INPUT) from error
    return Asked(report, judge(report))


def _save(report: Report, name: str) -> None:
    """Raises `CommandError`."""
    try:
        Path(name).write_bytes(report.to_json() + b"\n")
    except OSError as error:
        raise CommandError(f"--save: {name} cannot be written: {error.strerror}.", EXIT_BAD_INPUT) from error
    note(f"The report is in {name}.")


def _tell(asked: Asked, *, json: bool) -> None:
    report, verdict = asked
    if json:
        result_json(msgspec.json.encode({"report": report, "verdict": verdict}))
        return
    for line in table(report_rows(report, verdict)):
        result(line)
    if verdict.advice:
        result("")
        result("To see more:")
        for sentence in verdict.advice:
            result(f"- {sentence}")


def report_rows(report: Report, verdict: Verdict) -> list[tuple[str, str, str]]:
    """What was found out and how, as rows of a table."""
    known = report.capabilities
    cell = f"{verdict.cell.width_px:g}x{verdict.cell.height_px:g} px" if verdict.cell is not None else "unknown"
    rows = [
        ("terminal", described(known, verdict), f"TERM={known.term}"),
        ("asked", "yes" if report.asked else "no", _asking(report)),
        *((way.name, "yes" if way.usable else "no" if way.sure else "unknown", way.why) for way in verdict.ways),
        ("drawn by", verdict.best if verdict.way(verdict.best).usable else "nothing", _details(verdict)),
        ("cell", cell, f"by {verdict.cell_from}" if verdict.cell_from else ""),
        ("colours", verdict.colours, f"by {verdict.colours_from}"),
        ("synchronized", "yes" if verdict.synchronized else "no", "mode 2026: an update appears at once"),
        ("acknowledged", "yes" if verdict.acknowledges else "no", "CSI 5 n: the time until the answer measures the line"),
    ]
    if report.tmux is not None:
        rows.append(("tmux", report.tmux.version, _tmux(report.tmux)))
    return rows


def described(known: Capabilities, verdict: Verdict) -> str:
    """`kitty 0.41.1 in tmux over ssh`."""
    name = verdict.terminal or known.program or known.term or "unknown"
    inside = f" around {known.multiplexer}" if known.multiplexer and verdict.terminal else ""
    return safe_text(f"{name}{inside}{' over ssh' if known.over_ssh else ''}", limit=80)


def _asking(report: Report) -> str:
    if not report.asked:
        return report.why_not
    ended = "answered" if report.complete else "did not answer everything"
    return " ".join(filter(None, (f"{ended} within {format_seconds(report.elapsed_s)}.", report.why_not)))


def _details(verdict: Verdict) -> str:
    if verdict.best == "kitty":
        return f"placement {verdict.placement}, frames by {verdict.frames}, layer {verdict.layer} text"
    if verdict.best == "sixel":
        limit = verdict.sixel_limit_px
        size = f", at most {limit[0]}x{limit[1]} px" if limit is not None else ""
        return f"{count_noun(verdict.sixel_registers, 'colour') if verdict.sixel_registers else 'colours unknown'}{size}"
    return ""


def _tmux(tmux: Tmux) -> str:
    outside = tmux.outer_name or tmux.outer_term or "an unknown terminal"
    passthrough = tmux.passthrough or "on (always, before 3.3)"
    shown = count_noun(tmux.clients, "terminal")
    return f"in {outside}, shown by {shown}, allow-passthrough {passthrough}, features {', '.join(tmux.features) or 'none'}"


def _show_cards(asked: Asked, requested: str | None) -> None:
    """The test card in each way, or in one. What cannot be drawn is said."""
    from sdtui.cli.inline import Inline

    ways = [requested] if requested is not None else [way.name for way in asked.verdict.ways if way.usable]
    drawn_by = [Inline(asked, way) for way in ways]
    if requested is None:  # where there are few colours, finer cells become half cells
        drawn_by = [inline for inline, way in zip(drawn_by, ways, strict=True) if inline.name == way]
    if not drawn_by or drawn_by[0].cannot:
        note("No test card can be drawn here.")
        return
    if drawn_by[0].complaint:
        note(drawn_by[0].complaint)
    drawn_by[0].say()
    drawn_by[0].say("A good card: smooth ramps, even lines without patterns, text that can be read, a red boat at sea.")
    for inline in drawn_by:
        _show_card(inline)


def _show_card(inline: Inline) -> None:
    from sdtui.cli.card import SHAPE, make_card
    from sdtui.cli.inline import WAYS

    columns, rows = inline.room(*SHAPE, min(_CARD_COLUMNS, inline.columns), _CARD_ROWS)
    width_px, height_px = (round(count * size) for count, size in zip((columns, rows), inline.cell, strict=True))
    inline.say()
    inline.say(f"{WAYS[inline.name]}, {columns}x{rows} cells, {width_px}x{height_px} px")
    inline.draw(make_card(max(1, width_px), max(1, height_px)), columns, rows)
