"""A terminal's screen: fed with what a program wrote, it can be looked at as text and as a picture.

Strict where terminals are lenient: whatever one of them would ignore, garble or show as text is noted in `errors`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Literal

from PIL import Image

from sdtui.bench.screen import editing, painter, sixels
from sdtui.bench.screen.cells import Cells
from sdtui.bench.screen.colours import apply_sgr
from sdtui.bench.screen.iterm2 import Inline, InlineImages
from sdtui.bench.screen.kitty import QUOTA_BYTES, KittyGraphics
from sdtui.bench.screen.pixels import Pixels, Rgba
from sdtui.bench.screen.sequences import Control, Csi, Escape, Event, Malformed, Parser, String, Text

Graphics = Literal["kitty", "kitty-frames", "kitty-placeholders", "sixel", "iterm2"]
ALL_GRAPHICS: Final[frozenset[Graphics]] = frozenset({"kitty", "kitty-frames", "kitty-placeholders", "sixel", "iterm2"})
_ALTERNATE: Final = 1049
_SIXEL_DISPLAY: Final = 80
_SYNCHRONIZED: Final = 2026
_WRAP: Final = 7
_KEPT: Final = 8
"""A megabyte each."""
_QUERIES: Final = {(b"", b"t"), (b"", b"n"), (b"?", b"n"), (b"", b"c"), (b">", b"c"), (b"=", b"c"), (b">", b"q"), (b"?", b"S")}
_KEYBOARD: Final = {(b">", b"u"), (b"<", b"u"), (b"=", b"u"), (b"?", b"u"), (b">", b"m")}
_WITH_INTERMEDIATES: Final = ((b"$", b"p"), (b" ", b"q"), (b"!", b"p"))
"""Mode queries, the cursor's shape, a soft reset."""


class _Buffer:
    """One of the two screens; each has graphics of its own, in kitty too."""

    def __init__(self, screen: Screen) -> None:
        self.pixels = Pixels(screen.columns, screen.rows, screen.cell_px)
        self.cells = Cells(screen.columns, screen.rows, self._erased, self._scrolled)
        self.kitty = screen.new_kitty()

    def _erased(self, row: int, start: int, stop: int) -> None:
        self.pixels.erase(row, start, stop)

    def _scrolled(self, count: int) -> None:
        self.pixels.scroll(count)
        self.kitty.placements.scroll(count)

    def resize(self, columns: int, rows: int, cell_px: tuple[int, int]) -> None:
        """Characters stay where they are, sixel and iTerm2 pictures are lost."""
        self.pixels = Pixels(columns, rows, cell_px)
        self.cells.resize(columns, rows)
        self.kitty.cell_px = cell_px


class Screen:
    """`columns` x `rows` cells of `cell_px` pixels, wide and high."""

    def __init__(
        self,
        columns: int,
        rows: int,
        cell_px: tuple[int, int] = (8, 17),
        *,
        graphics: Iterable[Graphics] = ALL_GRAPHICS,
        tmux: bool = False,
        quota_bytes: int = QUOTA_BYTES,
    ) -> None:
        """`tmux`: graphics reach the terminal only in tmux's passthrough, as with `allow-passthrough on`."""
        self.columns, self.rows, self.cell_px = columns, rows, cell_px
        self.default_foreground = (229, 229, 229)
        self.default_background = (0, 0, 0)
        self.errors: list[str] = []
        self.modes: set[int] = set()
        """DEC private modes that are set."""
        self.synchronized_updates = 0
        self.sixels: deque[sixels.Sixels] = deque(maxlen=_KEPT)
        """The last sixel pictures, as they were drawn."""
        self.inline_images: deque[Inline] = deque(maxlen=_KEPT)
        """iTerm2's likewise."""
        self.title = ""
        self._graphics = frozenset(graphics)
        self._tmux, self._quota_bytes = tmux, quota_bytes
        self._parser = Parser()
        self._inline = InlineImages(columns, rows, cell_px)
        self._buffer, self._other = _Buffer(self), _Buffer(self)

    def new_kitty(self) -> KittyGraphics:
        """Graphics of a screen that shows none yet."""
        return KittyGraphics(
            self.cell_px,
            self.errors,
            placeholders="kitty-placeholders" in self._graphics,
            frames="kitty-frames" in self._graphics,
            quota_bytes=self._quota_bytes,
        )

    @property
    def cells(self) -> Cells:
        """The characters."""
        return self._buffer.cells

    @property
    def pixels(self) -> Pixels:
        """What sixel and iTerm2 pictures left."""
        return self._buffer.pixels

    @property
    def kitty(self) -> KittyGraphics:
        """kitty's images and placements."""
        return self._buffer.kitty

    @property
    def images_held(self) -> int:
        """How many images kitty keeps, for both screens."""
        return len(self._buffer.kitty.images) + len(self._other.kitty.images)

    @property
    def bytes_held(self) -> int:
        """What these take."""
        return self._buffer.kitty.bytes_held + self._other.kitty.bytes_held

    def feed(self, data: bytes) -> None:
        """Take what a program wrote, in pieces of any size."""
        for event in self._parser.feed(data):
            self.apply(event)

    def finish(self) -> list[str]:
        """All errors, with those that only the end can show: something begun and not ended."""
        if self._parser.pending:
            self.errors.append(f"the output ends within a sequence: {self._parser.pending[:40]!r}")
        if self.kitty.unfinished:
            self.errors.append("the output ends within a graphics transmission")
        if _SYNCHRONIZED in self.modes:
            self.errors.append("the output ends within a synchronized update")
        return self.errors

    def picture(self, region: tuple[int, int, int, int] | None = None) -> Image.Image:
        """What is seen, as RGB; `region` is column, row, columns and rows."""
        whole = painter.paint(self)
        if region is None:
            return whole
        column, row, columns, rows = region
        width, height = self.cell_px
        return whole.crop((column * width, row * height, (column + columns) * width, (row + rows) * height))

    def text(self) -> str:
        """The characters, line by line."""
        return "\n".join(self.cells.text(row) for row in range(self.rows))

    def resize(self, columns: int, rows: int, cell_px: tuple[int, int] | None = None) -> None:
        """Another size, as after a change of the window or of the font."""
        self.columns, self.rows, self.cell_px = columns, rows, cell_px or self.cell_px
        self._inline = InlineImages(columns, rows, self.cell_px)
        for buffer in (self._buffer, self._other):
            buffer.resize(columns, rows, self.cell_px)

    def apply(self, event: Event) -> bytes:
        """Carry out one sequence; kitty's answer to it, empty where there is none. Other queries are not answered here."""
        match event:
            case Text(text):
                self.cells.write(text)
            case Csi():
                try:
                    self._csi(event)
                except ValueError as error:
                    sequence = event.prefix + event.params + event.intermediates + event.final
                    self.errors.append(f"CSI {sequence.decode()}: {error}")
            case Control(code):
                if not editing.control(self.cells, code):
                    self.errors.append(f"control character {code:#04x}")
            case String():
                return self._string(event, passed=False)
            case Escape(intermediates, final):
                self._escape(intermediates + final)
            case Malformed(why, data):
                self.errors.append(f"{why}: {data!r}")
        return b""

    def _escape(self, sequence: bytes) -> None:
        if sequence == b"c":
            self._buffer, self._other = _Buffer(self), _Buffer(self)
            self.modes.clear()
        elif not editing.escape(self.cells, sequence):
            self.errors.append(f"ESC {sequence.decode()} is not known")

    def _csi(self, event: Csi) -> None:
        if event.intermediates:
            if (event.intermediates, event.final) not in _WITH_INTERMEDIATES:
                raise ValueError("not known")
        elif event.final == b"m" and not event.prefix:
            self.cells.pen = apply_sgr(self.cells.pen, event.params)
        elif event.prefix == b"?" and event.final in (b"h", b"l"):
            for mode in event.numbers():
                self._set_mode(mode, event.final == b"h")
        elif (event.prefix, event.final) in _QUERIES | _KEYBOARD:
            pass
        elif event.prefix:
            raise ValueError("not known")
        else:
            numbers = event.numbers()
            editing.edit(self.cells, event.final, numbers)
            if event.final == b"J" and numbers[:1] in ([2], [3]):
                self.kitty.clear_screen()

    def _set_mode(self, mode: int, value: bool) -> None:
        if mode == _ALTERNATE and value != (mode in self.modes):
            self._switch(to_alternate=value)
        if mode == _SYNCHRONIZED and value:
            self.synchronized_updates += 1
        (self.modes.add if value else self.modes.discard)(mode)
        if mode == _WRAP:
            self.cells.wraps = value

    def _switch(self, *, to_alternate: bool) -> None:
        """The second screen begins blank; the first one comes back as it was."""
        before = self.cells
        if to_alternate:
            before.save()
            self._other = _Buffer(self)
        self._buffer, self._other = self._other, self._buffer
        self.cells.wraps = before.wraps
        if to_alternate:
            self.cells.pen = before.pen
            self.cells.move(before.row, before.column)
        else:
            self.cells.restore()

    def _string(self, string: String, *, passed: bool) -> bytes:
        """`passed`: tmux handed it on."""
        kind, data = string
        if kind == "DCS" and data.startswith(b"tmux;"):
            return self._pass_through(data[5:])
        if b"\x1b" in data:
            self.errors.append(f"an escape within a string: {data[:40]!r}")
            return b""
        header, is_sixel, body = data.partition(b"q")
        if kind == "APC" and data.startswith(b"G"):
            return self._kitty(data[1:]) if self._can("kitty", passed) else b""
        if kind == "OSC":
            self._osc(data, passed)
        elif kind == "DCS" and is_sixel and not header.strip(b"0123456789;"):
            if self._can("sixel", passed):
                self._draw_sixels(header, body)
        elif kind != "DCS" or not data.startswith((b"$q", b"+q")):
            self.errors.append(f"{kind} {data[:40]!r} is not known")
        return b""

    def _can(self, graphics: Graphics, passed: bool) -> bool:
        if graphics not in self._graphics:
            self.errors.append(f"{graphics} graphics, which this terminal does not know")
            return False
        if self._tmux and not passed:
            self.errors.append(f"{graphics} graphics without passthrough, which tmux swallows")
            return False
        return True

    def _pass_through(self, wrapped: bytes) -> bytes:
        """What tmux takes out of the wrapper and hands on."""
        if not self._tmux:
            self.errors.append("tmux's passthrough outside tmux")
            return b""
        if b"\x1b" in wrapped.replace(b"\x1b\x1b", b""):
            self.errors.append("a single escape within passthrough")
        inner = Parser()
        answers = b""
        for event in inner.feed(wrapped.replace(b"\x1b\x1b", b"\x1b")):
            answers += self._string(event, passed=True) if isinstance(event, String) else self.apply(event)
        if inner.pending:
            self.errors.append(f"passthrough of a part of a sequence: {inner.pending[:40]!r}")
        return answers

    def _kitty(self, body: bytes) -> bytes:
        cells = self.cells
        outcome = self.kitty.take(body, cells.row, cells.column)
        if outcome.right or outcome.down:
            column = cells.column + outcome.right
            for _ in range(outcome.down):
                cells.feed_line()
            cells.move(cells.row, column)
        return outcome.answer

    def _draw_sixels(self, header: bytes, body: bytes) -> None:
        picture = sixels.decode(header, body)
        self.errors.extend(f"sixel: {error}" for error in picture.errors)
        self.sixels.append(picture)
        if _SIXEL_DISPLAY in self.modes:
            self.pixels.paint(0, 0, picture.pixels)
        else:
            self._draw(picture.pixels)

    def _draw(self, rgba: Rgba) -> None:
        """Draw at the cursor, which ends on the last row of the picture; what is too high scrolls the screen."""
        cells = self.cells
        rows = max(1, -(-rgba.shape[0] // self.cell_px[1]))
        hangs_over = max(0, cells.row + rows - self.rows)
        if hangs_over:
            cells.scroll(hangs_over)
        top = cells.row - hangs_over
        self.pixels.paint(max(0, top), cells.column, rgba[max(0, -top) * self.cell_px[1] :])
        cells.move(top + rows - 1, cells.column)

    def _osc(self, data: bytes, passed: bool) -> None:
        number, _, rest = data.partition(b";")
        if number == b"1337" and rest.startswith((b"File", b"Multipart")):
            if self._can("iterm2", passed):
                self._draw_inline(rest)
        elif number in (b"0", b"2"):
            self.title = rest.decode(errors="replace")
        elif not number.isdigit():
            self.errors.append(f"OSC {data[:40]!r} is not known")

    def _draw_inline(self, command: bytes) -> None:
        try:
            picture = self._inline.take(command)
        except ValueError as error:
            self.errors.append(f"inline image: {error}")
            return
        if picture is None:
            return
        self.inline_images.append(picture)
        if picture.moves_cursor:
            self._draw(picture.pixels)
            self.cells.move(self.cells.row, self.cells.column + picture.columns)
        else:
            self.pixels.paint(self.cells.row, self.cells.column, picture.pixels)
