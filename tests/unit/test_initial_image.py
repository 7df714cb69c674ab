"""Initial images: how large they become, what a user may paste, and the store of copies."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdtui import settings
from sdtui.initial_image import (
    InitialImageCancelled,
    InitialImageError,
    Resize,
    clean_source,
    digest_of_file,
    is_url,
    read_initial_image,
    resized,
    take_in,
    target_size,
)
from tests.unit.pictures import BLUE, HTML, RED, WHITE, encoded, halves, is_near

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


def test_a_jpeg_with_further_pictures_behind_the_first_is_a_jpeg(written: Callable[..., Path], store: Path) -> None:
    data = encoded(halves(), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 8))])
    taken = take_in(str(written(data, "IMG_1.JPG")), store)
    assert taken.path.name == f"{taken.digest[:16]}-IMG_1.jpg"
    assert is_near(read_initial_image(taken.path).getpixel((2, 4)), RED)


def test_the_same_picture_is_kept_once(written: Callable[..., Path], store: Path) -> None:
    path = written(encoded(halves()))
    first = take_in(str(path), store)
    file = first.path.stat().st_ino
    assert take_in(f"'{path}'\n", store) == first
    assert first.path.stat().st_ino == file
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
