"""Answers told apart from the user's keys, wherever the bytes are cut. Pure: reads and writes nothing.

Only what can be an answer to something asked is taken out; everything else comes back in order, untouched. A sequence that
is not whole yet is held as long as it may become an answer: `flush` gives it back, since a lone ESC is a key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Final, Literal

from sdtui.terminal.answers import FRAME_ID, PLACEHOLDER_ID, QUERY_ID, Answers, Event, read_answers, read_event

CsiKind = Literal["da1", "da2", "size", "mode", "status", "sixel", "cursor"]
StringKind = Literal["name", "setting", "kitty", "colour", "iterm2", "graphics"]
Kind = CsiKind | StringKind

_HELD_BYTES: Final = 4096
"""More than any answer has; what is longer is nonsense, and is dropped up to its end."""
_RAW_BYTES: Final = 1 << 16
_PASTE_BEGINS: Final = b"\x1b[200~"
_PASTE_ENDS: Final = b"\x1b[201~"
_CSI: Final = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")
_CSI_BEGUN: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*)?\Z")


@cache
def _compiled(form: bytes) -> re.Pattern[bytes]:
    """Compiled when it is first needed: all of them together would take a noticeable part of an app's start."""
    return re.compile(form)


_CSI_KINDS: Final[dict[CsiKind, tuple[bytes, bytes, bytes]]] = {
    "da1": (b"c", rb"\?[\d;]*c", rb"\?[\d;]*"),
    "da2": (b"c", rb">[\d;]*c", rb">[\d;]*"),
    "size": (b"t", rb"[46];\d+;\d+t", rb"[46][\d;]*"),
    "mode": (b"y", rb"\?2026;\d\$y", rb"\?[\d;]*\$?"),
    "status": (b"n", rb"0n", rb"0"),
    "sixel": (b"S", rb"\?[12];[\d;]*S", rb"\?[\d;]*"),
    "cursor": (b"R", rb"\?\d+;\d+(?:;\d+)?R", rb"\?[\d;]*"),
}
"""For each kind its final character, its whole form behind CSI, and every beginning of it."""
_STRING_KINDS: Final[dict[StringKind, tuple[bytes, ...]]] = {
    "name": (b"\x1bP>|",),
    "setting": (b"\x1bP0$r", b"\x1bP1$r", b"\x1bP$r"),
    "kitty": tuple(b"\x1b_Gi=%d" % image for image in (QUERY_ID, PLACEHOLDER_ID, FRAME_ID)),
    "colour": (b"\x1b]10;rgb", b"\x1b]11;rgb"),
    "iterm2": (b"\x1b]1337;ReportCellSize=",),
    "graphics": (b"\x1b_G",),
}
_STRING_ENDS: Final = re.compile(rb"\x1b\\|[\x00-\x1f]")
"""ST, or xterm's BEL; any other control breaks a string off."""
_CSI_ENDS: Final = re.compile(rb"[@-~]|[\x00-\x1f]")
"""Its final character; any control breaks a sequence off."""
_SURE: Final = re.compile(rb"\x1b(?:\[[?>]\d|P[>01]?[|$]|P>|_G|\]1)")
"""Begun so, it is no key: with alt, keys are one character after ESC, and function keys have neither `?` nor `>`."""
BATCH: Final[frozenset[Kind]] = frozenset({*_CSI_KINDS, *_STRING_KINDS} - {"graphics"})
_STRAGGLERS: Final[frozenset[Kind]] = frozenset({"size", "name", "setting", "kitty", "colour", "iterm2"})
"""Some terminals answer these from another thread, after DA1. Textual asks for modes itself, so those are not among them."""


class AnswerParser:
    """Fed with what is read from a terminal, gives back what is the user's."""

    def __init__(self, expected: Iterable[Kind] = BATCH, *, rounds: int = 1) -> None:
        """`rounds`: how many DA1 end the batch; two where tmux and the terminal around it both answer."""
        self._expected: set[Kind] = set(expected)
        self._rounds = rounds if self._expected else 0
        self._held = b""
        self._given = 0
        """How many of the held bytes have been given back already, where a key may not wait."""
        self._paste_tail: bytes | None = None
        """The last bytes of the paste we are in."""
        self._dropping: re.Pattern[bytes] | None = None
        """What ends the nonsense that we are in."""
        self._sequences: list[bytes] = []
        self._raw_bytes = 0
        self._answered: set[tuple[Kind, bytes]] = set()
        self._waiting: Counter[Kind] = Counter()
        self._graphics = False
        self._events: list[Event] = []

    @property
    def done(self) -> bool:
        """Whether the last answer of the batch has come, or none is waited for."""
        return self._rounds <= 0

    @property
    def pending(self) -> bool:
        """Whether something is held back: call `flush` when nothing more has come for a tenth of a second."""
        return len(self._held) > self._given or self._dropping is not None

    @property
    def raw(self) -> bytes:
        """The answers of the batch as they came, at most 64 KiB."""
        return b"".join(self._sequences)

    def answers(self) -> Answers:
        """What the terminal has said so far."""
        return read_answers(self._sequences)

    def expect_status(self, count: int = 1) -> None:
        """`CSI 5 n` was sent so many times: each answer becomes a `StatusReport`."""
        self._waiting["status"] += count

    def expect_sizes(self, count: int = 1) -> None:
        """`CSI 14 t` or `CSI 16 t` was sent so many times."""
        self._waiting["size"] += count

    def expect_graphics(self, wanted: bool = True) -> None:
        """Whether kitty may tell of pictures at any time: then all it says of them becomes a `GraphicsAnswer`."""
        self._graphics = wanted

    def close(self) -> None:
        """Expect nothing more: all that comes is the user's."""
        self._expected.clear()
        self._waiting.clear()
        self._rounds, self._graphics = 0, False

    def events(self) -> list[Event]:
        """What came since the last call of what `expect_...` announced."""
        events, self._events = self._events, []
        return events

    def feed(self, data: bytes) -> bytes:
        """What of the bytes is the user's, in order; what has only begun to look like an answer comes later."""
        given, self._given = self._given, 0
        data, self._held = self._held + data, b""
        kept = bytearray()
        position = self._step(data, 0, kept, given) if data else 0
        if kept:  # else these bytes were the beginning of an answer after all
            del kept[:given]
        while position < len(data):
            position = self._step(data, position, kept, 0)
        return bytes(kept)

    def flush(self) -> bytes:
        """Wait no longer for the rest of what is held: what may be keys comes back, half an answer does not."""
        held, self._held = self._held[self._given :], b""
        self._given, self._dropping = 0, None
        return b"" if _SURE.match(held) else held

    def _step(self, data: bytes, start: int, kept: bytearray, given: int) -> int:
        """One sequence, or all up to the next; where to go on."""
        if self._paste_tail is not None:
            return self._through_paste(data, start, kept)
        if self._dropping is not None:
            return self._drop(data, start, self._dropping)
        escape = data.find(b"\x1b", start)
        if escape != start:
            stop = len(data) if escape < 0 else escape
            kept += data[start:stop]
            return stop
        if (csi := _CSI.match(data, start)) is not None:
            if not self._take_csi(csi[0]):
                kept += csi[0]
                self._paste_tail = b"" if csi[0] == _PASTE_BEGINS else None
            return csi.end()
        for kind, prefixes in _STRING_KINDS.items():
            if self._expects(kind) and data.startswith(prefixes, start):
                return self._take_string(kind, data, start)
        if _CSI_BEGUN.match(data, start) or self._begins_string(data[start : start + _HELD_BYTES]):
            return self._hold(data, start, kept, given)
        stop = data.find(b"\x1b", start + 1)
        stop = len(data) if stop < 0 else stop
        kept += data[start:stop]
        return stop

    def _through_paste(self, data: bytes, start: int, kept: bytearray) -> int:
        """Inside a bracketed paste everything is the user's; its end mark may be cut anywhere."""
        tail = self._paste_tail or b""
        seen = tail + data[start:]
        end = seen.find(_PASTE_ENDS)
        if end < 0:
            kept += data[start:]
            self._paste_tail = seen[1 - len(_PASTE_ENDS) :]
            return len(data)
        stop = start + end + len(_PASTE_ENDS) - len(tail)
        kept += data[start:stop]
        self._paste_tail = None
        return stop

    def _drop(self, data: bytes, start: int, ends: re.Pattern[bytes]) -> int:
        """Past the rest of an answer that is too long to be one."""
        end = ends.search(data, start)
        if end is None:
            return len(data)
        if end[0] == b"\x1b" and end.end() == len(data):  # the other half of ST may follow
            self._held = b"\x1b"
            return len(data)
        self._dropping = None
        whole = end[0] in (b"\x1b\\", b"\x07") or end[0] >= b"@"
        return end.end() if whole else end.start()

    def _hold(self, data: bytes, start: int, kept: bytearray, given: int) -> int:
        """Keep what has begun. Where it need not be an answer, and none is due, it is given back at once all the same."""
        begun = data[start:]
        if len(begun) > _HELD_BYTES:
            if _SURE.match(begun):
                self._dropping = _CSI_ENDS
            else:
                kept += begun
            return len(data)
        self._held = begun
        due = bool(not self.done or self._waiting.total())
        if self._may_become_answer(begun) and (due or _SURE.match(begun)):
            self._given = given
        else:
            kept += begun
            self._given = len(begun)
        return len(data)

    def _may_become_answer(self, begun: bytes) -> bool:
        of_csi = any(
            self._expects(kind) and _compiled(rb"\x1b(?:\[(?:" + begin + rb")?)?").fullmatch(begun)
            for kind, (_, _, begin) in _CSI_KINDS.items()
        )
        return of_csi or self._begins_string(begun)

    def _begins_string(self, begun: bytes) -> bool:
        return any(
            self._expects(kind) and any(prefix.startswith(begun) for prefix in prefixes)
            for kind, prefixes in _STRING_KINDS.items()
        )

    def _take_csi(self, sequence: bytes) -> bool:
        for kind, (final, form, _) in _CSI_KINDS.items():
            if sequence.endswith(final) and self._expects(kind) and _compiled(rb"\x1b\[" + form).fullmatch(sequence):
                self._took(kind, sequence)
                return True
        return False

    def _take_string(self, kind: Kind, data: bytes, start: int) -> int:
        end = _STRING_ENDS.search(data, start + 1)
        if end is None or (end[0] == b"\x1b" and end.end() == len(data)):
            if len(data) - start > _HELD_BYTES:
                self._dropping = _STRING_ENDS
                self._held = data[end.start() :] if end is not None else b""
            else:
                self._held = data[start:]
            return len(data)
        if end[0] not in (b"\x1b\\", b"\x07"):
            return end.start()  # broken off: half an answer is nobody's
        self._took(kind, data[start : end.end()])
        return end.end()

    def _expects(self, kind: Kind) -> bool:
        if kind == "graphics":
            return self._graphics
        return kind in self._expected or self._waiting[kind] > 0

    def _took(self, kind: Kind, sequence: bytes) -> None:
        """Note an answer: of the batch, or to what was asked since. Terminals answer in the order they were asked."""
        key = (kind, sequence[2:3])
        later = kind == "graphics" or (self._waiting[kind] > 0 and (self.done or key in self._answered))
        if later:
            event = read_event(sequence)
            self._events += [event] if event is not None else []
            if kind != "graphics":
                self._waiting[kind] -= 1
            return
        self._answered.add(key)
        if self._raw_bytes + len(sequence) <= _RAW_BYTES:
            self._sequences.append(sequence)
            self._raw_bytes += len(sequence)
        if kind == "da1":
            self._rounds -= 1
            if self.done:
                self._expected &= _STRAGGLERS
