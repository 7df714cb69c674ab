"""Whether finished pictures can be drawn in pixels, settled once before the app runs.

An answer that comes late would be typed into the prompt, so only terminals that are known to answer are asked, once, with
the primary device attributes and XTVERSION; a slow line or any doubt leaves half cells, which work everywhere.
textual-image asks again while it is imported, with a tenth of a second for each answer, and fails on what is no terminal.
"""

from __future__ import annotations

import logging
import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Mapping
from typing import Final

from sdtui.ui.widgets.preview.surface import Surface

log = logging.getLogger(__name__)

_ANSWERING_TERMS: Final = ("xterm-kitty", "xterm-ghostty", "foot", "mlterm")
_ANSWERING_PROGRAMS: Final = ("WezTerm", "ghostty", "mintty")
_QUERY: Final = b"\x1b[>q\x1b[c"
_QUICK_S: Final = 0.06
"""An answer within this leaves textual-image's own tenth of a second room."""
_PATIENCE_S: Final = 1.0
"""For the end of an answer that is under way: it must not be left to the app."""
_ATTRIBUTES: Final = re.compile(rb"\x1b\[\?([\d;]+)c")
_KITTY: Final = re.compile(rb"kitty\((\d+)\.(\d+)")
_PLACEHOLDERS_SINCE: Final = (0, 28)
"""Unicode placeholders came with kitty 0.28; older ones draw red boxes."""


def may_ask(environ: Mapping[str, str]) -> bool:
    """Whether this terminal is one that answers."""
    term = environ.get("TERM", "")
    if environ.get("TMUX") or environ.get("STY") or term.startswith(("tmux", "screen")):
        return False
    known = term.startswith(_ANSWERING_TERMS) or environ.get("TERM_PROGRAM") in _ANSWERING_PROGRAMS
    return bool(known or environ.get("KONSOLE_VERSION") or environ.get("XTERM_VERSION"))


def draws_pixels(answer: bytes, environ: Mapping[str, str]) -> bool:
    """Whether an answer tells of sixel, or of kitty's graphics with placeholders and the 24-bit colour they need."""
    attributes = _ATTRIBUTES.search(answer)
    if attributes is not None and b"4" in attributes[1].split(b";"):
        return True
    kitty = _KITTY.search(answer)
    modern = kitty is not None and (int(kitty[1]), int(kitty[2])) >= _PLACEHOLDERS_SINCE
    return (modern or b"ghostty" in answer) and environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")


def ask(reading: int, writing: int) -> tuple[bytes, float]:
    """The terminal's answer, and the seconds until its end; an empty answer when none came. Raises `OSError`."""
    before = termios.tcgetattr(reading)
    started = time.monotonic()
    answer = b""
    try:
        tty.setcbreak(reading)
        os.write(writing, _QUERY)
        while _ATTRIBUTES.search(answer) is None:
            left = _PATIENCE_S - (time.monotonic() - started)
            if left <= 0 or not select.select([reading], [], [], left)[0]:
                break
            answer += os.read(reading, 1024)
    finally:
        termios.tcsetattr(reading, termios.TCSADRAIN, before)
    return answer, time.monotonic() - started


def still_surface(environ: Mapping[str, str] = os.environ) -> type[Surface] | None:
    """The surface for finished pictures, None where half cells must do. To be called before the app runs, never within."""
    try:
        reading, writing = sys.__stdin__.fileno(), sys.__stdout__.fileno()  # type: ignore[union-attr]
        if not (may_ask(environ) and _is_ours(reading) and os.isatty(writing) and all(os.get_terminal_size(writing))):
            return None
        answer, elapsed_s = ask(reading, writing)
        if elapsed_s > _QUICK_S or not draws_pixels(answer, environ):
            return None
        from sdtui.ui.widgets.preview.still import StillSurface
    except Exception as error:  # textual-image fails in many ways on odd terminals; a picture in half cells is better
        log.info("no pixels for finished pictures: %s", error)
        return None
    return StillSurface


def _is_ours(reading: int) -> bool:
    """Whether we are in the terminal's foreground: reading from the background would stop the process."""
    return os.isatty(reading) and os.tcgetpgrp(reading) == os.getpgrp()
