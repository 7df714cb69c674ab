"""Which terminal this is, by what it answered; the environment counts only where the answers leave it open. Pure.

Variables outlive the terminal that set them: an xterm started from VS Code still has TERM_PROGRAM=vscode.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from sdtui.terminal.report import Report

_NAMED: Final = re.compile(r"([A-Za-z][A-Za-z.\d]*(?: [A-Za-z]+)?)[ (]+v?(\d[\w.\-]*)")
_VTE_KINDS: Final = (1, 61, 65)
_XTERM_KINDS: Final = (0, 1, 2, 18, 19, 24, 32, 41, 61, 64, 65)
_XTERM_PATCHES: Final = range(200, 1000)
_BY_PAIR: Final = {
    (0, 10): "windows terminal",
    (0, 115): "konsole",
    (0, 136): "putty",
    (0, 276): "xterm.js",
    (24, 279): "mlterm",
}
_BY_KIND: Final = {77: "mintty", 82: "rxvt", 83: "screen", 84: "tmux", 85: "rxvt"}
_BY_VARIABLE: Final = (
    ("TERM_PROGRAM", "vscode", "xterm.js"),
    ("TERM_PROGRAM", "iTerm.app", "iterm2"),
    ("TERM_PROGRAM", "WezTerm", "wezterm"),
    ("TERM_PROGRAM", "ghostty", "ghostty"),
    ("TERM_PROGRAM", "mintty", "mintty"),
    ("TERM_PROGRAM", "rio", "rio"),
    ("LC_TERMINAL", "iTerm2", "iterm2"),
    ("MLTERM", "", "mlterm"),
)
_BY_TERM: Final = ("kitty", "ghostty", "foot", "alacritty", "wezterm", "contour", "mlterm", "rio", "rxvt")


class Identity(msgspec.Struct, frozen=True):
    """A terminal's name in lower case, its version, and who told."""

    name: str = ""
    version: tuple[int, ...] = ()
    told_by: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.name, ".".join(map(str, self.version))) if part)

    def since(self, *version: int) -> bool:
        """Whether it is at least this version; not where the version is unknown."""
        return self.version >= version


def identify(report: Report) -> Identity:
    """The terminal that draws: inside tmux the one around it."""
    if report.tmux is not None:
        by_name = _by_name(report.tmux.outer_name)
        return by_name if by_name.name else _by_term(report.tmux.outer_term)
    by_name = _by_name(report.answers.name or "")
    if by_name.name:
        return by_name
    by_number = _by_number(report.answers.secondary)
    if by_number.name:
        return by_number
    for variable, value, name in _BY_VARIABLE:
        if variable in report.variables and value in ("", report.variables[variable]):
            return Identity(name, _numbers(report.variables.get(f"{variable}_VERSION", "")), variable)
    return _by_term(report.capabilities.term)


def _by_name(answer: str) -> Identity:
    match = _NAMED.match(answer)
    return Identity(match[1].lower(), _numbers(match[2]), "XTVERSION") if match is not None else Identity()


def _by_number(secondary: tuple[int, ...] | None) -> Identity:
    """DA2: terminals reply with a kind and a version that they made up themselves."""
    kind, number = (*(secondary or ()), -1, -1)[:2]
    name = _BY_PAIR.get((kind, number), "") or _BY_KIND.get(kind, "")
    if name:
        version = (number // 10000, number // 100 % 100) if name in ("screen", "mintty") else ()
        return Identity(name, version, "DA2")
    if kind == 1 and 4000 <= number < 4100:
        return Identity("kitty", (), "DA2")
    if kind in _VTE_KINDS and number >= 2000:
        return Identity("vte", (number // 10000, number // 100 % 100, number % 100), "DA2")
    if kind == 0 and 1000 <= number < 20000:
        return Identity("alacritty", (), "DA2")
    if kind in _XTERM_KINDS and number in _XTERM_PATCHES:
        return Identity("xterm", (number,), "DA2")
    return Identity()


def _by_term(term: str) -> Identity:
    name = next((name for name in _BY_TERM if name in term), "")
    return Identity(name, (), "TERM") if name else Identity()


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: (22, 12, 3) of `22.12.3`, (20240203,) of `20240203-110809-5046fc22`."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading is not None else ()


Cells = Literal["sextant", "quadrant"]


def draws_itself(identity: Identity) -> Cells | None:
    """The finest blocks that this terminal draws whatever the font has.

    Seen with a font that has no sextants: kitty 0.26.5 and foot 1.13.1 draw them; alacritty 0.11 draws quadrants only; mlterm
    3.9.0 and xterm 379 draw none. Said: wezterm.org/config/lua/config/custom_block_glyphs.html; ghostty's sprite font.
    """
    match identity.name:
        case "kitty" if identity.since(0, 26):
            return "sextant"
        case "foot" if identity.since(1, 13):
            return "sextant"
        case "wezterm" if identity.since(20210814):
            return "sextant"
        case "ghostty":
            return "sextant"
        case "alacritty" | "konsole" | "vte" | "kitty" | "foot" | "contour":
            return "quadrant"
    return None
