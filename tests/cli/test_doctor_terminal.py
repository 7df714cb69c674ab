"""`sdtui doctor --terminal`: what it says of scripted terminals, its test cards, and reports that are saved and judged again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdtui.bench.personalities import ALACRITTY, DUMB, ITERM2, KITTY, PLAIN, SILENT, TMUX, XTERM, Personality
from sdtui.bench.terminal import Terminal
from sdtui.cli.card import make_card
from sdtui.terminal.report import Report
from sdtui.terminal.verdict import judge
from tests.cli.conftest import Cli
from tests.cli.in_terminal import AND_THEN, DEADLINE_S, DONE, UTF8, finished, lines, mistakes, tmux_that_says
from tests.terminal.encoders import difference

# As wide as the card may be, and as high as its shape then makes it in cells of 8x17 pixels.
COLUMNS, ROWS = 72, 15
BLOCKS = 30.0
"""Text and fine lines are lost; the mean of each cell is not."""
BOX = Image.Resampling.BOX
CHECKS = "from sdtui.cli import checks; import json; [print(c.name, c.state, c.found, '|', c.advice) for c in checks._terminal()]"


def row(terminal: Terminal, name: str) -> str:
    (found,) = (" ".join(line.split()) for line in lines(terminal) if line.startswith(f"{name}  "))
    return found


@pytest.mark.parametrize(
    ("personality", "cards"),
    [
        (KITTY, {"kitty's protocol": 0.5, "sextants": BLOCKS, "quadrants": BLOCKS, "half cells": BLOCKS}),
        (XTERM, {"sixel": 6, "half cells": BLOCKS}),
        (ITERM2, {"iTerm2's protocol": 3, "sixel": 6, "half cells": BLOCKS}),
        (ALACRITTY, {"quadrants": BLOCKS, "half cells": BLOCKS}),
        (PLAIN, {"half cells": BLOCKS}),
    ],
    ids=lambda value: value.name if isinstance(value, Personality) else None,
)
def test_a_card_is_drawn_in_each_way_that_the_terminal_claims_under_its_name(
    personality: Personality, cards: dict[str, float]
) -> None:
    with finished(personality, "doctor", "--terminal", rows=100) as (terminal, code):
        assert code == 0
        assert mistakes(terminal.look()) == []
        source = make_card(COLUMNS * 8, ROWS * 17).image()
        labels = {line.split(",")[0]: at for at, line in enumerate(lines(terminal)) if line.endswith("cells, 576x255 px")}
        assert list(labels) == list(cards)
        for name, at in labels.items():
            drawn = terminal.picture((0, at + 1, COLUMNS, ROWS))
            assert difference(drawn, source) < cards[name], name
            assert difference(drawn.resize((COLUMNS, ROWS), BOX), source.resize((COLUMNS, ROWS), BOX)) < 4, name


def test_what_was_detected_is_said_with_its_reason() -> None:
    with finished(KITTY, "doctor", "--terminal", rows=100) as (terminal, code):
        assert code == 0
        assert row(terminal, "terminal") == "terminal kitty 0.41.1 TERM=xterm-kitty"
        assert row(terminal, "asked").startswith("asked yes answered within ")
        assert row(terminal, "kitty").startswith("kitty yes The terminal answers OK to kitty's question")
        assert row(terminal, "sixel") == "sixel no The terminal's attributes (DA1) do not name sixel."
        assert row(terminal, "drawn by").startswith("drawn by kitty placement classic, frames by edit")
        assert row(terminal, "cell") == "cell 8x17 px by CSI 16 t"
        assert row(terminal, "colours") == "colours truecolor by COLORTERM"
        assert row(terminal, "synchronized").startswith("synchronized yes")
        assert row(terminal, "acknowledged").startswith("acknowledged yes")


def test_inside_tmux_its_own_facts_and_what_to_set_are_said(home: Path) -> None:
    environment = tmux_that_says(home, "3.3a|xterm-kitty|kitty(0.41.1)|256|1|1|1|off") | {
        "COLORTERM": "",
        "SSH_TTY": "/dev/pts/9",
    }
    with finished(TMUX, "doctor", "--terminal", columns=150, rows=60, environment=environment) as (terminal, code):
        assert code == 0
        assert row(terminal, "terminal") == "terminal kitty 0.41.1 around tmux over ssh TERM=tmux-256color"
        assert row(terminal, "tmux") == ("tmux 3.3a in kitty(0.41.1), shown by 1 terminal, allow-passthrough off, features 256")
        assert "- To see kitty's pictures in tmux, put into ~/.tmux.conf: set -g allow-passthrough on" in lines(terminal)
        assert terminal.text().count("72x15 cells") == 1


def test_a_terminal_that_says_nothing_is_said_to_and_is_shown_what_it_should_know() -> None:
    with finished(SILENT, "doctor", "--terminal", columns=150, rows=60) as (terminal, code):
        assert code == 0
        assert row(terminal, "asked").startswith("asked yes did not answer everything")
        assert row(terminal, "kitty") == "kitty unknown The terminal did not answer in time."
        assert "--image-protocol" in terminal.text()


def test_a_plain_text_terminal_is_told_how_to_become_another_and_sees_no_card() -> None:
    with finished(DUMB, "doctor", "--terminal") as (terminal, code):
        assert code == 0
        assert "No test card can be drawn here." in terminal.text()
        assert "export TERM=xterm-256color" in terminal.text()
        assert b"\x1b" not in terminal.output()


def test_one_way_can_be_asked_for_and_one_that_is_not_there_is_half_cells() -> None:
    with finished(ITERM2, "doctor", "--image-protocol", "sixel", rows=60) as (terminal, code):
        assert code == 0
        assert len(terminal.look().sixels) == 1 and not terminal.look().inline_images
        assert terminal.text().count("72x15 cells") == 1
    with finished(ALACRITTY, "doctor", "--terminal", "--image-protocol", "kitty", columns=150, rows=60) as (terminal, code):
        assert code == 0
        assert "Kitty's pictures cannot be shown here, half cells are: " in terminal.text()
        assert "half cells, 72x15 cells" in terminal.text()


def test_the_terminal_is_left_as_it_was_over_a_long_line() -> None:
    command = [sys.executable, "-c", AND_THEN, "doctor", "--terminal"]
    with Terminal(command, personality=KITTY, latency_s=0.4, columns=100, rows=100, environment=UTF8) as terminal:
        terminal.wait_for(DONE, DEADLINE_S)
        assert f"[0 b'' same ] {DONE}" in lines(terminal)
        assert "kitty's protocol, 72x15 cells" in terminal.text()


# --- JSON, saved and judged again


def test_json_is_the_report_and_the_verdict_and_no_card() -> None:
    with finished(KITTY, "doctor", "--terminal", "--json", columns=8000) as (terminal, code):
        assert code == 0
        (line,) = filter(None, lines(terminal))
        said = json.loads(line)
        report = Report.from_json(json.dumps(said["report"]))
        assert report.complete and report.answers.name == "kitty(0.41.1)"
        assert (said["verdict"]["best"], said["verdict"]["terminal"]) == ("kitty", "kitty 0.41.1")
        assert not terminal.look().images_held


def test_through_a_pipe_the_terminal_of_stderr_is_told_of(home: Path) -> None:
    out = home / "out"
    shell = f"{sys.executable} -m sdtui doctor --terminal --json > {out}; {sys.executable} -m sdtui doctor --terminal >> {out}"
    with finished(KITTY, shell, command=("sh", "-c")) as (terminal, code):
        assert code == 0
        assert terminal.text().count("stdout is no terminal; this is the one of stderr") == 2
    first, *others = out.read_text().splitlines()
    assert json.loads(first)["verdict"]["best"] == "kitty"
    assert any(line.startswith("kitty ") and " yes " in line for line in others)
    assert "\x1b" not in out.read_text()


def test_where_there_is_no_terminal_that_is_said(cli: Cli) -> None:
    done = cli.run("doctor", "--terminal")
    assert done.returncode == 0
    assert "stdout is no terminal." in done.stdout and "\x1b" not in done.stdout
    assert json.loads(cli.run("doctor", "--terminal", "--json").stdout)["report"]["asked"] is False


def test_a_saved_report_is_judged_as_the_terminal_was(cli: Cli, home: Path) -> None:
    file = home / "report.json"
    with finished(ITERM2, "doctor", "--terminal", "--save", str(file), rows=100) as (terminal, code):
        assert code == 0 and f"The report is in {file}." in terminal.text()
    report = Report.from_json(file.read_bytes())
    assert report.complete and judge(report).best == "iterm2"
    done = cli.run("doctor", "--replay", str(file))
    assert done.returncode == 0 and done.stderr == ""
    assert "iterm2 3.5.0" in done.stdout and "iterm2        yes" in done.stdout
    verdict = json.loads(cli.run("doctor", "--replay", str(file), "--json").stdout)["verdict"]
    assert verdict["best"] == "iterm2"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory."),
        (b"", "is no saved report"),
        (b"hello", "is no saved report"),
        (b"{}", "is no saved report: Object missing required field `capabilities`"),
        (b'{"capabilities": 3}', "is no saved report: Expected `object`"),
        (b"[" * 100_000, "is no saved report"),
        (b"\xff\xfe", "is no saved report"),
        (b" " * (2 << 20), "it has more than 1,048,576 bytes"),
    ],
)
def test_a_replay_of_what_is_no_report_names_the_file(cli: Cli, home: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (home / "report.json").write_bytes(content)
    done = cli.run("doctor", "--replay", str(home / "report.json"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"sdtui: --replay: {home}/report.json" in done.stderr and said in done.stderr
    assert done.stderr.count("\n") == 1


def test_options_that_cannot_be_are_named(cli: Cli, home: Path) -> None:
    for arguments, said in (
        (["--save", str(home)], f"--save: {home} cannot be written: Is a directory."),
        (["--save", "/proc/nowhere"], "--save: /proc/nowhere cannot be written"),
        (["--replay", str(home)], f"--replay: {home} cannot be read: Is a directory."),
        (["--replay", "a", "--save", "b"], "--save and --replay"),
        (["--image-protocol", "sixle"], "--image-protocol: 'sixle' is not known; did you mean 'sixel'?"),
    ):
        done = cli.run("doctor", *arguments)
        assert (done.returncode, done.stdout) == (2, "") and said in done.stderr


def test_a_saved_report_with_control_sequences_is_shown_without_them(home: Path) -> None:
    with finished(KITTY, "doctor", "--save", str(home / "r.json")):
        pass
    report = json.loads((home / "r.json").read_text())
    report["capabilities"]["term"] = "xterm\x1b]0;owned\x07\x1b[2J"
    report["tmux"] = {"version": "3.3a\x9b2J", "outer_name": "kitty(1.0)\x1b[31m", "clients": -(10**9)}
    (home / "r.json").write_text(json.dumps(report))
    with finished(PLAIN, "doctor", "--replay", str(home / "r.json")) as (terminal, code):
        assert code == 0
        assert terminal.look().title == "" and mistakes(terminal.look()) == []
        assert b"\x1b" not in terminal.output()


# --- the lines of the plain doctor


def test_the_doctors_own_lines_go_by_what_the_terminal_says() -> None:
    command = (sys.executable, "-c", CHECKS)
    with finished(KITTY, command=command, environment={"COLORTERM": "", "SSH_TTY": "/dev/pts/9"}, columns=200) as (terminal, _):
        text = lines(terminal)
        assert text[0] == "terminal ok 200x45 cells, kitty 0.41.1 over ssh |"
        assert text[1].startswith("pictures ok kitty: The terminal answers OK")
        assert text[2].startswith("colours ok truecolor (by ")
        assert "SendEnv COLORTERM" in text[2]
        assert text[3] == "text ok UTF-8 |"
    with finished(PLAIN, command=command, environment={"NO_COLOR": "1", "LC_ALL": "C"}, columns=70) as (terminal, _):
        text = " ".join(lines(terminal))
        assert "terminal warning 70x45 cells" in text and "The app wants" in text
        assert "pictures warning cannot be drawn: The locale is not UTF-8" in text
        assert "colours warning none (by NO_COLOR) | NO_COLOR is set" in text
        assert "text warning not UTF-8 | Pictures and frames need UTF-8" in text


def test_the_card_and_its_photo_are_part_of_the_package() -> None:
    from importlib.resources import files

    from sdtui.metadata import read_png

    photo = files("sdtui.cli") / "card.png"
    found = read_png(Path(os.fspath(photo)))  # type: ignore[arg-type]
    assert found.record is not None and found.record.params.model == "scenes-128"
    assert (found.width_px, found.height_px) == (128, 128)
