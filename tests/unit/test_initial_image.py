"""Initial images: what is read of a file, how large it becomes, what a user may paste, and the store of copies."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdtui import settings
from sdtui.image_files import bytes_of
from sdtui.initial_image import (
    InitialImageCancelled,
    InitialImageError,
    Resize,
    clean_source,
    digest_of_file,
    is_url,
    read_initial_image,
    resized,
    steps_that_run,
    take_in,
    target_size,
)
from sdtui.terminal.picture import MAX_PIXELS

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


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


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(data: bytes, name: str = "picture.png") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def is_near(pixel: Any, colour: tuple[int, int, int], distance: int = 12) -> bool:
    return all(abs(one - other) <= distance for one, other in zip(pixel, colour, strict=True))


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

HTML = b"\n<!DOCTYPE html>\n<html><body><svg></svg></body></html>"
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


# --- how large it becomes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "asked", "resize", "expected"),
    [
        ((300, 100), (512, 256), "exact", (512, 256)),
        ((300, 100), (512, 256), "fill", (512, 256)),
        ((300, 100), (512, 256), "crop", (512, 256)),
        ((512, 512), (512, 512), "fit", (512, 512)),
        ((1920, 1080), (512, 512), "fit", (512, 288)),
        ((1080, 1920), (512, 512), "fit", (288, 512)),
        ((1000, 999), (512, 512), "fit", (512, 504)),
        ((3, 2), (512, 512), "fit", (512, 336)),
        ((100_000, 10), (512, 512), "fit", (512, 8)),
        ((10, 100_000), (512, 512), "fit", (8, 512)),
        ((1920, 1080), (500, 500), "fit", (496, 280)),
    ],
)
def test_a_size_is_what_resize_makes_of_it(
    own: tuple[int, int], asked: tuple[int, int], resize: Resize, expected: tuple[int, int]
) -> None:
    assert target_size(own, *asked, resize) == expected


def test_the_multiple_is_the_callers() -> None:
    assert target_size((1000, 900), 512, 512, "fit", multiple=64) == (512, 448)


@given(
    own=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    width=st.integers(8, 256).map(lambda eighths: eighths * 8),
    height=st.integers(8, 256).map(lambda eighths: eighths * 8),
)
def test_a_picture_that_fits_is_inside_and_as_large_as_it_can_be(own: tuple[int, int], width: int, height: int) -> None:
    wide, high = target_size(own, width, height, "fit")
    assert wide % 8 == high % 8 == 0 and 8 <= wide <= width and 8 <= high <= height
    assert wide == width or high == height
    scale = min(width / own[0], height / own[1])
    assert wide == 8 or own[0] * scale - 8 < wide <= own[0] * scale + 1e-6
    assert high == 8 or own[1] * scale - 8 < high <= own[1] * scale + 1e-6


@pytest.mark.parametrize("resize", ["exact", "fit", "fill", "crop"])
@pytest.mark.parametrize("own", [(16, 8), (640, 480), (100, 700), (64, 64)])
def test_a_resized_picture_has_its_target_size(own: tuple[int, int], resize: Resize) -> None:
    image = resized(Image.new("RGB", own, RED), 64, 96, resize)
    assert image.size == target_size(own, 64, 96, resize)
    assert image.getextrema() == ((255, 255), (0, 0), (0, 0))


def bands() -> Image.Image:
    """96x32: red, white, blue, a third each."""
    image = Image.new("RGB", (96, 32), WHITE)
    image.paste(RED, (0, 0, 32, 32))
    image.paste(BLUE, (64, 0, 96, 32))
    return image


def test_exact_keeps_all_of_the_picture_whatever_its_proportions() -> None:
    image = resized(bands(), 24, 64, "exact")
    assert [is_near(image.getpixel((x, 32)), colour) for x, colour in ((2, RED), (12, WHITE), (21, BLUE))] == [True] * 3


def test_fill_covers_the_size_and_cuts_around_the_middle() -> None:
    image = resized(bands(), 64, 64, "fill")
    assert is_near(image.getpixel((4, 32)), WHITE) and is_near(image.getpixel((59, 32)), WHITE)


def test_crop_takes_the_middle_pixel_by_pixel() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 97, 3), dtype=np.uint8))
    assert resized(noise, 32, 16, "crop").tobytes() == noise.crop((32, 8, 64, 24)).tobytes()


@pytest.mark.parametrize("own", [(16, 64), (64, 16), (16, 16)])
def test_crop_scales_a_smaller_picture_up_just_to_cover(own: tuple[int, int]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (own[1], own[0], 3), dtype=np.uint8))
    assert resized(noise, 32, 32, "crop").tobytes() == resized(noise, 32, 32, "fill").tobytes()


@pytest.mark.parametrize("resize", ["exact", "fit", "fill", "crop"])
def test_a_picture_of_the_right_size_stays_as_it_is(resize: Resize) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8))
    assert resized(noise, 48, 64, resize).tobytes() == noise.tobytes()


@pytest.mark.parametrize(
    ("steps", "strength", "expected"), [(50, 0.8, 40), (20, 0.75, 15), (10, 0.05, 0), (3, 0.5, 1), (7, 1.0, 7), (50, 0.0, 0)]
)
def test_the_steps_that_run_are_counted_as_diffusers_does(steps: int, strength: float, expected: int) -> None:
    assert steps_that_run(steps, strength) == expected


# --- what a user pastes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \n ", ""),
        ("/a/b.png", "/a/b.png"),
        ("  /a/b.png \r\n", "/a/b.png"),
        ("'/a/my cat.png' ", "/a/my cat.png"),
        ('"/a/my cat.png"', "/a/my cat.png"),
        (r"'/a/it'\''s.png'", "/a/it's.png"),
        ("'/a/one.png' '/a/two.png'", "/a/one.png"),
        ("'tis.png", "'tis.png"),
        ("''", ""),
        (r"/a/my\ cat\ \(1\).png", "/a/my cat (1).png"),
        (r"/a/back\\slash.png", r"/a/back\slash.png"),
        ("\n\n /a.png\n/b.png", "/a.png"),
        ("file:///a/my%20cat.png", "/a/my cat.png"),
        ("file://localhost/a/%C3%A9.png", "/a/é.png"),
        ("FILE:/a/100%25%23.png", "/a/100%#.png"),
        ("'file:///a/b.png'", "/a/b.png"),
        ("file:///a/%FF.png", "/a/\udcff.png"),
        ("file://other/a.png", "file://other/a.png"),
        ("~/cat.png", "{home}/cat.png"),
        ("~nobody-of-this-name/cat.png", "~nobody-of-this-name/cat.png"),
        ("a~b.png", "a~b.png"),
        ("https://example.org/a%20b.png?x=~1", "https://example.org/a%20b.png?x=~1"),
        (" 'https://example.org/a.png'\n", "https://example.org/a.png"),
    ],
)
def test_what_is_pasted_or_dropped_becomes_a_path_or_url(home: Path, text: str, expected: str) -> None:
    assert clean_source(text) == expected.replace("{home}", str(home))


@given(st.text())
def test_no_text_breaks_the_cleaning(text: str) -> None:
    assert "\n" not in clean_source(text)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://example.org/a.png", True),
        ("HTTP://example.org", True),
        ("/a/b.png", False),
        ("b.png", False),
        ("12:30 cat.png", False),
        ("data.png", False),
        ("C:/x.png", False),
    ],
)
def test_a_url_is_told_from_a_path(source: str, expected: bool) -> None:
    assert is_url(source) is expected


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("ftp://example.org/a.png", "ftp://"),
        ("data:image/png;base64,AAAA", "data:"),
        ("data:,x", "data:"),
        ("file://other/a.png", "file://"),
        ("gopher://[x", "gopher://"),
    ],
)
def test_other_schemes_are_refused_with_what_is_taken(source: str, kind: str) -> None:
    with pytest.raises(InitialImageError, match=f"http:// and https:// are taken.*not {kind}"):
        is_url(source)


# --- the store ------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(home: Path) -> Path:
    directory = settings.initial_dir()
    assert directory == home / "data" / "sdtui" / "initial"
    return directory


def test_a_copy_is_kept_under_the_hash_of_its_bytes(written: Callable[..., Path], store: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = written(encoded(halves(), "JPEG", exif=exif), "My cat (1).png")
    taken = take_in(str(path), store)
    assert taken.path == store / f"{taken.digest[:16]}-My_cat_1.jpg"
    assert taken.path.read_bytes() == path.read_bytes()
    assert taken.digest == digest_of_file(taken.path) == digest_of_file(path)
    assert (taken.width_px, taken.height_px) == (8, 16) == read_initial_image(taken.path).size
    assert stat.S_IMODE(taken.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    path.unlink()
    assert take_in(str(taken.path), store) == taken


def test_the_same_picture_is_kept_once(written: Callable[..., Path], store: Path) -> None:
    path = written(encoded(halves()))
    first = take_in(str(path), store)
    at = first.path.stat()
    assert take_in(f"'{path}'\n", store) == first
    assert (first.path.stat().st_ino, first.path.stat().st_mtime_ns) == (at.st_ino, at.st_mtime_ns)
    assert list(store.iterdir()) == [first.path]


def test_a_copy_that_was_cut_is_written_again(written: Callable[..., Path], store: Path) -> None:
    path = written(encoded(halves()))
    taken = take_in(str(path), store)
    taken.path.write_bytes(b"")
    assert take_in(str(path), store) == taken
    assert taken.path.read_bytes() == path.read_bytes()


def test_a_file_in_the_store_is_only_checked(written: Callable[..., Path], store: Path) -> None:
    taken = take_in(str(written(encoded(halves()))), store)
    assert take_in(str(store / ".." / "initial" / taken.path.name), store).digest == taken.digest
    assert list(store.iterdir()) == [taken.path]
    taken.path.write_bytes(HTML)
    with pytest.raises(InitialImageError, match="is a web page"):
        take_in(str(taken.path), store)


def test_a_file_in_the_store_that_is_another_picture_now_gets_its_own_name(written: Callable[..., Path], store: Path) -> None:
    taken = take_in(str(written(encoded(halves()))), store)
    taken.path.write_bytes(encoded(Image.new("RGB", (8, 8))))
    again = take_in(str(taken.path), store)
    assert again.path != taken.path and again.path.name.startswith(again.digest[:16])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("x" * 200 + ".png", "x" * 40),
        ("猫" * 60 + ".png", "猫" * 40),
        ("\x1b[31m.png", "image"),
        ("...", "image"),
        ("-rf *;$(x).png", "rf_x"),
        ("a.b.png", "a.b"),
    ],
)
def test_the_stem_is_safe_and_short(written: Callable[..., Path], store: Path, name: str, stem: str) -> None:
    taken = take_in(str(written(encoded(halves()), name)), store)
    assert taken.path.name == f"{taken.digest[:16]}-{stem}.png"


def test_a_name_that_looks_like_something_to_clean_is_taken_as_it_is(written: Callable[..., Path], store: Path) -> None:
    assert take_in(str(written(encoded(halves()), r"a\ b'.png")), store).path.exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "There is no initial image: give the path or the address"),
        (" \n", "There is no initial image"),
        ("nothing.png", "nothing.png does not exist"),
        ("ftp://example.org/a.png", "http:// and https:// are taken"),
        ("y" * 5000, "File name too long"),
    ],
)
def test_what_cannot_be_taken_in_leaves_no_store(store: Path, source: str, words: str) -> None:
    with pytest.raises(InitialImageError, match=words):
        take_in(source, store)
    assert not store.exists()


def test_a_damaged_picture_is_not_kept(written: Callable[..., Path], store: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(InitialImageError, match="cut short"):
        take_in(str(written(encoded(noise)[:-2000])), store)
    assert not store.exists()


def test_a_full_disk_leaves_nothing_half_written(
    written: Callable[..., Path], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    path = written(encoded(halves()))
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InitialImageError, match=r"picture\.png cannot be kept in .*initial: No space left on device\."):
        take_in(str(path), store)
    assert not list(store.iterdir())


def test_two_that_take_the_same_picture_in_at_once_keep_it_once(written: Callable[..., Path], store: Path) -> None:
    path = written(encoded(Image.new("RGB", (512, 512), RED), "BMP"))
    taken: list[Any] = []
    threads = [threading.Thread(target=lambda: taken.append(take_in(str(path), store))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(taken) == 4 and len({one.path for one in taken}) == 1
    assert list(store.iterdir()) == [taken[0].path]


def test_reading_tells_its_progress_and_can_be_cancelled(written: Callable[..., Path], store: Path) -> None:
    path = written(encoded(Image.new("RGB", (1024, 1024)), "BMP"))
    told: list[tuple[int, int]] = []
    take_in(str(path), store, progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert len(told) > 2 and told[-1] == (size, size) and sorted(told) == told
    told.clear()
    with pytest.raises(InitialImageCancelled, match="was cancelled"):
        take_in(str(path), store, cancelled=lambda: bool(told), progress=lambda done, total: told.append((done, total)))
    assert len(told) == 1


def test_neither_pictures_nor_the_network_are_imported_early() -> None:
    code = "import sys, sdtui.initial_image; print(*({'PIL', 'numpy', 'httpx', 'httpcore', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
