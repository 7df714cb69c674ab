"""The bytes that announce something outside the terminal's window: a bell, or a desktop notice. Pure.

OSC 9 is iTerm2's (iterm2.com/documentation-escape-codes.html), OSC 99 kitty's
(sw.kovidgoyal.net/kitty/desktop-notifications).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, Literal

from sdtui.settings import Notify
from sdtui.terminal.tmux import passthrough, untouched
from sdtui.text import safe_text

if TYPE_CHECKING:
    from sdtui.terminal.report import Report

Way = Literal["off", "bell", "osc9", "osc99"]
BELL: Final = b"\x07"
MAX_BYTES: Final = 300
"""Of a notice's text: what desktops show of one, and with base64 far below the 4096 bytes that kitty takes at once."""
_TITLE: Final = "sdtui"
_BY_TERMINAL: Final[dict[str, Way]] = {
    "kitty": "osc99",
    "iterm2": "osc9",
    "wezterm": "osc9",
    "ghostty": "osc9",
    "foot": "osc9",
}
"""As each documents; a terminal that is not here may print or ignore the rest, so it gets a bell."""


def notice_way(wanted: Notify, report: Report | None) -> Way:
    """How a notice reaches this terminal's user. `report`: what the terminal said; without one, `auto` is a bell.

    tmux shows no notices itself and passes them on only where `allow-passthrough` is on; GNU screen never does.
    """
    if wanted == "off":
        return "off"
    if report is not None and report.capabilities.multiplexer not in ("", "tmux"):
        return "bell"
    if report is not None and report.tmux is not None and report.tmux.passthrough == "off":
        return "bell"
    if wanted != "auto":
        return wanted
    if report is None:
        return "bell"
    from sdtui.terminal.identity import identify

    return _BY_TERMINAL.get(identify(report).name, "bell")


def notice(text: str, way: Way, *, inside_tmux: bool = False) -> bytes:
    """What to write to the terminal; nothing for `off`. The text may come from anywhere: it is made safe and short here.

    It always begins with our name, as what begins with a digit is a command to terminals that follow ConEmu (`9;4` sets the
    progress of the task bar).
    """
    envelope = passthrough if inside_tmux else untouched
    words = _cut(" ".join(safe_text(text).split()), MAX_BYTES)
    if way == "off":
        return b""
    if way == "bell":
        return BELL  # tmux passes bells on by itself
    if way == "osc9":
        return envelope(b"\x1b]9;" + f"{_TITLE}: ".encode() + words + b"\x07")
    title, body = base64.b64encode(_TITLE.encode()), base64.b64encode(words)
    # Two chunks of one notice: `d=0` says that more comes. Shown only while the window has no focus.
    parts = (b"i=sdtui:d=0:e=1:o=unfocused:p=title;" + title, b"i=sdtui:d=1:e=1:p=body;" + body)
    return b"".join(envelope(b"\x1b]99;" + part + b"\x1b\\") for part in parts)


def _cut(text: str, most_bytes: int) -> bytes:
    """The text as UTF-8, cut between characters."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most_bytes:
        return data
    return data[: most_bytes - 3].decode("utf-8", "ignore").encode() + "…".encode()
