"""One command of kitty's graphics protocol (https://sw.kovidgoyal.net/kitty/graphics-protocol/), parsed strictly."""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections.abc import Mapping
from typing import Final

import numpy as np
from PIL import Image

from sdtui.bench.screen.pixels import Rgba

_LETTERS: Final = {"a": "tTpfdqac", "t": "dfts", "d": "aAiInNcCfFpPqQrRxXyYzZ", "o": "z"}
_NUMBERS: Final = frozenset("fsvSOmiIpqxywhXYcrCUzPQHV")
_SIGNED: Final = frozenset("zHV")
CHUNK_BYTES: Final = 4096
_LARGEST_PX: Final = 10_000


class Refused(Exception):
    """kitty would answer with this error."""


class Command:
    """The keys of a command, and its payload as it came."""

    def __init__(self, keys: Mapping[str, str], payload: bytes) -> None:
        self.keys, self.payload = keys, payload

    @classmethod
    def parse(cls, body: bytes) -> Command:
        """What stands between `ESC _ G` and `ESC \\`. Raises `ValueError`, as kitty ignores what it cannot read."""
        control, _, payload = body.partition(b";")
        keys: dict[str, str] = {}
        for part in control.decode("ascii").split(",") if control else []:
            key, _, value = part.partition("=")
            if key in keys:
                raise ValueError(f"{key} is given twice")
            _check(key, value)
            keys[key] = value
        return cls(keys, payload)

    @property
    def action(self) -> str:
        """`a`, by default t."""
        return self.keys.get("a", "t")

    def __str__(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.keys.items())

    def number(self, key: str, default: int = 0) -> int:
        """The value of a numeric key."""
        return int(self.keys.get(key, default))


def _check(key: str, value: str) -> None:
    if key in _LETTERS:
        if len(value) != 1 or value not in _LETTERS[key]:
            raise ValueError(f"{key}={value} is not known")
    elif key in _NUMBERS:
        number = int(value)
        low, high = (-(1 << 31), (1 << 31) - 1) if key in _SIGNED else (0, (1 << 32) - 1)
        if not low <= number <= high:
            raise ValueError(f"{key}={value} is out of range")
    else:
        raise ValueError(f"key {key!r} is not known")


def pixels(command: Command, payload: bytes) -> tuple[Rgba, int]:
    """The picture a complete transmission carries, and how many bytes kitty holds for it. Raises `Refused`."""
    data = _unpack(command, payload)
    kind = command.number("f", 32)
    if kind == 100:
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                rgba = np.asarray(image.convert("RGBA"))
        except (OSError, SyntaxError, ValueError) as error:
            raise Refused(f"EBADPNG:{error}") from None
        return rgba, rgba.nbytes
    if kind not in (24, 32):
        raise Refused(f"EINVAL:format {kind}")
    width, height = command.number("s"), command.number("v")
    if not 0 < width <= _LARGEST_PX or not 0 < height <= _LARGEST_PX:
        raise Refused(f"EINVAL:a picture of {width}x{height} pixels")
    depth = kind // 8
    if len(data) != width * height * depth:
        raise Refused(f"ENODATA:{len(data)} bytes for {width}x{height} pixels of {depth} bytes")
    raw = np.frombuffer(data, np.uint8).reshape(height, width, depth)
    opaque = np.full((height, width, 1), 255, np.uint8)
    return (raw if depth == 4 else np.concatenate([raw, opaque], axis=2)), raw.nbytes


def _unpack(command: Command, payload: bytes) -> bytes:
    if command.keys.get("t", "d") != "d":
        raise Refused("EBADF:only what comes over the line is modelled")
    try:
        data = base64.b64decode(payload, validate=True)
        return zlib.decompress(data) if "o" in command.keys else data
    except (binascii.Error, zlib.error) as error:
        raise Refused(f"EINVAL:{error}") from None
