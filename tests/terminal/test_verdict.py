"""Verdicts on terminals: those in `recorded` were run and asked, those in `described.py` answer as documented."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sdtui.terminal.identity import identify
from sdtui.terminal.parser import AnswerParser
from sdtui.terminal.picture import CellSize
from sdtui.terminal.report import Report
from sdtui.terminal.verdict import choose, judge, settle_colorterm

from .described import DESCRIBED, IN_KITTY, TMUX_35, kitty_says, report_of

RECORDED = {
    path.stem: Report.from_json(path.read_bytes()) for path in sorted(Path(__file__).with_name("recorded").glob("*.json"))
}
REPORTS = {**RECORDED, **DESCRIBED}
BEST = {
    "alacritty-0.11": "quadrant",
    "foot-1.13.1": "sixel",
    "kitty-0.26.5": "kitty",
    "mlterm-3.9.0": "iterm2",
    "screen-4.9.0": "half",
    "tmux-3.3a-passthrough-off-in-kitty-0.26.5": "sextant",
    "tmux-3.3a-passthrough-off-in-xterm-379": "half",
    "tmux-3.3a-passthrough-on-in-kitty-0.26.5": "sextant",
    "tmux-3.3a-passthrough-on-in-xterm-379": "half",
    "xterm-379": "half",
    "xterm-379-vt340": "sixel",
    "kitty 0.41.1": "kitty",
    "konsole 22.12.3": "iterm2",
    "xterm.js with images": "iterm2",
    "xterm.js without images": "half",
    "vte 0.70": "quadrant",
    "wezterm": "kitty",
    "ghostty": "kitty",
    "iterm2": "iterm2",
    "tmux 3.5a in kitty, passing on": "kitty",
    "tmux 3.5a in xterm with sixel": "half",
    "tmux 3.5a in alacritty": "quadrant",
    "tmux 3.5a in konsole, passing on": "quadrant",
    "silent": "half",
}
FRAMES = {
    "kitty-0.26.5": "edit",
    "kitty 0.41.1": "edit",
    "wezterm": "swap",
    "ghostty": "swap",
    "tmux 3.5a in kitty, passing on": "swap",
}


def test_no_terminal_is_without_an_expectation():
    assert set(BEST) == set(REPORTS)


@pytest.mark.parametrize("name", REPORTS)
def test_the_best_way_is_the_one_known_to_work(name):
    verdict = judge(REPORTS[name])
    assert verdict.best == BEST[name]
    assert {way.name for way in verdict.ways} == {"kitty", "iterm2", "sixel", "sextant", "quadrant", "half"}
    for way in verdict.ways:
        assert way.why[0].isupper() or way.why.startswith(("tmux", "xterm.js", *(verdict.terminal.split(" ")[:1])))
        assert way.why.rstrip().endswith((".", "action"))


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_edited_where_the_terminal_says_it_can(name):
    verdict = judge(REPORTS[name])
    assert verdict.frames == FRAMES[name]
    assert verdict.placement == ("placeholder" if "tmux" in name else "classic")


@pytest.mark.parametrize("name", RECORDED)
def test_a_record_replayed_byte_by_byte_says_the_same(name):
    report = RECORDED[name]
    parser = AnswerParser(rounds=report.raw.count(b"\x1b[?") if report.tmux is not None else 1)
    kept = b"".join(parser.feed(report.raw[index : index + 1]) for index in range(len(report.raw)))
    assert kept == b""
    assert parser.answers() == report.answers


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_survives_json(name):
    assert Report.from_json(REPORTS[name].to_json()) == REPORTS[name]


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("xterm-379", "xterm 379"),
        ("alacritty-0.11", "alacritty"),
        ("mlterm-3.9.0", "mlterm"),
        ("foot-1.13.1", "foot 1.13.1"),
        ("konsole 22.12.3", "konsole 22.12.3"),
        ("vte 0.70", "vte 0.70.6"),
        ("wezterm", "wezterm 20240203"),
        ("xterm.js with images", "xterm.js"),
        ("screen-4.9.0", "screen 4.9"),
        ("tmux-3.3a-passthrough-on-in-kitty-0.26.5", "kitty 0.26.5"),
        ("tmux 3.5a in alacritty", "alacritty"),
    ],
)
def test_terminals_are_known_by_what_they_answer(name, identity):
    assert str(identify(REPORTS[name])) == identity


def test_a_variable_left_over_from_another_terminal_does_not_deceive():
    inherited = {"TERM_PROGRAM": "vscode", "MLTERM": "3.9.0"}
    xterm = msgspec.structs.replace(RECORDED["xterm-379"], variables=inherited)
    assert identify(xterm).name == "xterm"
    assert judge(xterm).best == "half"


def test_iterm2_over_ssh_is_known_by_the_variable_it_sends_along():
    report = report_of(
        b"\x1b[>0;95;0c\x1b[?62;4c", variables={"LC_TERMINAL": "iTerm2", "LC_TERMINAL_VERSION": "3.5.0"}, over_ssh=True
    )
    assert judge(report).best == "iterm2"
    assert str(identify(report)) == "iterm2 3.5.0"


@pytest.mark.parametrize(
    ("name", "cell", "origin"),
    [
        ("kitty-0.26.5", CellSize(8, 17), "CSI 16 t"),
        ("alacritty-0.11", CellSize(8, 17), "CSI 14 t"),
        ("xterm-379", CellSize(8, 17), "TIOCGWINSZ"),
        ("iterm2", CellSize(16, 34), "OSC 1337"),
        ("vte 0.70", None, ""),
    ],
)
def test_the_size_of_a_cell_comes_from_whoever_tells_it(name, cell, origin):
    verdict = judge(REPORTS[name])
    assert (verdict.cell, verdict.cell_from) == (cell, origin)


def test_a_size_that_cannot_be_is_not_believed():
    report = report_of(b"\x1b[6;0;0t\x1b[4;999999;1t\x1b[?62c", width_px=640, height_px=408)
    assert judge(report).cell == CellSize(8, 17)
    nowhere = report_of(b"\x1b[4;408;640t\x1b[?62c", width_cells=0, height_cells=0)
    assert judge(nowhere).cell is None


def test_what_is_asked_for_is_shown_where_it_can_be_and_said_where_not():
    kitty, xterm = judge(RECORDED["kitty-0.26.5"]), judge(RECORDED["xterm-379"])
    assert choose("auto", kitty) == ("kitty", "")
    assert choose("half", kitty) == ("half", "")
    name, complaint = choose("sixel", kitty)
    assert name == "half"
    assert complaint == "Sixel pictures cannot be shown here, half cells are: the terminal's attributes (DA1) do not name sixel."
    assert choose("kitty", xterm)[0] == "half"
    assert choose("ascii", xterm)[0] == "half"
    assert "no image protocol 'ascii'" in choose("ascii", xterm)[1]


def test_the_user_may_know_better_than_a_terminal_that_did_not_answer():
    assert choose("sixel", judge(DESCRIBED["silent"])) == ("sixel", "")
    assert choose("sextant", judge(RECORDED["xterm-379"])) == ("sextant", "")


def test_tmux_must_be_told_to_pass_on_before_kitty_is_believed_to_work():
    report = RECORDED["tmux-3.3a-passthrough-off-in-kitty-0.26.5"]
    report = msgspec.structs.replace(report, tmux=msgspec.structs.replace(report.tmux, outer_name="kitty(0.41.1)"))
    verdict = judge(report)
    assert choose("kitty", verdict)[0] == "half"
    assert any("allow-passthrough on" in sentence for sentence in verdict.advice)


def test_two_terminals_on_one_tmux_session_get_cells():
    report = report_of(TMUX_35, tmux=msgspec.structs.replace(IN_KITTY, clients=2))
    assert judge(report).best == "sextant"
    assert any("detach" in sentence for sentence in judge(report).advice)


def test_sixel_in_tmux_is_drawn_when_asked_for_by_name():
    verdict = judge(DESCRIBED["tmux 3.5a in xterm with sixel"])
    assert choose("auto", verdict) == ("half", "")
    assert choose("sixel", verdict) == ("sixel", "")


def test_sixel_that_tmux_claims_for_itself_is_not_believed():
    assert not judge(DESCRIBED["tmux 3.5a in kitty, passing on"]).way("sixel").usable


def test_kittys_word_counts_only_when_it_is_ok():
    refusing = report_of(kitty_says("EPERM:disabled") + b"\x1b[?62c")
    way = judge(refusing).way("kitty")
    assert not way.usable
    assert "EPERM" in way.why


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("xterm-379", "-ti vt340"),
        ("xterm.js without images", "enableImages"),
        ("screen-4.9.0", "GNU screen"),
        ("tmux-3.3a-passthrough-on-in-kitty-0.26.5", "kitty 0.28"),
        ("tmux-3.3a-passthrough-on-in-xterm-379", "tmux 3.4"),
        ("tmux 3.5a in alacritty", ",*:RGB"),
        ("silent", "--image-protocol"),
    ],
)
def test_there_is_advice_where_something_can_be_set(name, part):
    assert any(part in sentence for sentence in judge(REPORTS[name]).advice)


@pytest.mark.parametrize("name", ["kitty 0.41.1", "ghostty", "foot-1.13.1", "kitty-0.26.5"])
def test_there_is_no_advice_where_all_is_well(name):
    assert judge(REPORTS[name]).advice == ()


def test_a_lost_colorterm_is_settled_once_the_terminal_is_known_to_have_the_colours():
    environ: dict[str, str] = {}
    over_ssh = msgspec.structs.replace(
        RECORDED["xterm-379-vt340"], capabilities=msgspec.structs.replace(RECORDED["xterm-379-vt340"].capabilities, over_ssh=True)
    )
    assert settle_colorterm(over_ssh, environ)
    assert environ == {"COLORTERM": "truecolor"}
    assert any("SendEnv COLORTERM" in sentence for sentence in judge(over_ssh).advice)
    assert not settle_colorterm(over_ssh, environ)


@pytest.mark.parametrize("name", ["silent", "screen-4.9.0", "tmux 3.5a in alacritty"])
def test_colorterm_is_left_alone_where_the_colours_are_unknown(name):
    environ: dict[str, str] = {}
    assert not settle_colorterm(REPORTS[name], environ)
    assert environ == {}


def test_no_color_leaves_pixels_but_no_coloured_cells():
    known = msgspec.structs.replace(RECORDED["kitty-0.26.5"].capabilities, colours="none", colours_from="NO_COLOR")
    verdict = judge(msgspec.structs.replace(RECORDED["kitty-0.26.5"], capabilities=known))
    assert verdict.best == "kitty"
    assert not verdict.way("half").usable
    assert "NO_COLOR" in verdict.way("half").why
    assert not settle_colorterm(RECORDED["xterm-379"], {"NO_COLOR": "1"})


@pytest.mark.parametrize("known", [{"is_terminal": False}, {"term": "dumb"}, {"term": ""}])
def test_where_nothing_can_be_shown_even_answers_do_not_help(known):
    verdict = judge(report_of(kitty_says("OK", "OK", "OK") + b"\x1b[?62;4c", **known))
    assert not any(way.usable for way in verdict.ways)
    assert verdict.best == "half"
    assert choose("sixel", verdict)[0] == "half"


def test_without_utf8_only_pixels_are_left():
    verdict = judge(report_of(b"\x1b[?62;4c", utf8=False))
    assert verdict.best == "sixel"
    assert not verdict.way("half").usable
    assert any("UTF-8" in sentence for sentence in verdict.advice)


def test_what_pacing_and_updates_need_is_told():
    verdict = judge(RECORDED["kitty-0.26.5"])
    assert verdict.synchronized
    assert verdict.acknowledges
    sixel = judge(RECORDED["xterm-379-vt340"])
    assert not sixel.synchronized
    assert (sixel.sixel_registers, sixel.sixel_limit_px) == (256, (800, 510))
