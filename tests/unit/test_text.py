"""Whatever comes in, nothing comes out that a terminal would act on."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdtui.text import count_noun, format_bytes, format_seconds, is_safe, safe_text

NASTY = st.text(
    st.one_of(
        st.sampled_from("\x1b\x9b\x9d\x90\x98\x9e\x9f\x9c\x07\r\n\t\\[]P^_X;0m@~ \u202e\u200b\ufeff\ud800"),
        st.characters(),
        st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"]),
    )
)
STRINGS = [
    "\x1b]{}\x07",
    "\x1b]{}\x1b\\",
    "\x1bP{}\x1b\\",
    "\x1b_{}\x1b\\",
    "\x1b^{}\x9c",
    "\x1bX{}\x9c",
    "\x9d{}\x9c",
    "\x90{}\x07",
]
ALLOWED_CONTROLS = {"\n", "\t"}


@given(text=NASTY, multiline=st.booleans())
@example(text="\x1b\x1b[31m[31m", multiline=False)
@example(text="\r\r\n", multiline=True)
def test_no_control_character_is_left(text: str, multiline: bool) -> None:
    allowed = ALLOWED_CONTROLS if multiline else set()
    left = {character for character in safe_text(text, multiline=multiline) if unicodedata.category(character) in ("Cc", "Cs")}
    assert left <= allowed


@given(
    data=st.binary(max_size=200), encoding=st.sampled_from(["utf-8", "latin-1", "cp1252", "utf-16-le"]), multiline=st.booleans()
)
def test_of_arbitrary_bytes_only_text_reaches_the_terminal(data: bytes, encoding: str, multiline: bool) -> None:
    for errors in ("replace", "surrogateescape" if encoding == "utf-8" else "replace"):
        written = safe_text(data.decode(encoding, errors), multiline=multiline).encode()  # what does not encode would raise
        low = {byte for byte in written if byte < 0x20 or byte == 0x7F}
        assert low <= ({0x0A, 0x09} if multiline else set())
        for character in written.decode():
            assert not "\x80" <= character <= "\x9f"
            assert unicodedata.bidirectional(character) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@given(
    before=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8),
    after=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8),
    kind=st.sampled_from(STRINGS),
    payload=st.text(st.characters(exclude_characters="\x07\x1b\x9c"), max_size=20),
)  # fmt: skip
def test_a_string_sequence_goes_as_a_whole_with_what_is_in_it(before: str, after: str, kind: str, payload: str) -> None:
    assert safe_text(before + kind.format(payload) + after) == safe_text(before) + safe_text(after)


HIDDEN = [*range(0xE0000, 0xE0080), *range(0xE0100, 0xE01F0), *range(0xFE00, 0xFE0E), 0x034F, 0x17B4, 0x180E, 0x2060, 0x1D173]


def test_characters_that_hide_text_go() -> None:
    assert [hex(code) for code in HIDDEN if safe_text(f"a{chr(code)}b") != "ab"] == []


def test_emoji_stay_emoji() -> None:
    assert safe_text("a \u2764\ufe0f cat") == "a \u2764\ufe0f cat"


@pytest.mark.parametrize("attack", ["\x1b]", "\x9d", "\x1b[", "\x1b", "\x1bP\x1b", "\u202e", "\x1b[1;"], ids=ascii)
def test_a_megabyte_of_attacks_takes_no_more_than_its_length(attack: str) -> None:
    assert "\x1b" not in safe_text(attack * (1_000_000 // len(attack)))


@given(NASTY)
def test_no_direction_override_or_invisible_character_is_left(text: str) -> None:
    assert not set(safe_text(text)) & set("\u200b\u200e\u200f\u202a\u202b\u202d\u202e\u2066\u2067\u2069\u2028\u2029\ufeff\u00ad")


@given(text=NASTY, multiline=st.booleans(), limit=st.none() | st.integers(0, 20))
def test_cleaning_twice_changes_nothing(text: str, multiline: bool, limit: int | None) -> None:
    once = safe_text(text, multiline=multiline, limit=limit)
    assert safe_text(once, multiline=multiline, limit=limit) == once


@given(text=NASTY, limit=st.integers(0, 20))
def test_the_limit_holds(text: str, limit: int) -> None:
    assert len(safe_text(text, limit=limit)) <= limit


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert safe_text(text) == text
    assert is_safe(text)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a \x1b[31mred\x1b[0m cat", "a red cat"),
        ("\x1b]0;title\x07cat", "cat"),
        ("\x1b]52;c;cGF5bG9hZA==\x1b\\cat", "cat"),
        ("\x1bP1$r0m\x1b\\cat", "cat"),
        ("\x1b_Gf=24;AAAA\x1b\\cat", "cat"),
        ("\x9b31mcat", "cat"),
        ("\x9d0;title\x9ccat", "cat"),
        ("cat\x1b]0;never ended", "cat"),
        ("cat\x1b", "cat"),
        ("c\x1bcat", "cat"),
        ("cat\rdog", "catdog"),
        ("gpj.\u202etac", "gpj.tac"),
        ("a [/] cat [@click=app.quit]", "a [/] cat [@click=app.quit]"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("naïve café 🐈 猫", "naïve café 🐈 猫"),
    ],
)
def test_known_attacks(text: str, safe: str) -> None:
    assert safe_text(text) == safe


def test_lines_and_tabs_stay_where_they_may() -> None:
    assert safe_text("a\r\nb\tc", multiline=True) == "a\nb\tc"
    assert is_safe("a\nb")
    assert not is_safe("a\x07b")


def test_what_is_cut_is_marked() -> None:
    assert safe_text("a long prompt", limit=6) == "a lon…"
    assert safe_text("short", limit=5) == "short"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (12_288, "12 kB"), (1 << 20, "1 MiB"), (1 << 30, "1.0 GiB"), (1_181_116_006, "1.1 GiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.048, "48 ms"),
        (0.9999, "1.0 s"),
        (1.23, "1.2 s"),
        (59.99, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3600, "1 h 00 min"),
        (7322, "2 h 02 min"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_counts_for_people() -> None:
    assert [count_noun(count, "image") for count in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
