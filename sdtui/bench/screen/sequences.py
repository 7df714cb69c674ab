"""From the bytes a program wrote to text, control characters and escape sequences (ECMA-48), whatever the pieces they come in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple


class Text(NamedTuple):
    """Printable characters in a row."""

    text: str


class Control(NamedTuple):
    """One C0 control character."""

    code: int


class Escape(NamedTuple):
    """`ESC`, intermediate bytes, final byte."""

    intermediates: bytes
    final: bytes


class Csi(NamedTuple):
    """A control sequence: `prefix` is one of `<=>?` or nothing."""

    prefix: bytes
    params: bytes
    intermediates: bytes
    final: bytes

    def numbers(self) -> list[int]:
        """The parameters; 0 where one is left out, nothing for none. Raises `ValueError` for sub-parameters."""
        return [int(number or b"0") for number in self.params.split(b";")] if self.params else []


class String(NamedTuple):
    """A control string, without its introducer and terminator."""

    kind: Literal["DCS", "OSC", "APC", "PM", "SOS"]
    data: bytes


class Malformed(NamedTuple):
    """What is no sequence of any kind."""

    why: str
    data: bytes


Event = Text | Control | Escape | Csi | String | Malformed

_KINDS: Final[dict[bytes, Literal["DCS", "OSC", "APC", "PM", "SOS"]]] = {
    b"P": "DCS",
    b"]": "OSC",
    b"_": "APC",
    b"^": "PM",
    b"X": "SOS",
}
_TOKEN: Final = re.compile(
    rb"([ -~\x80-\xff]+)"
    rb"|\x1b\[([<=>?]?)([0-;]*)([ -/]*)([@-~])"
    rb"|([\x00-\x1a\x1c-\x1f\x7f])"
    # Doubled escapes are tmux's way to wrap a sequence in a string.
    rb"|\x1b([P_^X])([^\x1b]*(?:\x1b\x1b[^\x1b]*)*)\x1b\\"
    rb"|\x1b\]([^\x07\x1b]*)(?:\x07|\x1b\\)"
    rb"|\x1b([ -/]*)([0-OQ-WYZ`-~])"
)
_BEGINNING: Final = re.compile(
    rb"\x1b(?:\[[<=>?]?[0-;]*[ -/]*|[ -/]*|\][^\x07\x1b]*\x1b?|[P_^X][^\x1b]*(?:\x1b\x1b[^\x1b]*)*\x1b?)?\Z"
)
_ENDS_STRING: Final = re.compile(rb"\x1b[^\x1b\\]")
_SHOWN_BYTES: Final = 40


class Parser:
    """Takes bytes in pieces of any size; a sequence that is not complete yet waits for the next piece."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def pending(self) -> bytes:
        """The beginning of a sequence whose end has not come."""
        return self._rest

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events these bytes complete."""
        data = self._rest + data
        self._rest = b""
        at, end = 0, len(data)
        while at < end:
            match = _TOKEN.match(data, at)
            if match is None:
                if _BEGINNING.match(data, at):
                    self._rest = data[at:]
                    return
                stop = _end_of_nonsense(data, at)
                yield Malformed("no escape sequence", data[at : min(stop, at + _SHOWN_BYTES)])
                at = stop
                continue
            at = match.end()
            if match.lastindex == 1:
                yield from self._text(match[1], at == end)
            else:
                yield _event(match)

    def _text(self, raw: bytes, is_last: bool) -> Iterator[Event]:
        try:
            yield Text(raw.decode())
            return
        except UnicodeDecodeError as error:
            if is_last and error.reason == "unexpected end of data":
                self._rest = raw[error.start :]
                if error.start:
                    yield Text(raw[: error.start].decode())
                return
            yield Malformed("no UTF-8", raw[error.start : error.end])
            yield Text(raw.decode(errors="replace"))


def _event(match: re.Match[bytes]) -> Event:
    kind = match.lastindex
    if kind == 5:
        return Csi(match[2], match[3], match[4], match[5])
    if kind == 6:
        return Control(match[6][0])
    if kind == 8:
        return String(_KINDS[match[7]], match[8])
    if kind == 9:
        return String("OSC", match[9])
    return Escape(match[10], match[11])


def _end_of_nonsense(data: bytes, at: int) -> int:
    """Where to go on: at the next escape, or behind the byte that no sequence can contain."""
    if data[at + 1 : at + 2] in _KINDS:
        found = _ENDS_STRING.search(data, at + 2)
        return found.start() if found else len(data)
    following = data.find(b"\x1b", at + 1)
    return at + 2 if following < 0 else max(at + 1, min(at + 2, following))
