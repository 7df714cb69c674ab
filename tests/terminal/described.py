"""Reports of terminals that cannot be run everywhere, made from what they were seen, or are documented, to answer."""

from __future__ import annotations

from sdtui.terminal.answers import FRAME_ID, PLACEHOLDER_ID, QUERY_ID
from sdtui.terminal.capabilities import Capabilities
from sdtui.terminal.parser import AnswerParser
from sdtui.terminal.report import Report, Tmux


def kitty_says(query: str = "", placeholder: str = "", frame: str = "") -> bytes:
    said = ((QUERY_ID, query), (PLACEHOLDER_ID, placeholder), (FRAME_ID, frame))
    return b"".join(b"\x1b_Gi=%d;%s\x1b\\" % (image, word.encode()) for image, word in said if word)


def report_of(
    raw: bytes, *, tmux: Tmux | None = None, variables: dict[str, str] | None = None, asked: bool = True, **known
) -> Report:
    """A report with these answers; `known` are fields of `Capabilities` that differ from an 80x24 xterm-256color."""
    parser = AnswerParser(rounds=2 if tmux is not None and tmux.passes_on else 1)
    parser.feed(raw)
    defaults = {
        "is_terminal": True,
        "width_cells": 80,
        "height_cells": 24,
        "width_px": 0,
        "height_px": 0,
        "colours": "256",
        "colours_from": "TERM",
        "utf8": True,
        "term": "xterm-256color",
        "program": "",
        "multiplexer": "tmux" if tmux is not None else "",
        "over_ssh": False,
    }
    return Report(
        capabilities=Capabilities(**{**defaults, **known}),
        variables=variables or {},
        asked=asked,
        tmux=tmux,
        answers=parser.answers(),
        raw=parser.raw,
        complete=parser.done and asked,
    )


CELL = b"\x1b[6;17;8t\x1b[4;408;640t"
SYNC = b"\x1b[?2026;2$y"
TMUX_35 = b"\x1bP>|tmux 3.5a\x1b\\\x1b[>84;0;0c" + CELL + b"\x1b[0n\x1b[?1;2;4c"
IN_KITTY = Tmux(
    version="3.5a",
    outer_term="xterm-kitty",
    outer_name="kitty(0.41.1)",
    features=("256", "RGB"),
    passthrough="on",
    pane_active=True,
    clients=1,
)

DESCRIBED = {
    "kitty 0.41.1": report_of(
        b"\x1bP>|kitty(0.41.1)\x1b\\\x1b[>1;4000;41c" + CELL + SYNC + b"\x1b[0n" + kitty_says("OK", "OK", "OK") + b"\x1b[?62;c",
        term="xterm-kitty",
    ),
    "konsole 22.12.3": report_of(
        b"\x1bP>|Konsole 22.12.3\x1b\\\x1b[>1;115;0c" + CELL + b"\x1b[0n" + kitty_says("OK", "OK") + b"\x1b[?62;1;4c"
    ),
    "xterm.js with images": report_of(b"\x1b[>0;276;0c\x1b[6;15;8t" + SYNC + b"\x1b[0n\x1b[?62;4;9;22c", program="vscode"),
    "xterm.js without images": report_of(b"\x1b[>0;276;0c" + SYNC + b"\x1b[0n\x1b[?1;2c", program="vscode"),
    "vte 0.70": report_of(b"\x1b[>65;7006;1c\x1b[0n\x1b[?65;1;9c"),
    "wezterm": report_of(
        b"\x1bP>|WezTerm 20240203-110809-5046fc22\x1b\\\x1b[>1;277;0c"
        + CELL
        + SYNC
        + b"\x1b[0n"
        + kitty_says("OK", "OK", "ENOTSUP:frames")
        + b"\x1b[?65;4;6;18;22c"
    ),
    "ghostty": report_of(
        b"\x1bP>|ghostty 1.1.3\x1b\\\x1b[>1;10;0c"
        + CELL
        + SYNC
        + b"\x1b[0n"
        + kitty_says("OK", "OK", "ERROR: unimplemented action")
        + b"\x1b[?62;22c",
        term="xterm-ghostty",
    ),
    "iterm2": report_of(
        b"\x1bP>|iTerm2 3.6.0\x1b\\\x1b[>64;2500;0c"
        + b"\x1b[0n"
        + kitty_says("OK")
        + b"\x1b]1337;ReportCellSize=17.0;8.0;2.0\x1b\\\x1b[?64;1;2;4;6;17;18;21;22c"
    ),
    "tmux 3.5a in kitty, passing on": report_of(
        TMUX_35 + kitty_says("OK", "OK", "OK") + b"\x1b[?62;c", tmux=IN_KITTY, term="tmux-256color"
    ),
    "tmux 3.5a in xterm with sixel": report_of(
        TMUX_35,
        tmux=Tmux(
            version="3.5a",
            outer_term="xterm-256color",
            outer_name="XTerm(379)",
            features=("256", "RGB", "sixel"),
            passthrough="off",
            pane_active=True,
            clients=1,
        ),
        term="tmux-256color",
    ),
    "tmux 3.5a in alacritty": report_of(
        TMUX_35 + b"\x1b[?6c",
        tmux=Tmux(version="3.5a", outer_term="alacritty", features=("256",), passthrough="on", pane_active=True, clients=1),
        term="tmux-256color",
    ),
    "tmux 3.5a in konsole, passing on": report_of(
        TMUX_35 + kitty_says("OK", "OK") + b"\x1b[?62;1;4c",
        tmux=Tmux(
            version="3.5a",
            outer_term="xterm-256color",
            outer_name="Konsole 22.12.3",
            features=("RGB",),
            passthrough="all",
            pane_active=True,
            clients=1,
        ),
        term="tmux-256color",
    ),
    "silent": report_of(b""),
}
