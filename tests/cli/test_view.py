"""`sdtui view`: each way to draw, decoded again from what was written; options; terminals that are far, small or dying."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdtui.bench.personalities import (
    ALACRITTY,
    DUMB,
    ITERM2,
    KITTY,
    OLD_KITTY,
    PLAIN,
    SILENT,
    TMUX,
    XTERM,
    XTERM_JS,
    Personality,
)
from sdtui.bench.terminal import Terminal
from sdtui.cli.card import PHOTO
from sdtui.terminal.line import may_push_back
from tests.cli.conftest import Cli
from tests.cli.in_terminal import AND_THEN, DEADLINE_S, DONE, SDTUI, UTF8, finished, lines, mistakes, photo, tmux_that_says
from tests.terminal.encoders import difference
from tests.terminal.real import Tmux

MADE = "seed 5  a red boat at sea"
# 45 rows less room for the prompt, at most 32 rows, and as many columns as a square of 8x17 cells then has.
COLUMNS, ROWS = 68, 32
HALF_TOLERANCE = 9.0


@pytest.mark.parametrize(
    ("personality", "way", "tolerance"),
    [
        (KITTY, "kitty's protocol", 0.5),
        (OLD_KITTY, "kitty's protocol", 0.5),
        (XTERM, "sixel", 5.0),
        (XTERM_JS, "iTerm2's protocol", 2.0),
        (ITERM2, "iTerm2's protocol", 2.0),
        (ALACRITTY, "quadrants", HALF_TOLERANCE),
        (SILENT, "quadrants", HALF_TOLERANCE),
        (PLAIN, "half cells", HALF_TOLERANCE),
        (TMUX, "half cells", HALF_TOLERANCE),
    ],
    ids=lambda value: value.name if isinstance(value, Personality) else None,
)
def test_a_picture_is_drawn_as_the_terminal_shows_it_best_with_a_line_below(
    personality: Personality, way: str, tolerance: float
) -> None:
    with finished(personality, "view", str(PHOTO)) as (terminal, code):
        assert code == 0
        assert difference(terminal.picture((0, 0, COLUMNS, ROWS)), photo(COLUMNS, ROWS)) < tolerance
        assert lines(terminal)[ROWS] == f"card.png  128x128 px  {way}  {MADE}"
        screen = terminal.look()
        assert (screen.cells.row, screen.cells.column) == (ROWS + 1, 0)
        assert mistakes(screen) == []


def test_in_tmux_a_picture_reaches_the_kitty_around_it(home: Path) -> None:
    environment = tmux_that_says(home, "3.3a|xterm-kitty|kitty(0.41.1)|256,RGB|1|1|1|on")
    with finished(TMUX, "view", str(PHOTO), environment=environment) as (terminal, code):
        assert code == 0
        assert lines(terminal)[ROWS] == f"card.png  128x128 px  kitty's protocol  {MADE}"
        assert difference(terminal.picture((0, 0, COLUMNS, ROWS)), photo(COLUMNS, ROWS)) < 2
        assert mistakes(terminal.look()) == []


def test_with_256_colours_half_cells_take_the_nearest() -> None:
    with finished(PLAIN, "view", str(PHOTO), environment={"COLORTERM": ""}) as (terminal, code):
        assert code == 0
        assert b"\x1b[38;5;" in terminal.output() and b";2;" not in terminal.output().partition(b"\x1b[?1;1R")[2]
        assert difference(terminal.picture((0, 0, COLUMNS, ROWS)), photo(COLUMNS, ROWS)) < 25


@pytest.mark.parametrize("personality", [KITTY, XTERM, ITERM2, PLAIN], ids=lambda personality: personality.name)
def test_near_the_bottom_the_screen_scrolls_and_nothing_is_written_over(personality: Personality) -> None:
    shell = f"seq 100 130; {' '.join(SDTUI)} view --height 10 {PHOTO}; echo prompt"
    with finished(personality, shell, command=("sh", "-c"), rows=30) as (terminal, code):
        assert code == 0
        text = lines(terminal)
        assert [text.index(word) for word in ("130", "prompt")] == [16, 28]
        assert text[:17] == [str(number) for number in range(114, 131)]
        assert text[27].startswith("card.png")
        assert difference(terminal.picture((0, 17, 21, 10)), photo(21, 10)) < 20
        assert mistakes(terminal.look()) == []


@pytest.mark.parametrize("personality", [KITTY, XTERM, ITERM2, PLAIN], ids=lambda personality: personality.name)
def test_a_picture_that_is_higher_than_the_screen_is_made_to_fit(home: Path, personality: Personality) -> None:
    tall = home / "tall.png"
    Image.linear_gradient("L").resize((300, 2000)).convert("RGB").save(tall)
    with finished(personality, "view", "--height", "1000", str(tall), rows=20) as (terminal, code):
        assert code == 0
        assert lines(terminal)[18].startswith("tall.png  300x2000 px")
        top, bottom = (terminal.picture((0, row, 4, 1)).resize((1, 1)).getpixel((0, 0)) for row in (0, 17))
        assert top[0] < 20 and bottom[0] > 235
        assert mistakes(terminal.look()) == []


@pytest.mark.parametrize("cell_px", [(8, 17), (10, 20), (7, 15), None])
@pytest.mark.parametrize(
    ("options", "columns", "rows"),
    [(["--width", "20"], 20, 43), (["--height", "6"], 100, 6), (["--width", "500", "--height", "9"], 100, 9)],
)
def test_the_options_are_upper_limits_and_proportions_are_kept(
    cell_px: tuple[int, int] | None, options: list[str], columns: int, rows: int
) -> None:
    with finished(XTERM, "view", *options, str(PHOTO), cell_px=cell_px) as (terminal, code):
        assert code == 0
        cell_width, cell_height = cell_px or (8, 16)
        (drawn,) = terminal.look().sixels
        high, wide = drawn.pixels.shape[0] / cell_height, drawn.pixels.shape[1] / cell_width
        assert wide == columns or high == rows
        assert wide <= columns and high <= rows
        assert abs(drawn.pixels.shape[0] - drawn.pixels.shape[1]) <= max(cell_width, cell_height)
        assert lines(terminal).index(f"card.png  128x128 px  sixel  {MADE}") == high


def test_a_sixel_picture_is_no_larger_than_the_terminal_takes() -> None:
    with finished(replace(XTERM, sixel_limit_px=(300, 300)), "view", str(PHOTO)) as (terminal, code):
        assert code == 0
        (drawn,) = terminal.look().sixels
        assert max(drawn.pixels.shape[:2]) <= 300


def test_a_protocol_that_cannot_be_shown_is_named_and_half_cells_are_drawn() -> None:
    arguments = ["view", "--image-protocol", "kitty", "--height", "9", str(PHOTO)]
    with finished(ALACRITTY, *arguments, columns=150) as (terminal, code):
        assert code == 0
        text = lines(terminal)
        assert text[0].startswith("Kitty's pictures cannot be shown here, half cells are: ")
        assert text[10] == f"card.png  128x128 px  half cells  {MADE}"
        assert difference(terminal.picture((0, 1, 19, 9)), photo(19, 9)) < 20


def test_finer_cells_than_few_colours_allow_are_half_cells_too() -> None:
    arguments = ["view", "--image-protocol", "sextant", "--height", "9", str(PHOTO)]
    with finished(PLAIN, *arguments, environment={"COLORTERM": ""}) as (terminal, code):
        assert code == 0
        assert "Sextant cells need 24-bit colours, half cells are shown." in terminal.text()
        assert f"px  half cells  {MADE}" in terminal.text()


def test_a_protocol_may_be_chosen_here_or_in_the_settings(home: Path) -> None:
    for arguments, environment in (
        (["--image-protocol", "sixel"], {"SDTUI_TERMINAL_IMAGE_PROTOCOL": "half"}),
        ([], {"SDTUI_TERMINAL_IMAGE_PROTOCOL": "sixel"}),
    ):
        with finished(XTERM_JS, "view", *arguments, str(PHOTO), environment=environment) as (terminal, code):
            assert code == 0 and "px  sixel" in terminal.text()


def test_an_unknown_protocol_is_named_with_the_nearest(cli: Cli) -> None:
    done = cli.run("view", "--image-protocol", "sixle", str(PHOTO))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--image-protocol: 'sixle' is not known; did you mean 'sixel'?" in done.stderr


# --- where no picture can be drawn


@pytest.mark.parametrize(
    ("personality", "environment", "why"),
    [
        (DUMB, {}, "TERM=dumb says that this terminal shows plain text only."),
        (PLAIN, {"NO_COLOR": "1"}, "NO_COLOR asks for text without colours."),
        (PLAIN, {"LC_ALL": "C", "PYTHONUTF8": "1"}, "The locale is not UTF-8"),
    ],
)
def test_where_nothing_can_be_drawn_the_reason_and_the_facts_are_said(
    personality: Personality, environment: dict[str, str], why: str
) -> None:
    with finished(personality, "view", str(PHOTO), str(PHOTO), environment=environment) as (terminal, code):
        assert code == 3
        text = terminal.text()
        assert text.count(why) == 1 and text.count(f"not drawn  {MADE}") == 2
        assert "▀" not in text
        assert b"\x1b[38" not in terminal.output()


def test_no_color_is_about_text_and_lets_a_terminal_with_pictures_show_them() -> None:
    with finished(KITTY, "view", str(PHOTO), environment={"NO_COLOR": "1"}) as (terminal, code):
        assert code == 0
        assert difference(terminal.picture((0, 0, COLUMNS, ROWS)), photo(COLUMNS, ROWS)) < 0.5


def test_into_a_file_or_a_pipe_nothing_is_written(cli: Cli, home: Path) -> None:
    done = cli.run("view", str(PHOTO))
    assert (done.returncode, done.stdout) == (2, "")
    assert "stdout is a pipe" in done.stderr and "--json" in done.stderr
    with (home / "out").open("w") as file:
        done = cli.run("view", str(PHOTO), stdout=file)
    assert done.returncode == 2 and "stdout is a file" in done.stderr
    assert (home / "out").read_bytes() == b""


def test_json_tells_the_facts_of_each_file(cli: Cli, home: Path) -> None:
    Image.new("RGB", (30, 20)).save(home / os.fsdecode(b"caf\xe9.gif"))
    done = cli.run("view", "--json", str(PHOTO), str(home / "none.png"), os.fsencode(home) + b"/caf\xe9.gif")
    assert done.returncode == 2 and "none.png cannot be read: No such file" in done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {
        "path": str(PHOTO),
        "format": "PNG",
        "width_px": 128,
        "height_px": 128,
        "seed": 5,
        "prompt": "a red boat at sea",
    }
    assert (second["path"], second["format"]) == (f"{home}/caf\ufffd.gif", "GIF")
    assert (second["width_px"], second["height_px"], second["seed"]) == (30, 20, None)


# --- files


def bomb(path: Path) -> Path:
    """A few bytes that say they are 2.5 thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )
    return path


def test_what_is_wrong_with_a_file_is_said_and_the_others_are_shown(home: Path) -> None:
    (home / "text.png").write_text("hello")
    (home / "cut.png").write_bytes(PHOTO.read_bytes()[:9000])
    (home / "empty.png").touch()
    (home / "folder").mkdir()
    os.mkfifo(home / "fifo")
    bomb(home / "bomb.png")
    (home / "last.png").write_bytes(PHOTO.read_bytes())
    names = ["none.png", "text.png", "cut.png", "empty.png", "folder", "fifo", "bomb.png"]
    said = [
        "none.png cannot be read: No such file or directory.",
        "text.png is no picture that can be read; PNG, JPEG,",
        "cut.png is damaged or cannot be read: image file is truncated",
        "empty.png is no picture",
        f"folder is a directory; give the files in it, as in: sdtui view {home}/folder/*.png",
        "fifo is no regular file",
        "bomb.png has too many pixels: up to 89,478,485 are unpacked.",
    ]
    files = [str(PHOTO), *(str(home / name) for name in names), str(home / "last.png")]
    with finished(KITTY, "view", "--height", "5", *files, columns=200) as (terminal, code):
        assert code == 2
        text = terminal.text()
        assert [line for line in said if f"sdtui: {home}/{line}" not in text and line not in text] == []
        assert text.count("sdtui: ") == len(names)
        assert f"card.png  128x128 px  kitty's protocol  {MADE}" in text
        assert f"last.png  128x128 px  kitty's protocol  {MADE}" in text
        assert mistakes(terminal.look()) == []


def test_a_file_without_a_name_and_no_file_are_bad_input(cli: Cli) -> None:
    assert "Missing argument" in cli.run("view").stderr
    done = cli.run("view", "--json", "")
    assert done.returncode == 2 and "The name of a file is empty." in done.stderr


@pytest.mark.parametrize("option", ["--width", "--height"])
@pytest.mark.parametrize("value", ["0", "-3", "wide"])
def test_a_limit_that_is_no_number_of_cells_is_named(cli: Cli, option: str, value: str) -> None:
    done = cli.run("view", option, value, str(PHOTO))
    assert done.returncode == 2 and option in done.stderr


def test_what_a_file_says_of_itself_stays_in_its_line_and_is_never_acted_on(home: Path) -> None:
    info = PngInfo()
    info.add_itxt("parameters", f"{'猫' * 90}\x1b]0;owned\x07\x1b[2J\x9b31m[/]\nSteps: 20, Sampler: Euler, Seed: 77")
    Image.new("RGB", (8, 8)).save(home / "evil\x1b[2Jname.png", pnginfo=info)
    with finished(KITTY, "view", "--height", "5", str(home / "evil\x1b[2Jname.png"), columns=60) as (terminal, code):
        assert code == 0
        screen = terminal.look()
        text = lines(terminal)
        assert text[5].startswith("evilname.png  8x8 px  kitty's protocol  seed 77  猫猫") and text[5].endswith("…")
        assert (screen.cells.row, screen.title) == (6, "")
        assert mistakes(screen) == []


# --- the terminal


@pytest.mark.parametrize("latency_s", [0.0, 0.4])
@pytest.mark.parametrize("typed", [b"", b"ls -l\r", b"vi \xc3\xa9\x1b[A"])
def test_no_answer_is_left_in_the_input_and_no_key_is_lost(latency_s: float, typed: bytes) -> None:
    command = [sys.executable, "-c", AND_THEN, "view", str(PHOTO)]
    with Terminal(command, personality=KITTY, latency_s=latency_s, columns=100, rows=45, environment=UTF8) as terminal:
        terminal.wait_for("\x1b[c", DEADLINE_S)
        if typed:
            terminal.type(typed)
        terminal.wait_for(DONE, DEADLINE_S)
        (end,) = (line for line in lines(terminal) if DONE in line)
        assert end.startswith("[0 ") and "same" in end
        assert "kitty's protocol" in terminal.text()
        if not typed:
            assert "b''" in end
        elif ascii(typed.rstrip(b"\r"))[:-1] not in end:  # Enter comes as a newline, or as itself in the moment of the change
            assert not may_push_back() and "could not be put back" in terminal.text()
        assert mistakes(terminal.look()) == []


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_a_real_tmux_no_answer_is_left_and_no_key_is_lost() -> None:
    command = [sys.executable, "-c", AND_THEN, "view", "--height", "9", str(PHOTO)]
    with Tmux(command, columns=100, rows=30, env=UTF8) as tmux:
        tmux.type("ls")
        tmux.wait_to_show(DONE)
        shown = tmux.screen()
        (end,) = (line for line in shown.splitlines() if DONE in line)
        assert end.startswith("[0 ") and "same" in end
        assert "b'ls'" in end or not may_push_back()
        assert MADE in shown and "▀" in shown


def test_a_list_of_files_on_stdin_does_not_keep_the_terminal_from_being_asked() -> None:
    shell = f"echo {PHOTO} | xargs {' '.join(SDTUI)} view"
    with finished(KITTY, shell, command=("sh", "-c")) as (terminal, code):
        assert code == 0 and "kitty's protocol" in terminal.text()


@pytest.mark.parametrize("personality", [KITTY, XTERM, ITERM2, PLAIN], ids=lambda personality: personality.name)
@pytest.mark.parametrize("after_bytes", [2_000, 12_000])
def test_an_interrupt_in_the_middle_of_a_picture_leaves_a_terminal_that_works(personality: Personality, after_bytes: int) -> None:
    command = [sys.executable, "-c", AND_THEN, "view", str(PHOTO)]
    terminal = Terminal(command, personality=personality, bytes_per_s=30_000, columns=100, rows=45, environment=UTF8)
    with terminal:
        terminal.wait_until(lambda _: terminal.read_bytes > after_bytes, "a part of the picture")
        terminal.type(b"\x03")
        terminal.wait_for(DONE, DEADLINE_S)
        (end,) = (line for line in lines(terminal) if DONE in line)
        assert end == f"[130 b'' same ] {DONE}"
        screen = terminal.look()
        assert not [error for error in screen.finish() if "the output ends within" in error]
        assert screen.cells.pen.background < 0


@pytest.mark.parametrize("after_bytes", [100, 3_000])
def test_a_terminal_that_dies_ends_the_command(after_bytes: int) -> None:
    with Terminal([*SDTUI, "view", str(PHOTO)], personality=KITTY, dies_after_bytes=after_bytes) as terminal:
        assert terminal.process.wait(DEADLINE_S) == -signal.SIGHUP


def test_a_terminal_that_dies_without_hanging_up_its_program_is_no_traceback(cli: Cli) -> None:
    outside, inside = pty.openpty()
    process = subprocess.Popen(
        [*SDTUI, "view", "--image-protocol", "kitty", str(PHOTO), str(PHOTO)],
        stdin=subprocess.DEVNULL,
        stdout=inside,
        stderr=subprocess.PIPE,
        env=cli.environment | KITTY.environment | UTF8,
        start_new_session=True,
    )
    os.close(inside)
    os.read(outside, 100)
    os.close(outside)
    said = process.communicate(timeout=DEADLINE_S)[1]
    assert (process.returncode, said) == (141, b"")
