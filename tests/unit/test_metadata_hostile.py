"""Picture files that mean harm, or are broken: what they say of themselves is refused with a reason, at a bounded cost."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image

from sdtui.metadata import MetadataError, read_png, save_png
from sdtui.text import is_safe
from tests.unit.records import RECORD


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(tmp_path: Path, *chunks: bytes, size: tuple[int, int] = (1, 1), end: bytes = chunk(b"IEND", b"")) -> Path:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    path = tmp_path / "hostile.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + end)
    return path


BOMB = zlib.compress(b"a" * (64 << 20), 9)
GOOD = chunk(b"tEXt", b"parameters\0a cat")


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([chunk(b"zTXt", b"parameters\0\0" + BOMB)], "unpacks to more than"),
        ([chunk(b"iTXt", b"sdtui\0\1\0\0\0" + BOMB)], "unpacks to more than"),
        ([chunk(b"tEXt", b"parameters\0" + b"a" * (2 << 20))], "up to 1,048,576 are read"),
        ([struct.pack(">I", 0x7FFFFFFF) + b"tEXtparameters\0a"], "up to 1,048,576 are read"),
        ([struct.pack(">I", 500) + b"tEXtparameters\0a"], "cut off or changed"),
        ([GOOD[:-1] + b"\0"], "cut off or changed"),
        ([chunk(b"zTXt", b"parameters\0\0garbage")], "cannot be unpacked"),
        ([chunk(b"iTXt", b"parameters\0")], "cannot be unpacked"),
        ([chunk(b"iTXt", b"parameters\0\0\0\0\0\xff\xfe")], "cannot be unpacked"),
        ([chunk(b"tEXt", b"workflow\0{}"), chunk(b"tEXt", b"\x1b]0;x\x07\0{}")], "says nothing of how it was made"),
        ([chunk(b"aaAa", b"")] * 100_001, "more than 100,000 chunks"),
        ([], "says nothing"),
    ],
)
def test_hostile_text_is_refused_with_the_reason(tmp_path: Path, chunks: list[bytes], said: str) -> None:
    path = png_with(tmp_path, *chunks)
    with pytest.raises(MetadataError, match=re.escape(said)) as caught:
        read_png(path)
    assert str(path) in str(caught.value) and is_safe(str(caught.value))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_packed_text_is_never_unpacked_past_the_limit(tmp_path: Path, kind: bytes) -> None:
    head = b"parameters\0\0" if kind == b"zTXt" else b"parameters\0\1\0\0\0"
    path = png_with(tmp_path, chunk(kind, head + BOMB))
    assert path.stat().st_size < 70_000
    tracemalloc.start()
    try:
        with pytest.raises(MetadataError, match="unpacks to more than 1,048,576 bytes"):
            read_png(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize(("size", "fits"), [(1 << 20, True), ((1 << 20) + 1, False)])
def test_the_limit_of_packed_text_is_exact(tmp_path: Path, size: int, fits: bool) -> None:
    path = png_with(tmp_path, chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * size)))
    if fits:
        assert read_png(path).infotext == "a" * size
    else:
        with pytest.raises(MetadataError, match="unpacks to more than"):
            read_png(path)


def test_packed_text_that_breaks_off_is_damaged(tmp_path: Path) -> None:
    whole = zlib.compress(b"a cat, " * 100)
    with pytest.raises(MetadataError, match="breaks off"):
        read_png(png_with(tmp_path, chunk(b"zTXt", b"parameters\0\0" + whole[:-6])))


def test_a_pipe_is_not_waited_for_and_a_name_with_a_zero_byte_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MetadataError, match="no regular file"):
        read_png(tmp_path / "fifo")
    with pytest.raises(MetadataError, match="cannot be read"):
        read_png(Path("cat\0.png"))


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (50_000, 50_000), (20_000, 20_000), (0, 5)])
def test_a_picture_of_an_impossible_size_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(MetadataError, match="pixels"):
        read_png(png_with(tmp_path, GOOD, size=size))


@pytest.mark.parametrize("cut", [0, 5, 20, 40, 60])
def test_a_cut_off_file_is_called_damaged_or_no_png(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(save_png(Image.new("RGB", (16, 8), "red"), tmp_path, "whole", RECORD).read_bytes()[:cut])
    with pytest.raises(MetadataError, match=r"damaged|not a PNG"):
        read_png(path)


def test_text_behind_the_pixels_is_read_too(tmp_path: Path) -> None:
    assert read_png(png_with(tmp_path, chunk(b"IDAT", b"x" * 1000), GOOD)).infotext == "a cat"


def test_what_is_missing_or_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.png", tmp_path):
        with pytest.raises(MetadataError, match=re.escape(str(path))):
            read_png(path)
