"""Untrusted text -> text that is safe to show. Prompts, file names, metadata, exception texts all pass `safe_text`.

Removed are control sequences of terminals (ECMA-48: CSI, OSC, DCS, SOS, PM, APC in 7-bit and 8-bit form), every other
C0 and C1 control, bidirectional overrides (Unicode TR 9), zero-width characters, tags and variation selectors (text can
be hidden in them; those that choose between emoji and text stay) and lone surrogates. The result is plain text: it must
still be shown with markup off.
"""

from __future__ import annotations

import re
from typing import Final

_STRING_SEQUENCE: Final = r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)"
_CSI: Final = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
_ESCAPE: Final = r"\x1b[ -/]*[0-~]?"
_SEQUENCES: Final = re.compile(f"{_STRING_SEQUENCE}|{_CSI}|{_ESCAPE}", re.DOTALL)
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufe00-\ufe0d\ufeff\ufff9-\ufffb\ud800-\udfff]"
    "|[\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def safe_text(text: str, *, multiline: bool = False, limit: int | None = None) -> str:
    """`text` without anything a terminal would act on.

    Newlines and tabs stay with `multiline`, else they become single spaces. `limit` is in characters; what is cut is
    marked with an ellipsis.
    """
    clean = _UNSEEN.sub("", _SEQUENCES.sub("", text.replace("\r\n", "\n")))
    if not multiline:
        clean = clean.replace("\n", " ").replace("\t", " ")
    if limit is not None and len(clean) > limit:
        clean = clean[: limit - 1] + "…" if limit > 0 else ""
    return clean


def is_safe(text: str) -> bool:
    """Whether `safe_text(text, multiline=True)` would leave `text` as it is."""
    return safe_text(text, multiline=True) == text


def count_noun(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_bytes(count: int) -> str:
    """A size for people: `512 B`, `12 kB`, `1.1 GiB` (kB below a mebibyte, as link rates are counted)."""
    if count < 1000:
        return f"{count} B"
    if count < 1 << 20:
        return f"{count / 1000:.0f} kB"
    if round(count / (1 << 20)) < 1024:
        return f"{count / (1 << 20):.0f} MiB"
    return f"{count / (1 << 30):.1f} GiB"


def format_seconds(seconds: float) -> str:
    """A duration for people: `0.4 ms`, `48 ms`, `1.2 s`, `2 min 05 s`."""
    if round(seconds * 1000, 1) < 10:
        return f"{seconds * 1000:.1f} ms"
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
