"""Answers are taken out, keys come back: at every cut of the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdtui.terminal.answers import (
    FRAME_ID,
    PLACEHOLDER_ID,
    QUERY_ID,
    CellSizeAnswer,
    GraphicsAnswer,
    StatusReport,
    WindowSizeAnswer,
    read_answers,
)
from sdtui.terminal.parser import AnswerParser

BATCH = [
    b"\x1bP>|kitty(0.26.5)\x1b\\",
    b"\x1b[>1;4000;26c",
    b"\x1b_Gi=%d;OK\x1b\\" % QUERY_ID,
    b"\x1b_Gi=%d;ENOENT:no such picture\x1b\\" % PLACEHOLDER_ID,
    b"\x1b_Gi=%d,r=1;OK\x1b\\" % FRAME_ID,
    b"\x1b[6;17;8t",
    b"\x1b[4;714;1040t",
    b"\x1b[?2026;2$y",
    b"\x1bP1$r0;48:2:10:20:30m\x1b\\",
    b"\x1b]10;rgb:dddd/eeee/ffff\x1b\\",
    b"\x1b]11;rgb:00/80/ff\x07",
    b"\x1b[?1;0;1024S",
    b"\x1b[?2;0;1000;900S",
    b"\x1b]1337;ReportCellSize=17.0;8.0;2.0\x1b\\",
    b"\x1b[?12;40;1R",
    b"\x1b[0n",
]
DA1 = b"\x1b[?62;4;22c"
KEYS = [
    b"a", b"q", "ä".encode(), b"\r", b"\x03", b"\x1b", b"\x1b[A", b"\x1b[1;5C", b"\x1bOP", b"\x1b[15~", b"\x1b[6;5~",
    b"\x1b[1;2R", b"\x1bP", b"\x1b]", b"\x1b_", b"\x1b\x1b[A", b"\x1b[<0;10;12M", b"\x1b[M !!", b"\x1b[I", b"\x1b[?7u",
    b"\x1b[27;5;13~", b"\x1b[97;5u", b"\x1b[200~\x1b[?62;4c\x1b_Gi=1;OK\x1b\\\x1b[0n\x1b[201~", b"\x1b[48;24;80;480;640t",
    b"0n", b"[A", b"\\",
]  # fmt: skip


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[first:last] for first, last in pairwise(edges)]


@given(
    st.lists(st.lists(st.sampled_from(KEYS), max_size=4), min_size=len(BATCH) + 2, max_size=len(BATCH) + 2),
    st.lists(st.integers(0, 5000), max_size=12),
)
@settings(max_examples=400)
def test_any_cut_of_any_mix_gives_back_exactly_the_keys(keys, places):
    # A lone ESC before an answer is a key too; before another key it would be one key with alt, which comes back all the same.
    pieces = [b"".join(keys[0])]
    for answer, after in zip([*BATCH, DA1], keys[1:], strict=True):
        pieces += [answer, b"".join(after)]
    expected = b"".join(pieces[0::2])
    parser = AnswerParser()
    got = b"".join(parser.feed(part) for part in cut(b"".join(pieces), places)) + parser.flush()
    assert got == expected
    assert parser.done
    assert parser.raw == b"".join([*BATCH, DA1])
    assert parser.answers() == read_answers([*BATCH, DA1])


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_when_nothing_is_expected_everything_passes_at_once(data, places):
    parser = AnswerParser(())
    for part in cut(data, places):
        assert parser.feed(part) == part
        assert not parser.pending
    assert parser.flush() == b""


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_the_same_bytes_give_the_same_keys_wherever_they_are_cut(data, places):
    whole, parts = AnswerParser(), AnswerParser()
    expected = whole.feed(data) + whole.flush()
    assert b"".join(parts.feed(part) for part in cut(data, places)) + parts.flush() == expected


def test_every_answer_is_understood():
    answers = read_answers([*BATCH, DA1])
    assert answers.name == "kitty(0.26.5)"
    assert answers.secondary == (1, 4000, 26)
    assert (answers.kitty_query, answers.kitty_placeholder, answers.kitty_frame) == ("OK", "ENOENT:no such picture", "OK")
    assert (answers.cell_px, answers.window_px) == ((8, 17), (1040, 714))
    assert (answers.synchronized, answers.sgr) == (2, "0;48:2:10:20:30")
    assert (answers.foreground, answers.background) == ((0xDDDD, 0xEEEE, 0xFFFF), (0, 0x8080, 0xFFFF))
    assert (answers.sixel_registers, answers.sixel_limit_px) == (1024, (1000, 900))
    assert answers.iterm2_cell == (8.0, 17.0, 2.0)
    assert (answers.cursors, answers.status) == (((12, 40),), True)
    assert answers.device_attributes == (62, 4, 22)


def test_inside_tmux_the_second_da1_is_the_outer_terminals():
    parser = AnswerParser(rounds=2)
    parser.feed(b"\x1b[?1;2;4c")
    assert not parser.done
    assert parser.feed(b"x\x1b_Gi=%d;OK\x1b\\\x1b[?62c" % QUERY_ID) == b"x"
    assert parser.done
    assert (parser.answers().device_attributes, parser.answers().outer_attributes) == ((1, 2, 4), (62,))


def test_what_textual_asks_after_us_reaches_textual():
    parser = AnswerParser()
    parser.feed(DA1)
    for answer in (b"\x1b[?2026;2$y", b"\x1b[?2048;0$y", b"\x1b[0n", DA1):
        assert parser.feed(answer) == answer


def test_an_answer_that_overtook_nobody_but_came_after_da1_is_taken_out():
    parser = AnswerParser()
    parser.feed(DA1)
    assert parser.feed(b"\x1b]1337;ReportCellSize=17.0;8.0\x1b\\k") == b"k"
    assert parser.answers().iterm2_cell == (8.0, 17.0, 1.0)


def test_after_the_batch_the_escape_key_does_not_wait():
    parser = AnswerParser()
    parser.feed(DA1)
    assert parser.feed(b"\x1b") == b"\x1b"
    assert parser.feed(b"[A") == b"[A"
    assert parser.flush() == b""


def test_a_lone_escape_is_given_back():
    parser = AnswerParser()
    assert parser.feed(b"\x1b") == b""
    assert parser.pending
    assert parser.flush() == b"\x1b"


def test_alt_with_a_letter_that_begins_a_string_is_given_back():
    parser = AnswerParser()
    assert parser.feed(b"\x1bP") + parser.flush() == b"\x1bP"
    assert parser.feed(b"\x1bPq") == b"\x1bPq"


@pytest.mark.parametrize("half", [answer[:-1] for answer in BATCH if answer[1:2] in b"P_]"] + [b"\x1b[?62;4", b"\x1b[>1;40"])
def test_half_an_answer_is_not_typed_into_the_app(half):
    parser = AnswerParser()
    assert parser.feed(half) == b""
    assert parser.flush() == b""
    assert parser.feed(b"hello") == b"hello"


def test_half_an_answer_does_not_hide_the_next():
    parser = AnswerParser()
    assert parser.feed(b"\x1bP>|kit\x1b[?62;4ck") == b"k"
    assert parser.done


def test_megabytes_are_held_in_a_few_kilobytes():
    parser = AnswerParser()
    for _ in range(500):
        assert parser.feed(b"\x1bP>|" + b"x" * 10_000) == b""
        assert len(parser._held) <= 1 << 16
    assert parser.feed(b"\x1b\\hi" + DA1) == b"hi"
    assert parser.done
    assert len(parser.raw) < 1 << 17


def test_megabytes_of_whole_answers_are_not_kept():
    parser = AnswerParser()
    for _ in range(2000):
        parser.feed(b"\x1bP>|" + b"x" * 3000 + b"\x1b\\")
    assert len(parser.raw) <= 1 << 16


def test_acknowledgements_become_events_and_no_more_than_were_asked_for():
    parser = AnswerParser(())
    parser.expect_status(2)
    assert parser.feed(b"a\x1b[0") == b"a"
    assert parser.feed(b"nb\x1b[0n\x1b[0n") == b"b\x1b[0n"
    assert parser.events() == [StatusReport(), StatusReport()]
    assert parser.events() == []


def test_an_acknowledgement_asked_for_while_the_batch_is_late_comes_after_the_batch():
    parser = AnswerParser()
    parser.expect_status()
    assert parser.feed(b"\x1b[0n" + DA1) == b""
    assert parser.events() == []
    assert parser.feed(b"\x1b[0n") == b""
    assert parser.events() == [StatusReport()]


def test_sizes_and_graphics_errors_become_events():
    parser = AnswerParser(())
    parser.expect_sizes(2)
    parser.expect_graphics()
    assert parser.feed(b"\x1b[6;17;8tx\x1b_Gi=7,p=1;ENOSPC:full\x1b\\\x1b[4;714;1040t") == b"x"
    assert parser.events() == [
        CellSizeAnswer(width_px=8, height_px=17),
        GraphicsAnswer(7, "ENOSPC:full"),
        WindowSizeAnswer(width_px=1040, height_px=714),
    ]


def test_a_paste_is_the_users_even_where_its_begin_came_before_anything_was_expected():
    parser = AnswerParser(())
    assert parser.feed(b"\x1b[20") == b"\x1b[20"
    parser.expect_status()
    assert parser.feed(b"0~text\x1b[0n") == b"0~text\x1b[0n"
    assert parser.feed(b"\x1b[201~\x1b[0n") == b"\x1b[201~"


@pytest.mark.parametrize(
    "nonsense",
    [b"\x1b[?c", b"\x1b]10;rgb:zz/1/2\x07", b"\x1b]1337;ReportCellSize=a;b\x1b\\", b"\x1bP1$rm\x1b\\", b"\x1b[>;;c"],
)
def test_an_answer_without_meaning_is_taken_out_and_means_nothing(nonsense):
    parser = AnswerParser()
    assert parser.feed(nonsense + b"k") == b"k"
    parser.answers()


def test_an_answer_of_megabytes_is_dropped_and_the_keys_behind_it_are_kept() -> None:
    parser = AnswerParser()
    flood = b"before\x1b[?62" + b";4" * (1 << 20) + b"cafter"
    kept = b"".join(parser.feed(flood[start : start + 4096]) for start in range(0, len(flood), 4096))
    assert kept == b"beforeafter"
    assert not parser.pending
