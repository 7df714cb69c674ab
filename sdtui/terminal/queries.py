"""What to ask which terminal, in one batch that ends with DA1. Pure.

Every terminal answers DA1, and in the order asked: what has no answer by then has none. Strings (OSC, DCS, APC) are sent only
where they are known to be read, not printed: GNU screen shows an APC as its message line, tmux as the pane's title, and some
simple terminals print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from sdtui.terminal.answers import FRAME_ID, PLACEHOLDER_ID, QUERY_ID
from sdtui.terminal.capabilities import Capabilities
from sdtui.terminal.parser import Kind
from sdtui.terminal.tmux import passthrough

if TYPE_CHECKING:
    from sdtui.terminal.report import Tmux

NAME: Final = b"\x1b[>q"
ATTRIBUTES: Final = b"\x1b[c"
CELL_SIZE: Final = b"\x1b[16t"
WINDOW_SIZE: Final = b"\x1b[14t"
STATUS: Final = b"\x1b[5n"

_PLAIN: Final = NAME + b"\x1b[>c" + CELL_SIZE + WINDOW_SIZE + b"\x1b[?2026$p\x1b[?1;1;0S\x1b[?2;1;0S" + STATUS
_PLAIN_KINDS: Final[frozenset[Kind]] = frozenset({"da1", "da2", "size", "mode", "status", "sixel", "name"})
_CURSOR: Final = b"\x1b[?6n"
_SAVE, _RESTORE = b"\x1b7", b"\x1b8"
_COLOURS: Final = b"\x1b]10;?\x1b\\\x1b]11;?\x1b\\"
_TRUECOLOR: Final = b"\x1b[48:2:10:20:30m\x1bP$qm\x1b\\\x1b[49m"
"""Set a 24-bit background and ask what is set (DECRQSS): https://github.com/termstandard/colors."""
_ITERM2: Final = b"\x1b]1337;ReportCellSize\x1b\\"
_PIXEL: Final = b"f=32,s=1,v=1;AAAAAA=="
"""One transparent pixel: where a picture is really placed, nothing is seen."""
_KITTY: Final = (
    b"\x1b_Gi=%d,a=q,t=d,%s\x1b\\" % (QUERY_ID, _PIXEL),
    b"\x1b_Gi=%d,a=t,q=2,t=d,%s\x1b\\" % (PLACEHOLDER_ID, _PIXEL),
    b"\x1b_Gi=%d,a=p,U=1,C=1,c=1,r=1\x1b\\" % PLACEHOLDER_ID,
    b"\x1b_Gi=%d,a=t,q=2,t=d,%s\x1b\\" % (FRAME_ID, _PIXEL),
    b"\x1b_Gi=%d,a=f,r=1,%s\x1b\\" % (FRAME_ID, _PIXEL),
    b"\x1b_Gi=%d,a=d,d=I,q=2\x1b\\" % PLACEHOLDER_ID,
    b"\x1b_Gi=%d,a=d,d=I,q=2\x1b\\" % FRAME_ID,
)
_SILENT_TERMS: Final = ("", "dumb", "unknown", "emacs", "network", "dialup")
_CONSOLES: Final = ("linux", "cons25", "sun", "vt52", "eterm", "wsvt", "con80", "con132")
"""Consoles without pixels, some of which print what they do not know."""
_SIMPLE_TERMS: Final = ("screen", "rxvt", "putty", "vt1", "vt2", "vt3", "vt4", "ansi", "Eterm", "mlterm-ssh")
_SIMPLE_PROGRAMS: Final = ("Apple_Terminal",)
_SIMPLE_VARIABLES: Final = ("TERMUX_VERSION", "TERMINAL_EMULATOR", "STY")
"""Termux before 2024 prints an APC (termux-app#4155); TERMINAL_EMULATOR is set by JetBrains' terminals."""


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes to send, the kinds of answers to them, and how many DA1 end them."""

    text: bytes = b""
    kinds: frozenset[Kind] = frozenset()
    rounds: int = 1
    why_not: str = ""
    """Why nothing, or not everything, is asked."""


def questions(known: Capabilities, variables: Mapping[str, str], tmux: Tmux | None = None) -> Questions:
    """What may be asked here."""
    term = known.term
    if term in _SILENT_TERMS or term.startswith(_CONSOLES):
        return Questions(why_not=f"TERM={term or '(nothing)'} is no terminal that could answer.")
    if (known.multiplexer == "tmux" and "STY" not in variables) or term.startswith("tmux"):
        return _inside_tmux(tmux)
    if known.multiplexer == "screen" or term.startswith("screen"):
        return Questions(text=_plain(), kinds=_PLAIN_KINDS, why_not="GNU screen passes no pictures on.")
    simple = (
        term.startswith(_SIMPLE_TERMS)
        or known.program in _SIMPLE_PROGRAMS
        or any(name in variables for name in _SIMPLE_VARIABLES)
    )
    if simple:
        why_not = f"{known.program or term} may print what it does not know; only the harmless questions were asked."
        return Questions(text=_plain(), kinds=_PLAIN_KINDS, why_not=why_not)
    strings = _CURSOR + b"".join(_KITTY) + _COLOURS + _ITERM2 + _TRUECOLOR + _CURSOR
    kinds: frozenset[Kind] = _PLAIN_KINDS | {"cursor", "kitty", "colour", "iterm2", "setting"}
    return Questions(text=_plain(strings), kinds=kinds)


def _plain(strings: bytes = b"") -> bytes:
    """Strings go last: what is cut off by a stuck line is then ended by the next ESC."""
    return _SAVE + _PLAIN + strings + _RESTORE + ATTRIBUTES


def _inside_tmux(tmux: Tmux | None) -> Questions:
    """tmux answers for itself; kitty's questions go through to the terminal around it, each in a wrapping of its own.

    It knows which colours that terminal has; asked by DECRQSS, tmux 3.5 takes the question for a sixel picture.
    """
    kinds: frozenset[Kind] = _PLAIN_KINDS | {"colour"}
    text = _plain(_COLOURS)
    if tmux is None:
        return Questions(text=text, kinds=kinds, why_not="tmux itself could not be asked about the terminal around it.")
    if not tmux.passes_on:
        return Questions(text=text, kinds=kinds, why_not=_why_not_through(tmux))
    through = b"".join(passthrough(sequence) for sequence in (*_KITTY, ATTRIBUTES))
    return Questions(text=text + through, kinds=kinds | {"kitty"}, rounds=2)


def _why_not_through(tmux: Tmux) -> str:
    if tmux.passthrough == "off":
        return "tmux does not pass on what is meant for the terminal around it."
    if tmux.clients > 1:
        return f"{tmux.clients} terminals show this tmux session, and a picture must suit all of them."
    return "This tmux pane is not shown at the moment." if tmux.clients else "No terminal shows this tmux session."
