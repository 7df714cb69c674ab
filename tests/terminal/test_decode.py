"""The screen that other tests look at pictures on: each protocol from bytes written by hand or by other encoders."""

from __future__ import annotations

import base64
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from sdtui.bench.screen import Parser, Screen
from tests.terminal.encoders import difference, gradient, noise, textual_image

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def screen(data: bytes, columns: int = 20, rows: int = 10, **more: object) -> Screen:
    """A screen of cells of 4 x 6 pixels that was fed these bytes."""
    shown = Screen(columns, rows, (4, 6), **more)
    shown.feed(data)
    return shown


def at(shown: Screen, x: int, y: int) -> tuple[int, ...]:
    """The colour of a pixel."""
    return shown.picture().getpixel((x, y))


def kitty(keys: str, payload: bytes = b"") -> bytes:
    """A graphics command."""
    return b"\x1b_G" + keys.encode() + (b";" + base64.b64encode(payload) if payload else b"") + b"\x1b\\"


def png(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def plain(colour: tuple[int, int, int], width: int = 8, height: int = 12) -> Image.Image:
    """One colour all over."""
    return Image.new("RGB", (width, height), colour)


# --- text and colours


def test_text_stands_where_the_cursor_was_sent() -> None:
    shown = screen(b"\x1b[3;5Hab\x1b[2Cc\r\nd\x1b[1;1He")
    assert shown.text().splitlines() == ["e", "", "    ab  c", "d", *[""] * 5]
    assert not shown.finish()


def test_a_line_wraps_only_before_the_next_character_and_not_at_all_in_mode_7_reset() -> None:
    assert screen(b"abcd\r\ne", columns=4).text().splitlines()[:2] == ["abcd", "e"]
    assert screen(b"abcde", columns=4).text().splitlines()[:2] == ["abcd", "e"]
    assert screen(b"\x1b[?7labcdef", columns=4).text().splitlines()[:2] == ["abcf", ""]


def test_a_new_line_at_the_bottom_scrolls() -> None:
    assert screen(b"a\r\nb\r\nc", columns=4, rows=2).text() == "b\nc"


def test_wide_and_combining_characters_take_two_cells_and_none() -> None:
    shown = screen("x漢e\u0301y".encode())
    assert [text for text, _ in shown.cells.lines[0][:6]] == ["x", "漢", "", "e\u0301", "y", " "]


@pytest.mark.parametrize(
    ("sgr", "colour"),
    [
        ("48;2;10;20;30", (10, 20, 30)),
        ("48:2::10:20:30", (10, 20, 30)),
        ("48;5;196", RED),
        ("48;5;244", (128, 128, 128)),
        ("41", (205, 0, 0)),
        ("104", (92, 92, 255)),
        ("31;7", (205, 0, 0)),
        ("41;49", BLACK),
        ("41;0", BLACK),
    ],
)
def test_a_blank_cell_has_the_colour_of_its_background(sgr: str, colour: tuple[int, int, int]) -> None:
    assert at(screen(f"\x1b[{sgr}m \x1b[0m".encode()), 1, 1) == colour


def test_erasing_leaves_the_background_of_the_pen() -> None:
    shown = screen(b"abc\x1b[1;2H\x1b[48;2;0;0;255m\x1b[2X")
    assert shown.text().splitlines()[0] == "a" and at(shown, 5, 1) == BLUE and at(shown, 13, 1) == BLACK


def test_the_first_screen_comes_back_after_the_second() -> None:
    shown = screen(b"below\x1b[?1049h\x1b[Habove")
    assert shown.text().splitlines()[0] == "above"
    shown.feed(b"\x1b[?1049lx")
    assert shown.text().splitlines()[0] == "belowx"


def test_half_blocks_quadrants_and_sextants_are_pixels() -> None:
    ink = b"\x1b[38;2;255;0;0;48;2;0;0;255m"
    shown = screen(ink + "▀▗🬂▌".encode())
    assert (at(shown, 1, 1), at(shown, 1, 4)) == (RED, BLUE)
    assert (at(shown, 5, 1), at(shown, 7, 4), at(shown, 5, 4)) == (BLUE, RED, BLUE)
    assert (at(shown, 9, 1), at(shown, 9, 3), at(shown, 11, 1)) == (RED, BLUE, RED)
    assert (at(shown, 13, 4), at(shown, 15, 4)) == (RED, BLUE)


def test_the_sixty_sextants_are_all_different_and_neither_a_half_nor_full_nor_empty() -> None:
    drawn = {screen(chr(0x1FB00 + index).encode(), 1, 1).picture().tobytes() for index in range(60)}
    others = {screen(character.encode(), 1, 1).picture().tobytes() for character in " █▌▐"}
    assert len(drawn) == 60 and not drawn & others


# --- pieces, and what is wrong


def test_the_size_of_the_pieces_does_not_matter() -> None:
    data = "é\x1b[31mx\x1b]0;title\x07\x1b[1;1H▀".encode() + kitty("a=T,f=24,s=1,v=1,i=1,q=2", b"abc")
    whole, pieces = screen(data), screen(b"")
    for position in range(len(data)):
        pieces.feed(data[position : position + 1])
    assert pieces.picture() == whole.picture() and pieces.text() == whole.text()
    assert pieces.title == "title" and not pieces.finish()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x1b[31", "ends within a sequence"),
        (b"\x1b_Ga=q", "ends within a sequence"),
        (b"\xff", "no UTF-8"),
        (b"\x1b[31\x07m", "no escape sequence"),
        (b"\x1b_Ga=q\x1b[31m\x1b\\", "no escape sequence"),
        (b"\x1b[5z", "CSI 5z: not known"),
        (b"\x1b[38;2;300;0;0m", "an extended colour"),
        (b"\x1b[99;1H", "the screen has 10 rows"),
        (b"\x1b[?2026hx", "within a synchronized update"),
        (b"\x00", "control character"),
        (b"\x1bP+zz\x1b\\", "is not known"),
        (b"\x1bPtmux;\x1b\x1b[31m\x1b\\", "outside tmux"),
    ],
)
def test_what_a_terminal_would_garble_is_an_error(data: bytes, words: str) -> None:
    assert any(words in error for error in screen(data).finish())


def test_after_nonsense_the_rest_is_read() -> None:
    shown = screen(b"a\x1b_Gx\x1b[1;3Hb")
    assert shown.text().splitlines()[0] == "a b" and len(shown.errors) == 1


def test_the_parser_keeps_no_more_than_one_sequence_back() -> None:
    parser = Parser()
    assert len(list(parser.feed(b"abc\x1b[1m\x1b[3"))) == 2
    assert parser.pending == b"\x1b[3"


# --- kitty


@pytest.mark.parametrize("form", ["f=24", "f=32", "f=100", "f=24,o=z"])
def test_kitty_pictures_are_exact_in_every_form(form: str) -> None:
    source = noise(40, 30)
    data = {
        "f=24": source.tobytes(),
        "f=32": source.convert("RGBA").tobytes(),
        "f=100": png(source),
        "f=24,o=z": zlib.compress(source.tobytes()),
    }[form]
    encoded = base64.b64encode(data)
    chunks = [encoded[start : start + 4096] for start in range(0, len(encoded), 4096)]
    sent = b""
    for number, chunk in enumerate(chunks):
        keys = f"a=T,i=5,{form},s=40,v=30,C=1," if number == 0 else ""
        sent += b"\x1b_G" + f"{keys}m={int(number < len(chunks) - 1)};".encode() + chunk + b"\x1b\\"
    shown = screen(sent)
    assert difference(shown.picture((0, 0, 10, 5)), source) == 0
    assert not shown.finish()
    assert shown.bytes_held == 40 * 30 * (3 if "24" in form else 4)


def test_a_placement_is_scaled_to_its_cells_and_shows_a_part() -> None:
    source = Image.new("RGB", (20, 10), RED)
    source.paste(BLUE, (10, 0, 20, 10))
    shown = screen(kitty("a=t,i=1,f=100", png(source)) + b"\x1b[2;3H" + kitty("a=p,i=1,c=5,r=2,x=10,w=10,C=1"))
    assert (at(shown, 8, 6), at(shown, 27, 17), at(shown, 28, 6), at(shown, 7, 6)) == (BLUE, BLUE, BLACK, BLACK)


def test_the_cursor_moves_behind_a_picture_unless_it_is_told_to_stay() -> None:
    data = kitty("a=T,i=1,f=24,s=1,v=1,c=3,r=2", b"abc")
    moved, stays = screen(data + b"x"), screen(data.replace(b"r=2", b"r=2,C=1") + b"x")
    assert moved.text().splitlines()[:2] == ["", "   x"] and stays.text().splitlines()[0] == "x"


def test_layers_follow_z() -> None:
    place = "a=T,i=1,f=24,s=1,v=1,c=2,r=1,C=1,z="
    cells = b"\x1b[1;2H\x1b[42m \x1b[0m\x1b[1;1H"
    below, behind, above = (screen(cells + kitty(place + z, b"\xff\0\0")) for z in ("-1073741825", "-1", "0"))
    assert at(below, 1, 1) == RED and at(below, 5, 1) == (0, 205, 0)
    assert at(behind, 5, 1) == RED
    assert at(above, 5, 1) == RED
    behind.feed("█".encode())
    assert at(behind, 1, 1) == behind.default_foreground


def test_a_frame_edited_in_place_changes_the_picture_and_no_memory() -> None:
    shown = screen(kitty("a=T,i=1,f=100,c=2,r=2,C=1,q=2", png(plain(RED))))
    held = shown.bytes_held
    for _ in range(50):
        shown.feed(kitty("a=f,i=1,r=1,f=100,X=1,q=2", png(plain(BLUE))))
    assert at(shown, 3, 3) == BLUE and shown.bytes_held == held and not shown.finish()


def test_the_last_chunk_says_which_frame_is_edited() -> None:
    encoded = base64.b64encode(plain(BLUE, 50, 50).tobytes())
    assert 4096 < len(encoded) <= 3 * 4096
    first, second, third = encoded[:4096], encoded[4096:8192], encoded[8192:]

    def sent(further: str) -> Screen:
        head = kitty("a=T,i=1,f=24,s=50,v=50,c=2,r=2,C=1,o=z", zlib.compress(plain(RED, 50, 50).tobytes()))
        parts = [("a=f,i=1,r=1,f=24,s=50,v=50,X=1,m=1", first), (f"{further}m=1", second), (f"{further}m=0", third)]
        return screen(head + b"".join(b"\x1b_G" + keys.encode() + b";" + data + b"\x1b\\" for keys, data in parts))

    good, new_frame, no_action = sent("a=f,i=1,r=1,"), sent("a=f,i=1,"), sent("")
    assert at(good, 3, 3) == BLUE and not good.finish()
    assert at(new_frame, 3, 3) == RED and "become another frame" in new_frame.finish()[0]
    assert new_frame.bytes_held == 2 * good.bytes_held
    assert at(no_action, 3, 3) == RED and "must repeat a=f" in no_action.finish()[0]


@pytest.mark.parametrize(
    ("delete", "images", "placements"),
    [
        ("d=I,i=1", 1, 1),
        ("d=i,i=1", 2, 1),
        ("d=A", 0, 0),
        ("d=a", 2, 0),
        ("I=1", 2, 0),  # textual-image 0.12's: no d at all, so everything visible, and no memory
        ("d=I,i=1,p=7", 2, 2),
        ("d=Z,z=5", 1, 1),
    ],
)
def test_what_a_deletion_takes(delete: str, images: int, placements: int) -> None:
    both = b"".join(kitty(f"a=T,i={number},z={number * 5},f=24,s=1,v=1,C=1,q=2", b"abc") for number in (1, 2))
    shown = screen(both + kitty(f"a=d,{delete}"))
    assert (shown.images_held, len(shown.kitty.placements.all)) == (images, placements)


def test_the_same_placement_moves_and_another_one_is_added() -> None:
    shown = screen(kitty("a=t,i=1,f=24,s=1,v=1", b"abc"))
    shown.feed(kitty("a=p,i=1,p=3,C=1") + b"\x1b[5;5H" + kitty("a=p,i=1,p=3,C=1"))
    assert [(one.row, one.column) for one in shown.kitty.placements.all] == [(4, 4)]
    shown.feed(kitty("a=p,i=1,p=4,C=1"))
    assert len(shown.kitty.placements.all) == 2


def test_placements_scroll_with_the_text_and_go_with_the_screen() -> None:
    shown = screen(b"\x1b[3;1H" + kitty("a=T,i=1,f=24,s=1,v=1,c=1,r=1,C=1", b"\xff\0\0") + b"\x1b[10;1H\r\n")
    assert at(shown, 1, 7) == RED
    shown.feed(b"\x1b[2J")
    assert shown.images_held == 0


def test_each_screen_has_its_own_images() -> None:
    shown = screen(b"\x1b[?1049h" + kitty("a=T,i=1,f=24,s=1,v=1,C=1", b"\xff\0\0"))
    assert shown.images_held == 1
    shown.feed(b"\x1b[?1049l")
    assert not shown.kitty.images and shown.images_held == 1
    shown.feed(b"\x1b[?1049h")
    assert shown.images_held == 0


def test_the_quota_drops_what_is_not_shown_first() -> None:
    frame = bytes(3 * 100)
    shown = screen(kitty("a=T,i=1,f=24,s=10,v=10,C=1", frame), quota_bytes=1000)
    for number in (2, 3, 4, 5):
        shown.feed(kitty(f"a=t,i={number},f=24,s=10,v=10", frame))
    assert 1 in shown.kitty.images and shown.bytes_held <= 1000 and shown.kitty.evicted == 2


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (kitty("a=q,i=9,s=1,v=1,f=24", b"abc"), b"\x1b_Gi=9;OK\x1b\\"),
        (kitty("a=q,i=9,s=1,v=1,f=24,q=1", b"abc"), b""),
        (kitty("a=q,i=9,s=2,v=1,f=24", b"abc"), b"\x1b_Gi=9;ENODATA:"),
        (kitty("a=q,i=9,s=2,v=1,f=24,q=2", b"abc"), b""),
        (kitty("a=p,i=9,U=1"), b"\x1b_Gi=9;ENOENT:"),
        (kitty("a=t,s=1,v=1,f=24", b"abc"), b""),
    ],
)
def test_kitty_answers_as_q_asks(command: bytes, answer: bytes) -> None:
    shown = screen(b"")
    (event,) = Parser().feed(command)
    assert shown.apply(event).startswith(answer) if answer else shown.apply(event) == b""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (kitty("a=t,i=1,f=24,s=1,v=1,k=3", b"abc"), "'k' is not known"),
        (kitty("a=t,i=-1,f=24,s=1,v=1", b"abc"), "out of range"),
        (kitty("a=t,i=1,i=1,f=24,s=1,v=1", b"abc"), "twice"),
        (kitty("a=t,i=1,f=100", b"no picture"), "EBADPNG"),
        (kitty("a=t,i=1,f=24,s=1,v=1,o=z", b"abc"), "EINVAL"),
        (b"\x1b_Ga=t,i=1,f=24,s=1,v=1;%%%%\x1b\\", "EINVAL"),
        (kitty("a=t,i=1,f=24,s=0,v=0", b"abc"), "0x0 pixels"),
        (kitty("a=f,i=1,r=1,f=24,s=1,v=1", b"abc"), "ENOENT"),
        (kitty("a=t,i=1,f=24,s=50,v=50", bytes(7500)), "a chunk of 10000 bytes"),
        (kitty("a=t,i=1,f=24,s=1,v=1,m=1", b"abc") + kitty("a=p,i=1"), "not complete"),
        (kitty("a=t,i=1,f=24,s=1,v=1,m=1", b"abc") + kitty("a=T,i=2,f=24,s=1,v=1", b"abc"), "not complete"),
        (kitty("a=t,i=1,f=24,s=1,v=1,m=1", b"abcd"), "within a graphics transmission"),
    ],
)
def test_kitty_commands_that_are_wrong_are_errors(command: bytes, words: str) -> None:
    assert any(words in error for error in screen(command).finish())


def test_an_older_kitty_ignores_placeholders() -> None:
    shown = screen(kitty("a=t,i=1,f=24,s=1,v=1", b"abc"), graphics={"kitty", "kitty-frames"})
    (event,) = Parser().feed(kitty("a=p,i=1,U=1,c=2,r=2"))
    assert shown.apply(event) == b"" and "not known to this terminal" in shown.errors[0]


# --- placeholders


def placeholders(rows: int, columns: int, *, foreground: str, row_marks: str = "\u0305\u030d\u030e") -> bytes:
    """Rows of placeholders; each cell says its row, the columns follow from the order."""
    lines = [f"\x1b[{foreground}m" + ("\U0010eeee" + row_marks[row]) * columns for row in range(rows)]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("foreground", ["38;2;0;0;42", "38;5;42"])
def test_placeholders_show_their_tile_and_the_rest_of_a_row_follows(foreground: str) -> None:
    source = gradient(12, 18)
    shown = screen(kitty("a=t,i=42,f=100", png(source)) + kitty("a=p,i=42,U=1,c=3,r=3"))
    shown.feed(b"\x1b[1;1H" + placeholders(3, 3, foreground=foreground))
    assert difference(shown.picture((0, 0, 3, 3)), source) == 0


def test_a_placeholder_without_its_image_shows_nothing_of_it() -> None:
    shown = screen(kitty("a=t,i=42,f=100", png(plain(RED))) + kitty("a=p,i=42,U=1,c=3,r=3"))
    shown.feed(b"\x1b[1;1H" + placeholders(3, 3, foreground="38;2;0;0;43"))
    assert set(shown.picture().get_flattened_data()) == {BLACK}


# --- sixel


def test_sixel_pixels_colours_and_repeats() -> None:
    # Two bands of 4 pixels: red, then green over its upper half; blue by hue in the second.
    shown = screen(b'\x1bP0;0;0q"1;1;4;12#0;2;100;0;0#1;2;0;100;0#2;1;0;50;100#0!4~$#1!4F-#2~~!2~\x1b\\')
    assert (at(shown, 0, 0), at(shown, 0, 3), at(shown, 3, 5), at(shown, 3, 11)) == (GREEN, RED, RED, BLUE)
    assert not shown.finish() and shown.sixels[0].late_definitions == 0 and shown.sixels[0].registers == 3
    assert (shown.cells.row, shown.cells.column) == (1, 0)


@pytest.mark.parametrize(("parameter", "colour"), [(b"0;1", GREEN), (b"0;0", BLACK), (b"", BLACK), (b"0;2", BLACK)])
def test_what_a_sixel_picture_leaves_out_is_transparent_only_with_p2_1(parameter: bytes, colour: tuple[int, ...]) -> None:
    green = b"\x1b[48;2;0;255;0m    \x1b[1;1H"
    shown = screen(green + b"\x1bP" + parameter + b'q"1;1;8;6#0;2;100;0;0??@@\x1b\\')
    assert at(shown, 0, 0) == colour and at(shown, 2, 0) == RED and at(shown, 2, 1) == colour


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"#0~", "register 0 is used before it is defined"),
        (b"~", "before a colour is chosen"),
        (b"#0;2;101;0;0~", "out of range"),
        (b"#0;3;1;1;1~", "is none"),
        (b'"2;1;4;6#0;2;0;0;0~', "not square"),
        (b'"1;1;4;6#0;2;0;0;0!5~', "5x6 pixels are drawn, 4x6 were announced"),
        (b"#0;2;0;0;0~\x1b~", "no escape sequence"),
        (b"#0;2;0;0;0~\xff", "in sixel data"),
    ],
)
def test_sixel_data_that_are_wrong_are_errors(body: bytes, words: str) -> None:
    assert any(words in error for error in screen(b"\x1bPq" + body + b"\x1b\\").finish())


def test_colours_defined_late_are_counted() -> None:
    shown = screen(b"\x1bPq#0;2;0;0;0~#1;2;100;0;0~\x1b\\")
    assert shown.sixels[0].late_definitions == 1 and not shown.finish()


def test_text_takes_the_pixels_of_its_cells_and_a_skipped_cell_keeps_them() -> None:
    shown = screen(b"\x1bPq#0;2;100;0;0!12~\x1b\\")
    shown.feed(b"\x1b[1;1H \x1b[C \x1b[0m")
    assert (at(shown, 1, 1), at(shown, 5, 1), at(shown, 9, 1)) == (BLACK, RED, BLACK)


def test_a_sixel_picture_at_the_bottom_scrolls_the_screen() -> None:
    shown = screen(b"top\x1b[10;1H\x1bPq#0;2;100;0;0!4~-!4~\x1b\\")
    assert shown.text().splitlines()[0] == "" and at(shown, 1, 50) == RED and at(shown, 1, 59) == RED
    assert (shown.cells.row, shown.cells.column) == (9, 0)


# --- iTerm2


def inline(keys: str, file: bytes) -> bytes:
    """An inline image."""
    return b"\x1b]1337;File=" + keys.encode() + b":" + base64.b64encode(file) + b"\x07"


def test_an_inline_image_fills_its_cells_and_the_cursor_follows() -> None:
    source = gradient(40, 30)
    file = png(source)
    shown = screen(inline(f"inline=1;width=10;height=5;preserveAspectRatio=0;size={len(file)}", file))
    assert difference(shown.picture((0, 0, 10, 5)), source) == 0
    assert (shown.cells.row, shown.cells.column) == (4, 10) and not shown.finish()
    stays = screen(inline("inline=1;width=10;height=5;doNotMoveCursor=1", file))
    assert (stays.cells.row, stays.cells.column) == (0, 0)


def test_an_inline_jpeg_keeps_its_aspect_ratio() -> None:
    file = io.BytesIO()
    plain(RED, 40, 10).save(file, "JPEG")
    shown = screen(inline("inline=1;width=10;height=5", file.getvalue()))
    assert shown.inline_images[0].format == "JPEG" and shown.inline_images[0].pixels.shape[:2] == (10, 40)
    assert difference(shown.picture((0, 0, 10, 1)), plain((254, 0, 0), 40, 6)) < 2 and at(shown, 1, 11) == BLACK


def test_an_inline_image_in_parts_is_the_same() -> None:
    encoded = base64.b64encode(png(plain(RED)))
    parts = [b"MultipartFile=inline=1;width=2", b"FilePart=" + encoded[:20], b"FilePart=" + encoded[20:], b"FileEnd"]
    shown = screen(b"".join(b"\x1b]1337;" + part + b"\x07" for part in parts))
    assert at(shown, 7, 11) == RED and not shown.finish()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (inline("inline=1", b"no picture"), "no picture"),
        (inline("inline=1;size=3", b"four"), "4 bytes where 3"),
        (inline("inline=1;colour=3", b"four"), "colour: not known"),
        (b"\x1b]1337;File=inline=1:%%\x07", "no base64"),
        (b"\x1b]1337;File=inline=1\x07", "without contents"),
    ],
)
def test_inline_images_that_are_wrong_are_errors(data: bytes, words: str) -> None:
    assert any(words in error for error in screen(data).finish())


# --- tmux


def wrapped(data: bytes) -> bytes:
    """A sequence in tmux's passthrough."""
    return b"\x1bPtmux;" + data.replace(b"\x1b", b"\x1b\x1b") + b"\x1b\\"


def test_tmux_hands_on_what_is_wrapped_and_swallows_what_is_not() -> None:
    command = kitty("a=T,i=1,f=24,s=1,v=1,c=2,r=2,C=1", b"\xff\0\0")
    good, bare = screen(wrapped(command), tmux=True), screen(command, tmux=True)
    assert at(good, 1, 1) == RED and not good.finish()
    assert at(bare, 1, 1) == BLACK and "which tmux swallows" in bare.finish()[0]


def test_passthrough_must_carry_whole_sequences_with_doubled_escapes() -> None:
    assert "a part of a sequence" in screen(b"\x1bPtmux;\x1b\x1b_Ga=q\x1b\\", tmux=True).finish()[0]
    assert screen(b"\x1bPtmux;\x1b_Ga=q\x1b\\", tmux=True).finish()


# --- other people's encoders


@pytest.mark.parametrize(("kind", "tolerance"), [("tgp", 0.0), ("halfcell", 2.0), ("sixel", 8.0)])
def test_what_textual_image_encodes_is_seen_as_it_was(kind: str, tolerance: float) -> None:
    source = gradient(40 * 8, 15 * 17)
    shown = Screen(80, 40)
    shown.feed(textual_image(kind, source, 40, 15))
    assert difference(shown.picture((0, 0, 40, 15)), source) <= tolerance
    assert not shown.finish()
    if kind == "sixel":
        assert shown.sixels[0].late_definitions > 100  # its colours come out wrong in xterm and foot


def test_a_picture_can_be_taken_after_a_change_of_size() -> None:
    shown = screen(b"\x1b[41mab\x1b[0m" + kitty("a=T,i=1,f=24,s=1,v=1,c=2,r=1,C=1", b"\xff\0\0"))
    shown.resize(5, 3, (10, 20))
    assert np.asarray(shown.picture()).shape == (60, 50, 3) and at(shown, 25, 5) == RED
