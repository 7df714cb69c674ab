"""Picture files that are not what they seem end in an error with a name, before they cost memory."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sdtui.terminal.picture import MAX_PIXELS, read_picture


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG whose header says so much, whatever its body holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_000, 10_000), (MAX_PIXELS + 1, 1)])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    with pytest.raises(ValueError, match=r"pixels|decompression bomb"):
        read_picture(path)


@pytest.mark.parametrize("data", [b"", b"GIF89a", png(8, 8), png(8, 8)[:40], b"P6\n9999999999999 1\n255\n", b"BM" + bytes(60)])
def test_a_damaged_picture_raises_what_is_promised(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "damaged.png"
    path.write_bytes(data)
    with pytest.raises((OSError, ValueError)):
        read_picture(path)


def test_whatever_a_decoder_raises_becomes_a_value_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(path)

    def broken(*_: object) -> Image.Image:
        raise SyntaxError("broken PNG file")

    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(ValueError, match="broken PNG file"):
        read_picture(path)


def test_a_large_picture_comes_reduced(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (2000, 500), "red").save(path)
    frame = read_picture(path)
    assert (frame.width_px, frame.height_px) == (1024, 256)
    assert frame.is_whole
