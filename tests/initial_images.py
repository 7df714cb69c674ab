"""Pictures that people begin with, good, odd and impossible ones, and a server of them that misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image

from tests.unit.picture_server import Server, body, serving, silence
from tests.unit.pictures import encoded, png

RED, BLUE = (250, 10, 20), (10, 20, 250)


def plain(width_px: int = 96, height_px: int = 64, mode: str = "RGB") -> Image.Image:
    """The left half red, the right half blue."""
    image = Image.new("RGB", (width_px, height_px), RED)
    image.paste(BLUE, (width_px // 2, 0, width_px, height_px))
    return image.convert(mode)


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
    "nothing.png": (png(0, 0), "0x0 pixels"),
    "bomb.png": (png(50_000, 50_000), "has 50,000x50,000 pixels; at most"),
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


class PictureServer:
    """Where it is, and what it was asked for."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.url = f"http://127.0.0.1:{server.server_port}"

    @property
    def asked(self) -> list[str]:
        """The paths, in their order."""
        return self._server.paths


@contextmanager
def serving_pictures() -> Iterator[PictureServer]:
    """`/cat.png` is one; `/page` is HTML, `/huge` says that it has 1 GiB, `/never` does not answer, the rest is not found."""
    with serving() as server:
        server.answers |= {
            "/cat.png": body(encoded(plain()), Content_Type="image/png"),
            "/page": body(b"<!DOCTYPE html><html></html>", Content_Type="text/html"),
            "/huge": lambda handler: handler.start(Content_Length=1 << 30),
            "/never": silence,
        }
        yield PictureServer(server)
