"""iTerm2's inline images, `OSC 1337 ; File=...` and the multipart form (https://iterm2.com/documentation-images.html)."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from PIL import Image, UnidentifiedImageError

from sdtui.bench.screen.pixels import Rgba

_KEYS: Final = {"name", "size", "width", "height", "preserveAspectRatio", "inline", "doNotMoveCursor", "type"}


class Inline(msgspec.Struct, kw_only=True):
    """A picture to be drawn at the cursor: its pixels, and the cells it takes."""

    pixels: Rgba
    columns: int
    rows: int
    moves_cursor: bool
    format: str
    file_bytes: int


class InlineImages:
    """Takes the text of each `OSC 1337`."""

    def __init__(self, columns: int, rows: int, cell_px: tuple[int, int]) -> None:
        self.columns, self.rows, self._cell_px = columns, rows, cell_px
        self._parts: list[bytes] | None = None
        self._keys: dict[str, str] = {}

    def take(self, command: bytes) -> Inline | None:
        """A picture once it is complete. Raises `ValueError` for what is none."""
        name, _, rest = command.partition(b"=")
        if name == b"File":
            keys, separator, payload = rest.partition(b":")
            if not separator:
                raise ValueError("a file without contents")
            return self._picture(_parse(keys), payload)
        if name == b"MultipartFile":
            self._keys, self._parts = _parse(rest), []
        elif name == b"FilePart" and self._parts is not None:
            self._parts.append(rest)
        elif name == b"FileEnd" and self._parts is not None:
            payload, self._parts = b"".join(self._parts), None
            return self._picture(self._keys, payload)
        else:
            raise ValueError(f"{name.decode(errors='replace')!r} is not known")
        return None

    def _picture(self, keys: Mapping[str, str], payload: bytes) -> Inline | None:
        try:
            data = base64.b64decode(payload, validate=True)
        except binascii.Error as error:
            raise ValueError(f"no base64: {error}") from None
        if "size" in keys and int(keys["size"]) != len(data):
            raise ValueError(f"{len(data)} bytes where {keys['size']} were announced")
        if keys.get("inline") != "1":
            return None  # a file to be saved
        try:
            with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
                kind, picture = image.format or "", image.convert("RGBA")
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"no picture: {error}") from None
        return self._fitted(keys, picture, kind, len(data))

    def _fitted(self, keys: Mapping[str, str], picture: Image.Image, kind: str, file_bytes: int) -> Inline:
        width = _length(keys.get("width", "auto"), self._cell_px[0], self.columns)
        height = _length(keys.get("height", "auto"), self._cell_px[1], self.rows)
        if keys.get("preserveAspectRatio", "1") != "0" or width is None or height is None:
            scale = min((width or 1 << 30) / picture.width, (height or 1 << 30) / picture.height)
            scale = 1.0 if width is None and height is None else scale
            width, height = round(picture.width * scale), round(picture.height * scale)
        picture = picture.resize((max(1, width), max(1, height)), Image.Resampling.BILINEAR)
        return Inline(
            pixels=np.asarray(picture),
            columns=-(-picture.width // self._cell_px[0]),
            rows=-(-picture.height // self._cell_px[1]),
            moves_cursor=keys.get("doNotMoveCursor") != "1",
            format=kind,
            file_bytes=file_bytes,
        )


def _parse(keys: bytes) -> dict[str, str]:
    found = dict(part.partition("=")[::2] for part in keys.decode("ascii").split(";") if part)
    if unknown := set(found) - _KEYS:
        raise ValueError(f"{', '.join(sorted(unknown))}: not known")
    return found


def _length(text: str, cell: int, screen: int) -> int | None:
    """Pixels, None for `auto`; a plain number is cells."""
    if text == "auto":
        return None
    if text.endswith("px"):
        return int(text[:-2])
    if text.endswith("%"):
        return int(text[:-1]) * screen * cell // 100
    return int(text) * cell
