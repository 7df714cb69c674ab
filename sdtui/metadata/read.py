"""Reading what a PNG says of itself, chunk by chunk: pixels are never unpacked, and no text of more than a mebibyte."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from pathlib import Path
from typing import IO, Final

import msgspec

from sdtui.metadata.infotext import parse_infotext
from sdtui.metadata.record import A1111_KEY, OUR_KEY, ImageMetadata, ImageRecord, MetadataError
from sdtui.text import safe_text

_MAX_TEXT_BYTES: Final = 1 << 20
"""Of one text chunk, unpacked; 10,000 characters of prompt and of negative prompt are at most 240 kB of our JSON."""
_MAX_CHUNKS: Final = 100_000
_MAX_PIXELS: Final = 178_956_970
"""Where Pillow refuses to open a picture as a decompression bomb."""
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK_HEAD: Final = struct.Struct(">I4s")
_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")
_READ_KEYS: Final = (OUR_KEY, A1111_KEY)


def read_png(path: Path) -> ImageMetadata:
    """What a PNG says of how it was made: our record, else A1111's infotext. Raises `MetadataError`.

    Pixels are never unpacked, and no text of more than a mebibyte.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise MetadataError(f"{path} is {'a directory' if path.is_dir() else 'no regular file'}.")
        with path.open("rb") as file:
            width, height = _read_header(path, file)
            texts = _read_texts(path, file)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise MetadataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    info = texts.get(A1111_KEY)
    ours = texts.get(OUR_KEY)
    if info is None and ours is None:
        others = ", ".join(sorted(safe_text(key) for key in texts))
        instead = f" (only {others})" if others else ""
        raise MetadataError(f"{path} says nothing of how it was made: no text `{OUR_KEY}` or `{A1111_KEY}`{instead}.")
    record, problem = _decode_record(ours)
    fields = parse_infotext(info) if info is not None else {}
    return ImageMetadata(
        path=str(path), width_px=width, height_px=height, record=record, infotext=info, fields=fields, problem=problem
    )


def _decode_record(text: str | None) -> tuple[ImageRecord | None, str]:
    if text is None:
        return None, ""
    try:
        return msgspec.json.decode(text, type=ImageRecord), ""
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return None, f"The text `{OUR_KEY}` cannot be read: {error}"


def _read_header(path: Path, file: IO[bytes]) -> tuple[int, int]:
    head = file.read(len(_SIGNATURE) + 25)  # the first chunk, IHDR, is 25 bytes long
    if not head.startswith(_SIGNATURE):
        raise MetadataError(f"{path} is not a PNG file.")
    if len(head) < len(_SIGNATURE) + 25 or head[12:16] != b"IHDR":
        raise MetadataError(f"{path} is a damaged PNG file: it has no header.")
    width, height = struct.unpack_from(">II", head, 16)
    if not 0 < width * height <= _MAX_PIXELS:
        raise MetadataError(f"{path} says it has {width:,} x {height:,} pixels; up to {_MAX_PIXELS:,} in all are read.")
    return width, height


def _read_texts(path: Path, file: IO[bytes]) -> dict[str, str]:
    """The text chunks by key; texts of keys that are none of ours are left empty."""
    texts: dict[str, str] = {}
    for _ in range(_MAX_CHUNKS):
        head = file.read(_CHUNK_HEAD.size)
        if len(head) < _CHUNK_HEAD.size:
            raise MetadataError(f"{path} is a damaged PNG file: it ends too early.")
        length, kind = _CHUNK_HEAD.unpack(head)
        if kind == b"IEND":
            return texts
        if kind not in _TEXT_CHUNKS:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        key, text = _read_text(path, file, kind, length)
        texts.setdefault(key, text)
    raise MetadataError(f"{path} has more than {_MAX_CHUNKS:,} chunks; that is no ordinary PNG file.")


def _read_text(path: Path, file: IO[bytes], kind: bytes, length: int) -> tuple[str, str]:
    start = file.read(min(length, 80))  # a key is at most 79 bytes and a zero
    key = start.split(b"\0", 1)[0].decode("latin-1")
    if key not in _READ_KEYS:
        file.seek(length - len(start) + 4, os.SEEK_CUR)
        return key, ""
    if length > _MAX_TEXT_BYTES:
        raise MetadataError(f"{path}: the text `{key}` has {length:,} bytes; up to {_MAX_TEXT_BYTES:,} are read.")
    data = start + file.read(length - len(start))
    check = file.read(4)
    if len(data) < length or check != struct.pack(">I", zlib.crc32(kind + data)):
        raise MetadataError(f"{path} is a damaged PNG file: the text `{key}` is cut off or changed.")
    try:
        return key, _decode_text(kind, data[len(key) + 1 :])
    except _TextTooLargeError:
        raise MetadataError(f"{path}: the text `{key}` unpacks to more than {_MAX_TEXT_BYTES:,} bytes.") from None
    except (ValueError, zlib.error, IndexError) as error:
        raise MetadataError(f"{path}: the text `{key}` cannot be unpacked: {error}.") from error


class _TextTooLargeError(Exception):
    pass


def _decode_text(kind: bytes, body: bytes) -> str:
    """The text of a chunk behind its key (PNG specification, 11.3.4: tEXt latin-1, zTXt packed, iTXt UTF-8)."""
    if kind == b"tEXt":
        return body.decode("latin-1")
    if kind == b"zTXt":
        return _inflate(body[1:]).decode("latin-1")
    packed = body[0] == 1
    _language, _translated, text = body[2:].split(b"\0", 2)
    return (_inflate(text) if packed else text).decode("utf-8")


def _inflate(data: bytes) -> bytes:
    """Unpacked up to the limit and one byte. Raises `_TextTooLargeError`, and `ValueError` for one that breaks off."""
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, _MAX_TEXT_BYTES + 1)
    if len(text) > _MAX_TEXT_BYTES:
        raise _TextTooLargeError
    if not unpacker.eof:
        raise ValueError("it breaks off")
    return text
