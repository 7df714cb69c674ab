"""Pictures that people begin with, good, odd and impossible ones, and a server of them that misbehaves."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from PIL import Image

RED, BLUE = (250, 10, 20), (10, 20, 250)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(width_px: int = 96, height_px: int = 64, mode: str = "RGB") -> Image.Image:
    """The left half red, the right half blue."""
    image = Image.new("RGB", (width_px, height_px), RED)
    image.paste(BLUE, (width_px // 2, 0, width_px, height_px))
    return image.convert(mode)


def _png_that_says(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


ODD: Final = {
    "cmyk.jpg": encoded(plain(mode="CMYK"), "JPEG"),
    "sixteen bits.png": encoded(plain().convert("L").convert("I;16")),
    "animated.gif": encoded(plain(), "GIF", save_all=True, append_images=[plain().rotate(180)]),
    "Füße 🐈\u200d⬛ (1) 'x' \"y\".webp": encoded(plain(), "WEBP"),
    "no ending": encoded(plain(), "BMP"),
}
"""Files of 96x64 pixels that are taken as they are, by their names."""
BAD: Final = {
    "missing.png": (None, "missing.png does not exist"),
    "empty.png": (b"", "is empty: the file has 0 bytes"),
    "truncated.jpg": (encoded(plain(), "JPEG")[:-40], "cut short"),
    "nothing.png": (_png_that_says(0, 0), "0x0 pixels"),
    "bomb.png": (_png_that_says(50_000, 50_000), "has 50,000x50,000 pixels; at most"),
    "drawing.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing"),
    "page.png": (b"<!DOCTYPE html><html></html>", "is a web page"),
}
"""Contents of files that cannot be taken, None for one that is not there, and what is said of each."""


def long_path(directory: Path) -> Path:
    """A file in the directory whose path has more than 600 characters."""
    deep = directory.joinpath(*(["a directory with a long name " + "x" * 170] * 3))
    deep.mkdir(parents=True)
    path = deep / "cat.png"
    path.write_bytes(encoded(plain()))
    assert len(str(path)) > 600
    return path


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        asked: list[str] = self.server.asked  # type: ignore[attr-defined]
        asked.append(self.path)
        match self.path.partition("?")[0]:
            case "/cat.png":
                self._send(encoded(plain()))
            case "/page":
                self._send(b"<!DOCTYPE html><html></html>", "text/html")
            case "/huge":
                self.send_response(200)
                self.send_header("Content-Length", str(1 << 30))
                self.end_headers()
            case "/never":
                self.server.over.wait(60)  # type: ignore[attr-defined]
            case _:
                self.send_error(404)

    def _send(self, body: bytes, kind: str = "image/png") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


class PictureServer:
    """Where it is, and what it was asked for."""

    def __init__(self, url: str, asked: list[str]) -> None:
        self.url = url
        self.asked = asked


@contextmanager
def serving_pictures() -> Iterator[PictureServer]:
    """`/cat.png` is one; `/page` is HTML, `/huge` says that it has 1 GiB, `/never` does not answer, the rest is not found."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.asked, server.over = [], threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield PictureServer(f"http://127.0.0.1:{server.server_address[1]}", server.asked)  # type: ignore[attr-defined]
    finally:
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join()
