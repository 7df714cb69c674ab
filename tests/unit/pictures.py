"""Small pictures, and bytes that are none, for the tests of initial images."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
HTML = b"\n<!DOCTYPE html>\n<html><body><svg></svg></body></html>"


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(mode: str = "RGB") -> Image.Image:
    """16x8, the left half red, the right half blue."""
    image = Image.new("RGB", (16, 8), RED)
    image.paste(BLUE, (8, 0, 16, 8))
    return image.convert(mode)


def png(width: int, height: int, depth: int = 8, body: bytes = b"") -> bytes:
    """A greyscale PNG whose header says so much, whatever its body holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body or zlib.compress(b"")) + chunk(b"IEND", b"")


def is_near(pixel: Any, colour: tuple[int, int, int], distance: int = 12) -> bool:
    return all(abs(one - other) <= distance for one, other in zip(pixel, colour, strict=True))
