"""Pictures by kitty's graphics protocol (sw.kovidgoyal.net/kitty/graphics-protocol).

Where the terminal can, the picture lies below the text layer: a cell with a background of its own hides it, a blank cell
shows it. So whatever a program draws over the picture covers it, and blank cells bring it back, without a byte from here.
kitty 0.26 paints all cells in wrong colours as soon as there is a picture below them; there it lies above the text. In tmux,
which knows nothing of pictures, it is drawn with Unicode placeholders, characters that stand for its parts.
"""

from __future__ import annotations

import base64
import io
import secrets
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Final

from sdtui.terminal.picture import CellSize, Frame, Spot
from sdtui.terminal.placeholders import placeholder_rows
from sdtui.terminal.sink import ImageSink, at, check, resized, spot_px, within
from sdtui.terminal.tmux import passthrough, untouched

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK: Final = 4096
"""The most base64 in one command."""
BELOW_BACKGROUNDS: Final = -1_073_741_825
"""Just below INT32_MIN / 2: under cells whose background is not the default one."""
_LIVE: Final = ((256, 256), (192, 256), (128, 256), (64, 0), (48, 0), (32, 0), (16, 0), (8, 0))
"""From the best to the smallest: longer side in pixels, and colours of its palette, 0 for all 24 bits."""
_LEAST_PX: Final = 64
"""A terminal that enlarges smoothly lets half a pixel at the edges fade; below this, that would be seen."""
_LEAST_BLOCKY_PX: Final = 256
"""For a terminal that enlarges to squares."""
_LIVE_LIMIT_BYTES: Final = 64_000
_PLACEHOLDER_BYTES: Final = 8
_RGB, _PNG = 24, 100


def new_ids() -> Iterator[int]:
    """Image ids that no other program is likely to use; 24 bits, since a placeholder's colour must hold one."""
    start = secrets.randbelow(1 << 24)
    number = 0
    while True:
        number += 1
        yield (start + number) % 0xFFFFFF + 1


_IDS: Final = new_ids()


class KittySink(ImageSink):
    """Holds one image in the terminal at a time, two while one takes the other's place."""

    name: ClassVar[str] = "kitty"
    is_divisible: ClassVar[bool] = False

    def __init__(
        self,
        cell: CellSize,
        *,
        edits: bool = True,
        below: bool = True,
        smooth: bool = True,
        in_tmux: bool = False,
        limit_bytes: int | None = None,
    ) -> None:
        """`edits`: frames can be changed in place (a=f); in tmux each frame is an image of its own.

        `below`: pictures may lie below cells with a background; `smooth`: the terminal enlarges without showing squares.
        `limit_bytes`: no picture may take more, finished or not.
        """
        super().__init__(cell)
        self._below = below and not in_tmux
        self._smooth = smooth
        self._least_px = _LEAST_PX if smooth else _LEAST_BLOCKY_PX
        self._edits = edits and not in_tmux
        self._in_tmux = in_tmux
        self._wrap = passthrough if in_tmux else untouched
        self._limit_bytes = limit_bytes
        self._quiet = 2 if in_tmux else 1  # tmux would type the answer into the program
        self._image: int | None = None
        self._replaced: int | None = None
        """The image before: the command that frees it is the last of many, and is not sent when the end comes before."""
        self._unfinished = ""
        """What ends the transmission that was begun last, if it was cut."""
        self._size_px = (0, 0)
        self._spot: Spot | None = None

    @property
    def lies_below_text(self) -> bool:  # type: ignore[override]
        """Not with placeholders, which are text themselves."""
        return self._below

    @property
    def may_be_lost(self) -> bool:  # type: ignore[override]
        """tmux drops what it should pass on while its terminal is behind."""
        return self._in_tmux

    @property
    def image_id(self) -> int | None:
        """The image that the terminal holds now; its answers name it."""
        return self._image

    def show(self, frame: Frame, spot: Spot, *, budget_bytes: int | None) -> list[bytes]:
        """Send the pixels, and place them where they are not; see `ImageSink`."""
        check(frame, spot)
        image = self._proportioned(frame.image(), spot)
        data = self._pixels(image, spot, budget_bytes)
        if self._edits and self._image is not None and data.size_px == self._size_px:
            parts = self._transmit(f"a=f,r=1,i={self._image},X=1", data, repeat=f"a=f,r=1,i={self._image}")
            return parts if self._spot == spot else [*parts, *self.place(spot)]
        return self._swap(data, spot)

    def _pixels(self, image: Image, spot: Spot, budget_bytes: int | None) -> _Pixels:
        limit = self._limit_bytes
        if budget_bytes is None:
            whole = _Pixels.png(self._as_large_as_seen(image, spot))
            return whole if limit is None or whole.sent_bytes <= limit else _live(image, limit, self._least_px)
        if self._in_tmux:  # a new image for each frame, so the characters that stand for it go again
            budget_bytes -= spot.columns * spot.rows * _PLACEHOLDER_BYTES
        return _live(image, min(budget_bytes, _LIVE_LIMIT_BYTES if limit is None else limit), self._least_px)

    def _as_large_as_seen(self, image: Image, spot: Spot) -> Image:
        """No more pixels than the spot has; as many, where the terminal would enlarge to squares."""
        longer_px = max(spot_px(spot, self.cell))
        return within(image, longer_px) if self._smooth else enlarged(within(image, longer_px), longer_px)

    def _swap(self, data: _Pixels, spot: Spot) -> list[bytes]:
        """A new image over the old one, which goes when the new one is there: nothing flickers."""
        self._replaced, self._image, self._size_px = self._image, next(_IDS), data.size_px
        parts = [*self._transmit(f"a=t,i={self._image}", data), *self.place(spot)]
        return [*parts, self._free(self._replaced)] if self._replaced is not None else parts

    def place(self, spot: Spot) -> list[bytes]:
        """Move the picture, or, with placeholders, write them again; the pixels are in the terminal already."""
        if self._image is None:
            return []
        self._spot = spot
        if self._in_tmux:
            virtual = self._command(f"a=p,U=1,i={self._image},c={spot.columns},r={spot.rows}")
            rows = placeholder_rows(self._image, spot.columns, spot.rows)
            return [
                virtual,
                *(at(Spot(spot.column, spot.row + number, spot.columns, 1), row.encode()) for number, row in enumerate(rows)),
            ]
        keys = f"a=p,i={self._image},p=1,c={spot.columns},r={spot.rows},z={BELOW_BACKGROUNDS if self._below else 0},C=1"
        return [at(spot, self._command(keys))]

    def hide(self) -> list[bytes]:
        """Take the placement away; the terminal keeps the pixels."""
        if self._image is None or self._spot is None:
            return []
        self._spot = None
        return [self._command(f"a=d,d=i,i={self._image}")]

    def abort(self) -> list[bytes]:
        """An empty last chunk: the terminal would take the next command for one."""
        return [self._command(f"{self._unfinished}m=0", quiet=2)]

    def close(self) -> list[bytes]:
        """Free the image."""
        images = [image for image in (self._replaced, self._image) if image is not None]
        self._image = self._replaced = self._spot = None
        return [self._free(image) for image in images]

    def _free(self, image: int) -> bytes:
        """Freeing what is not there does nothing."""
        return self._command(f"a=d,d=I,i={image}")

    def forget(self) -> None:
        """The next frame is sent as a new image."""
        self._image = self._replaced = self._spot = None

    def inline(self, frame: Frame, columns: int, rows: int) -> bytes:
        """The picture at the cursor. The terminal keeps it, and lets go of it when it scrolls out of its history."""
        spot = Spot(0, 0, columns, rows)
        check(frame, spot)
        self._quiet = 2  # a command has ended before an answer comes, which would be typed into the shell
        picture = self._proportioned(frame.image(), spot)
        data, image = _Pixels.png(self._as_large_as_seen(picture, spot)), next(_IDS)
        if self._in_tmux:
            parts = self._transmit(f"a=t,i={image}", data)
            parts.append(self._command(f"a=p,U=1,i={image},c={columns},r={rows}"))
            return b"".join(parts) + b"".join(row.encode() + b"\r\n" for row in placeholder_rows(image, columns, rows))
        parts = self._transmit(f"a=t,i={image}", data)
        room = b"\n" * rows + b"\x1b[%dA\r" % rows
        placed = self._command(f"a=p,i={image},c={columns},r={rows},C=1")
        return room + b"".join(parts) + placed + b"\x1b[%dB\r" % rows

    def wanted_px(self, columns: int, rows: int) -> int:
        """The terminal enlarges: more than this is not sent while the picture forms."""
        return 64 if self._in_tmux or max(columns, rows * 2) <= 32 else 256

    def _proportioned(self, image: Image, spot: Spot) -> Image:
        """With placeholders a terminal keeps the picture's proportions, with a rim where the spot has others."""
        if not self._in_tmux:
            return image
        width_px, height_px = spot_px(spot, self.cell)
        scale = min(1.0, max(*image.size, _LEAST_PX) / max(width_px, height_px))
        return resized(image, round(width_px * scale), round(height_px * scale))

    def _transmit(self, keys: str, data: _Pixels, *, repeat: str = "") -> list[bytes]:
        """The pixels in chunks. An edit's later chunks must repeat what they edit, or they become a frame of their own."""
        text = base64.b64encode(data.payload)
        chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)] or [b""]
        self._unfinished = f"{repeat}," if repeat else ""
        parts = [self._command(f"{keys},{data.keys},m={int(len(chunks) > 1)}", chunks[0])]
        for number, chunk in enumerate(chunks[1:], start=2):  # kitty complains of each chunk; once is enough
            parts.append(self._command(f"{self._unfinished}m={int(number < len(chunks))}", chunk, quiet=2))
        return parts

    def _command(self, keys: str, payload: bytes = b"", *, quiet: int | None = None) -> bytes:
        body = f"{keys},q={self._quiet if quiet is None else quiet}".encode() + (b";" + payload if payload else b"")
        return self._wrap(b"\x1b_G" + body + b"\x1b\\")


class _Pixels:
    """Pixels ready to be sent: their bytes, and the keys that describe them."""

    def __init__(self, payload: bytes, keys: str, size_px: tuple[int, int]) -> None:
        self.payload = payload
        self.keys = keys
        self.size_px = size_px

    @property
    def sent_bytes(self) -> int:
        """In base64, with the commands around it."""
        text = -(-len(self.payload) // 3) * 4
        return text + 60 * (-(-text // CHUNK))

    @classmethod
    def raw(cls, image: Image) -> _Pixels:
        """24-bit RGB, deflated (RFC 1950)."""
        keys = f"f={_RGB},s={image.width},v={image.height},o=z"
        return cls(zlib.compress(image.tobytes(), 6), keys, image.size)

    @classmethod
    def png(cls, image: Image, colours: int = 0) -> _Pixels:
        """A PNG file, with a palette of so many colours if asked."""
        from PIL.Image import Quantize

        buffer = io.BytesIO()
        picture = image.quantize(colours, method=Quantize.FASTOCTREE) if colours else image
        picture.save(buffer, "PNG", compress_level=2)
        return cls(buffer.getvalue(), f"f={_PNG},s={image.width},v={image.height}", image.size)


def _live(image: Image, budget_bytes: int, least_px: int) -> _Pixels:
    """The best pixels that fit the budget; the fewest, if none do. The terminal enlarges them."""
    longer = max(image.size)
    wanted = longer if longer >= least_px else least_px
    levels = [level for level in _LIVE if level[0] <= wanted] or [_LIVE[-1]]
    for limit_px, colours in levels:
        small = within(image, limit_px) if longer > limit_px else enlarged(image, limit_px)
        data = _Pixels.png(small, colours) if colours else _Pixels.raw(small)
        if data.sent_bytes <= budget_bytes:
            break
    return data


def enlarged(image: Image, longer_px: int) -> Image:
    """`image` with its longer side this long."""
    longer = max(image.size)
    if longer >= longer_px:
        return image
    return resized(image, round(image.width * longer_px / longer), round(image.height * longer_px / longer))
