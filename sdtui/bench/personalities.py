"""Terminals as programs get to know them: what each answers to which question, as recorded from the real ones.

Forms of questions and answers: ECMA-48; xterm's ctlseqs.txt; kitty's and iTerm2's protocol documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sdtui.bench.screen import Csi, Event, Graphics, Parser, Screen, String

_ALL_KITTY: Final[frozenset[Graphics]] = frozenset({"kitty", "kitty-frames", "kitty-placeholders"})
_DA1, _DA2, _NAME = Csi(b"", b"", b"", b"c"), Csi(b">", b"", b"", b"c"), Csi(b">", b"", b"", b"q")
_COLOUR: Final = re.compile(rb"(1[01]);\?")


@dataclass(frozen=True)
class Personality:
    """One terminal. What is left empty it does not answer."""

    name: str
    graphics: frozenset[Graphics] = frozenset()
    attributes: str = "62;22"
    """DA1."""
    secondary: str = ""
    """DA2."""
    version: str = ""
    """XTVERSION."""
    sizes: frozenset[int] = frozenset()
    """Which of `CSI 14 t`, `CSI 16 t` and `CSI 18 t` it answers."""
    modes: Mapping[int, int] = field(default_factory=dict)
    """What it says of modes (DECRQM); 0 for all others, where it knows any."""
    colours: bool = True
    """OSC 10 and 11."""
    settings: bool = True
    """DECRQSS for SGR."""
    sixel_registers: int = 0
    sixel_limit_px: tuple[int, int] | None = None
    iterm2_cell: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    outer: Personality | None = None
    """The terminal around it, which gets what is passed through."""
    spoil: Callable[[bytes], bytes] = lambda answer: answer
    """What becomes of an answer."""

    def screen(self, columns: int, rows: int, cell_px: tuple[int, int]) -> Screen:
        """Its screen, blank."""
        outer = self.outer
        return Screen(columns, rows, cell_px, graphics=(outer or self).graphics, tmux=outer is not None)

    def answer(self, event: Event, screen: Screen) -> bytes:
        """What it says to one sequence, empty for nothing; the screen has carried it out already."""
        if isinstance(event, Csi):
            return self._answer_csi(event, screen)
        if not isinstance(event, String):
            return b""
        kind, data = event
        if kind == "DCS" and data.startswith(b"tmux;") and self.outer is not None:
            inner = Parser().feed(data[5:].replace(b"\x1b\x1b", b"\x1b"))
            return b"".join(self.outer.answer(wrapped, screen) for wrapped in inner)
        if kind == "DCS" and data == b"$qm" and self.settings:
            return b"\x1bP1$r%sm\x1b\\" % _sgr(screen)
        if kind == "OSC" and self.colours and (asked := _COLOUR.fullmatch(data)):
            colour = screen.default_foreground if asked[1] == b"10" else screen.default_background
            return b"\x1b]%s;rgb:%s\x1b\\" % (asked[1], b"/".join(b"%02x%02x" % (part, part) for part in colour))
        if kind == "OSC" and data == b"1337;ReportCellSize" and self.iterm2_cell:
            return b"\x1b]1337;ReportCellSize=%d.0;%d.0;1.0\x1b\\" % (screen.cell_px[1], screen.cell_px[0])
        return b""

    def _answer_csi(self, event: Csi, screen: Screen) -> bytes:
        if event._replace(params=event.params.lstrip(b"0")) == _DA1:
            return f"\x1b[?{self.attributes}c".encode()
        if event._replace(params=event.params.lstrip(b"0")) == _DA2:
            return f"\x1b[>{self.secondary}c".encode() if self.secondary else b""
        if event._replace(params=event.params.lstrip(b"0")) == _NAME:
            return f"\x1bP>|{self.version}\x1b\\".encode() if self.version else b""
        match event:
            case Csi(b"", b"5", b"", b"n"):
                return b"\x1b[0n"
            case Csi(b"" | b"?" as prefix, b"6", b"", b"n"):
                return b"\x1b[%s%d;%dR" % (prefix, screen.cells.row + 1, screen.cells.column + 1)
            case Csi(b"", b"14" | b"16" | b"18", b"", b"t"):
                return self._size(int(event.params), screen)
            case Csi(b"?", _, b"$", b"p") if self.modes:
                mode = int(event.params)
                return b"\x1b[?%d;%d$y" % (mode, self.modes.get(mode, 0))
            case Csi(b"?", b"1;1;0", b"", b"S") if self.sixel_registers:
                return b"\x1b[?1;0;%dS" % self.sixel_registers
            case Csi(b"?", b"2;1;0", b"", b"S") if self.sixel_limit_px is not None:
                return b"\x1b[?2;0;%d;%dS" % self.sixel_limit_px
        return b""

    def _size(self, which: int, screen: Screen) -> bytes:
        if which not in self.sizes:
            return b""
        width, height = screen.cell_px
        values = {
            14: (4, height * screen.rows, width * screen.columns),
            16: (6, height, width),
            18: (8, screen.rows, screen.columns),
        }
        return b"\x1b[%d;%d;%dt" % values[which]


def needs_screen(event: Event) -> bool:
    """Whether the answer depends on what came before."""
    if isinstance(event, Csi):
        return event.final in b"nt" and event.params in (b"6", b"14", b"16", b"18")
    if not isinstance(event, String):
        return False
    kind, data = event
    if kind == "APC":
        return b"q=2" not in data.partition(b";")[0]
    return data.startswith((b"$q", b"10;?", b"11;?", b"1337;Report")) or (data.startswith(b"tmux;") and b"q=2" not in data)


def _sgr(screen: Screen) -> bytes:
    """The pen, as far as programs ask for it."""
    background = screen.cells.pen.background
    return b"0" if background < 0 else b"0;48:2:%d:%d:%d" % (background >> 16, background >> 8 & 255, background & 255)


def _flooding() -> Callable[[bytes], bytes]:
    """Megabytes instead of the first answer, then nothing."""
    left = [b"\x1b[?62" + b";4" * (2 << 20) + b"c"]
    return lambda _: left.pop() if left else b""


KITTY: Final = Personality(
    name="kitty 0.41",
    graphics=_ALL_KITTY,
    attributes="62;",
    secondary="1;4000;41",
    version="kitty(0.41.1)",
    sizes=frozenset({14, 16, 18}),
    modes={2026: 2, 2004: 2, 1004: 2},
    environment={"TERM": "xterm-kitty", "COLORTERM": "truecolor", "KITTY_WINDOW_ID": "1"},
)
OLD_KITTY: Final = replace(
    KITTY,
    name="kitty 0.26",
    graphics=frozenset({"kitty", "kitty-frames"}),
    secondary="1;4000;26",
    version="kitty(0.26.5)",
)
XTERM: Final = Personality(
    name="xterm 379, as a VT340",
    graphics=frozenset({"sixel"}),
    attributes="64;1;2;4;6;9;15;16;17;18;21;22;28;29",
    secondary="41;379;0",
    version="XTerm(379)",
    modes={2004: 2},
    sixel_registers=256,
    sixel_limit_px=(2000, 2000),
    environment={"TERM": "xterm-256color", "COLORTERM": "truecolor", "XTERM_VERSION": "XTerm(379)"},
)
FOOT: Final = Personality(
    name="foot 1.13",
    graphics=frozenset({"sixel"}),
    attributes="62;4;22",
    secondary="1;011301;0",
    version="foot(1.13.1)",
    sizes=frozenset({14, 16, 18}),
    modes={2026: 2, 2004: 2},
    sixel_registers=1024,
    sixel_limit_px=(10000, 10000),
    environment={"TERM": "foot", "COLORTERM": "truecolor"},
)
ALACRITTY: Final = Personality(
    name="alacritty 0.11",
    attributes="6",
    secondary="0;1101;1",
    sizes=frozenset({14, 18}),
    settings=False,
    environment={"TERM": "alacritty", "COLORTERM": "truecolor"},
)
XTERM_JS: Final = Personality(
    name="xterm.js, as in VS Code",
    graphics=frozenset({"sixel", "iterm2"}),
    attributes="62;4;9;22",
    secondary="0;276;0",
    sizes=frozenset({14, 16, 18}),
    modes={2026: 2, 2004: 2},
    sixel_registers=256,
    sixel_limit_px=(4096, 4096),
    environment={"TERM": "xterm-256color", "COLORTERM": "truecolor", "TERM_PROGRAM": "vscode"},
)
ITERM2: Final = Personality(
    name="iTerm2",
    graphics=frozenset({"sixel", "iterm2"}),
    attributes="64;1;2;4;6;17;18;21;22",
    secondary="64;2500;0",
    version="iTerm2 3.5.0",
    sizes=frozenset({14, 16, 18}),
    modes={2026: 2, 2004: 2},
    sixel_registers=256,
    iterm2_cell=True,
    environment={"TERM": "xterm-256color", "COLORTERM": "truecolor", "TERM_PROGRAM": "iTerm.app", "LC_TERMINAL": "iTerm2"},
)
PLAIN: Final = Personality(
    name="a VT220 with colours",
    sizes=frozenset({16}),
    colours=False,
    settings=False,
    environment={"TERM": "xterm-256color", "COLORTERM": "truecolor"},
)
TMUX: Final = Personality(
    name="tmux 3.3a in kitty 0.41",
    attributes="1;2",
    secondary="84;0;0",
    version="tmux 3.3a",
    sizes=frozenset({14, 18}),
    modes={2004: 2},
    environment={"TERM": "tmux-256color", "COLORTERM": "truecolor", "TMUX": "/nowhere/default,1,0", "TMUX_PANE": "%0"},
    outer=KITTY,
)
DUMB: Final = Personality(name="dumb", spoil=lambda _: b"", environment={"TERM": "dumb"})
SILENT: Final = replace(KITTY, name="a terminal that says nothing", spoil=lambda _: b"")
NONSENSE: Final = replace(
    KITTY, name="a terminal that answers nonsense", spoil=lambda _: b"\x1b[?\xff\x1b_Gi=;\x1b\x1b]9;\x1b[999;999x"
)
HALF: Final = replace(KITTY, name="a terminal that stops in the middle", spoil=lambda answer: answer[: len(answer) // 2])


def flooding() -> Personality:
    """A terminal that sends megabytes; one for each use."""
    return replace(KITTY, name="a terminal that sends megabytes", spoil=_flooding())
