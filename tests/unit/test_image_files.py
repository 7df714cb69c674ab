"""Picture files: what is read of them, and what is refused with a sentence before it costs memory."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdtui.image_files import bytes_of
from sdtui.initial_image import InitialImageError, read_initial_image
from sdtui.terminal.picture import MAX_PIXELS
from tests.unit.pictures import BLUE, HTML, RED, WHITE, encoded, halves, is_near, png

# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_the_content_decides_the_format_not_the_ending(written: Callable[..., Path], kind: str) -> None:
    image = read_initial_image(written(encoded(halves(), kind), "picture.txt"))
    assert (image.mode, image.size) == ("RGB", (16, 8))
    assert is_near(image.getpixel((2, 4)), RED) and is_near(image.getpixel((13, 4)), BLUE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [
        (1, (16, 8), (2, 4)),
        (2, (16, 8), (13, 4)),
        (3, (16, 8), (13, 4)),
        (4, (16, 8), (2, 4)),
        (5, (8, 16), (4, 2)),
        (6, (8, 16), (4, 2)),
        (7, (8, 16), (4, 13)),
        (8, (8, 16), (4, 13)),
    ],
)
def test_a_picture_is_turned_as_its_exif_orientation_says(
    written: Callable[..., Path], kind: str, orientation: int, size: tuple[int, int], red_at: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_initial_image(written(encoded(halves(), kind, exif=exif)))
    assert image.size == size
    assert is_near(image.getpixel(red_at), RED)


def test_damaged_exif_costs_the_orientation_and_not_the_picture(written: Callable[..., Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(halves(), "JPEG", exif=exif.tobytes()[:-10])
    assert read_initial_image(written(data)).mode == "RGB"


def clear_left(mode: str) -> Image.Image:
    """16x8, the left half transparent, the right half blue (or dark grey, where there are no colours)."""
    image = Image.new("RGBA", (16, 8), (0, 0, 0, 0))
    image.paste((*BLUE, 255), (8, 0, 16, 8))
    return image.convert(mode)


def palette_with_transparency() -> Image.Image:
    image = halves().quantize(2)
    left = image.getpixel((0, 0))
    image.info["transparency"] = left
    return image


@pytest.mark.parametrize(
    ("data", "right"),
    [
        (encoded(clear_left("RGBA")), BLUE),
        (encoded(clear_left("RGBA"), "WEBP", lossless=True), BLUE),
        (encoded(clear_left("RGBA"), "TIFF"), BLUE),
        (encoded(clear_left("LA")), (29, 29, 29)),
        (encoded(clear_left("PA"), "TIFF"), BLUE),
        (encoded(palette_with_transparency(), transparency=palette_with_transparency().info["transparency"]), BLUE),
        (encoded(palette_with_transparency(), "GIF", transparency=palette_with_transparency().info["transparency"]), BLUE),
        (encoded(clear_left("RGBA").quantize(4)), BLUE),
        (encoded(halves(), transparency=RED), BLUE),
        (encoded(halves("L"), transparency=halves("L").getpixel((0, 0))), (29, 29, 29)),
    ],
    ids=["RGBA", "RGBA-webp", "RGBA-tiff", "LA", "PA", "P", "P-gif", "P-alpha", "RGB-key", "L-key"],
)
def test_transparency_lies_on_white(written: Callable[..., Path], data: bytes, right: tuple[int, int, int]) -> None:
    image = read_initial_image(written(data))
    assert image.mode == "RGB"
    assert image.getpixel((2, 4)) == WHITE
    assert is_near(image.getpixel((13, 4)), right)


def test_a_half_transparent_pixel_is_mixed_with_white(written: Callable[..., Path]) -> None:
    image = read_initial_image(written(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))))
    assert is_near(image.getpixel((0, 0)), (127, 127, 127), 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_greyscale_of_16_bits_is_scaled_and_not_cut(written: Callable[..., Path], kind: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image = read_initial_image(written(encoded(Image.fromarray(values), kind)))
    assert [image.getpixel((x, 0)) for x in range(4)] == [(0,) * 3, (1,) * 3, (128,) * 3, WHITE]


def test_a_transparent_grey_of_16_bits_becomes_white(written: Callable[..., Path]) -> None:
    values = np.array([[0, 300]], dtype=np.uint16)
    image = read_initial_image(written(encoded(Image.fromarray(values), transparency=300)))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(0, 0, 0), WHITE]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 70_000]], dtype=np.int32), "samples of 32 bits"),
        (np.array([[-1, 7]], dtype=np.int32), "samples of 32 bits"),
        (np.array([[0.0, 0.5]], dtype=np.float32), "floating-point samples"),
    ],
)
def test_samples_without_a_known_white_are_refused(written: Callable[..., Path], values: Any, words: str) -> None:
    with pytest.raises(InitialImageError, match=f"picture.tif has {words}; save it with 8 or 16 bits"):
        read_initial_image(written(encoded(Image.fromarray(values), "TIFF"), "picture.tif"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_printers_colours_are_converted(written: Callable[..., Path], kind: str) -> None:
    image = read_initial_image(written(encoded(halves("CMYK"), kind)))
    assert is_near(image.getpixel((2, 4)), RED, 30) and is_near(image.getpixel((13, 4)), BLUE, 30)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(written: Callable[..., Path], kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    image = read_initial_image(written(encoded(frames[0], kind, save_all=True, append_images=frames[1:])))
    assert is_near(image.getpixel((4, 4)), RED)


# --- what is refused ------------------------------------------------------------------------------------------------

SVG = b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (encoded(halves())[:60], "cut short"),
        (encoded(halves(), "JPEG")[:-40], "cut short"),
        (encoded(halves(), "WEBP")[:40], "cut short"),
        (encoded(halves(), "TIFF")[:40], "cut short"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG file, but damaged or cut short"),
        (b"\xff\xd8\xff\xe0", "is a JPEG file, but damaged or cut short"),
        (png(8, 8), "cut short"),
        (png(0, 0), "0x0 pixels"),
        (png(0, 5), "0x5 pixels"),
        (b"GIF89a" + bytes(7) + b";", "0x0 pixels"),
        (encoded(halves(), "BMP")[:18] + bytes(8) + encoded(halves(), "BMP")[26:], "0x0 pixels"),
        (png(50_000, 50_000), "has 50,000x50,000 pixels; at most 89,478,485"),
        (png(MAX_PIXELS + 1, 1), "pixels; at most"),
        (b"P6\n99999 99999\n255\n", "too many pixels: at most 89,478,485"),
        (b"P6\n9500 9500\n255\n", "has 9,500x9,500 pixels; at most"),
        (SVG, "is an SVG drawing; give a picture in PNG, JPEG, WebP, GIF, BMP or TIFF"),
        (b"<svg/>", "is an SVG drawing"),
        (HTML, r"is a web page \(HTML\), no picture; give a picture in PNG"),
        (b"%PDF-1.7", "is a PDF document; give one in PNG"),
        (b"\x00\x00\x00\x1cftypavif", "is an AVIF picture"),
        (b"\x00\x00\x00\x1cftypheic", "is a HEIC picture"),
        (b"Not Found", "is no picture that can be read; give one in PNG"),
        (bytes(1000), "is no picture that can be read"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else "",
)
def test_what_is_no_picture_is_one_sentence_with_the_file(written: Callable[..., Path], data: bytes, words: str) -> None:
    path = written(data)
    with pytest.raises(InitialImageError, match=words) as caught:
        read_initial_image(path)
    said = str(caught.value)
    assert said.startswith(f"The initial image {path} ") and said.endswith(".") and "\n" not in said and "BytesIO" not in said


def test_a_picture_of_two_and_a_half_billion_pixels_costs_no_memory(written: Callable[..., Path]) -> None:
    """A whole PNG of 300 kB; its pixels as Pillow holds them would be 2.5 GB."""
    squeeze = zlib.compressobj(1)
    row = bytes(1 + 50_000 // 8)
    body = b"".join([*(squeeze.compress(row * 500) for _ in range(100)), squeeze.flush()])
    path = written(png(50_000, 50_000, 1, body))
    assert path.stat().st_size < 3_000_000
    code = (
        "import resource, sys, pathlib\nfrom sdtui.initial_image import InitialImageError, read_initial_image\n"
        "from PIL import Image\nImage.preinit()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n read_initial_image(pathlib.Path(sys.argv[1]))\nexcept InitialImageError as error:\n print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    said = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    sentence, grown_mb = said.stdout.splitlines()
    assert "has 50,000x50,000 pixels" in sentence
    assert int(grown_mb) < 50
    assert said.stderr == ""


def test_a_picture_between_the_limit_and_pillows_is_refused_without_a_warning(
    written: Callable[..., Path], recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.raises(InitialImageError, match="pixels; at most"):
        read_initial_image(written(b"P6\n9500 9500\n255\n"))
    assert not recwarn.list


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InitialImageError, match=r"nothing\.png does not exist\.$"):
        read_initial_image(tmp_path / "nothing.png")


def test_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InitialImageError, match="is a directory; give a picture file in it"):
        read_initial_image(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"), [("a\0b", "null byte"), ("x" * 300, "File name too long"), ("f/x", "Not a directory")]
)
def test_a_path_that_cannot_be_is_named(written: Callable[..., Path], name: str, reason: str) -> None:
    directory = written(b"", "f").parent
    with pytest.raises(InitialImageError, match=f"cannot be read: .*{reason}"):
        read_initial_image(directory / name)


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[None]:
    """The process is somebody to whom permissions apply, also when the tests run as root."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_a_file_without_permission_is_named(written: Callable[..., Path], request: pytest.FixtureRequest) -> None:
    path = written(encoded(halves()))
    path.chmod(0o000)
    request.getfixturevalue("nobody")
    with pytest.raises(InitialImageError, match=r"picture\.png cannot be read: Permission denied\."):
        read_initial_image(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InitialImageError, match="is a pipe, socket or device"):
        read_initial_image(tmp_path / "pipe.png")


def test_a_pipe_that_takes_the_files_place_is_not_waited_for(
    written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(encoded(halves()))
    real = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda self: real)
    with pytest.raises(InitialImageError, match="is a pipe, socket or device"):
        read_initial_image(path)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device: str) -> None:
    with pytest.raises(InitialImageError, match=f"{device} is a pipe, socket or device"):
        read_initial_image(Path(device))


def test_a_file_of_more_than_200_mb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.tif").open("wb") as file:
        file.truncate(200_000_001)
    read: list[int] = []
    with pytest.raises(InitialImageError, match=r"huge\.tif is larger than 200 MB"):
        bytes_of(tmp_path / "huge.tif", progress=lambda done, _total: read.append(done))
    assert not read


def test_controls_of_a_terminal_in_a_name_are_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(InitialImageError) as caught:
        read_initial_image(tmp_path / "a\x1b[31mb\n\x9b2Jc.png")
    assert str(caught.value).isprintable()
