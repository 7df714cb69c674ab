"""Picture files as they come: turned, deep, transparent, of other kinds, and damaged in every way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdtui.cli.card import PHOTO, make_card
from sdtui.cli.still import PictureError, read_facts, read_pixels

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_that_is_named_can_be_read(home: Path, kind: str) -> None:
    path = str(home / "picture")
    Image.new("RGB", (40, 30), (200, 30, 30)).save(path, kind)
    facts = read_facts(path)
    assert (facts.format, facts.width_px, facts.height_px) == (kind, 40, 30)
    frame = read_pixels(path, 20)
    assert (frame.width_px, frame.height_px) == (20, 15)
    assert np.abs(np.frombuffer(frame.rgb, np.uint8).reshape(-1, 3).astype(int) - (200, 30, 30)).max() < 6


def test_a_photo_that_was_taken_upright_is_shown_upright(home: Path) -> None:
    image = Image.new("RGB", (60, 40), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 30, 40))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera's top is at the right
    image.save(home / "turned.jpg", exif=turned)
    facts, frame = read_facts(str(home / "turned.jpg")), read_pixels(str(home / "turned.jpg"), 100)
    assert (facts.width_px, facts.height_px) == (frame.width_px, frame.height_px) == (40, 60)
    assert frame.rgb[2] > 200 and frame.rgb[-3] > 200  # blue above, red below


def test_sixteen_bits_are_scaled_not_cut_off(home: Path) -> None:
    Image.fromarray(np.full((4, 4), 32_768, np.uint16)).save(home / "deep.png")
    assert set(read_pixels(str(home / "deep.png"), 10).rgb) <= {127, 128}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_shows_what_is_behind(home: Path, mode: str) -> None:
    Image.new("RGBA", (4, 4), (255, 255, 255, 0)).convert(mode).save(home / "clear.tiff" if mode == "PA" else home / "clear.png")
    name = next(home.glob("clear.*"))
    assert read_pixels(str(name), 10, (10, 20, 30)).rgb[:3] == bytes((10, 20, 30))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_a_damaged_file_is_a_picture_or_an_error_that_names_it(kind: str, data: st.DataObject) -> None:
    path = Path.home() / "damaged"
    with Image.open(PHOTO) as image:
        image.convert("RGB").resize((24, 24)).save(path, kind)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    path.write_bytes(damaged)
    try:
        read_facts(str(path))
        assert read_pixels(str(path), 64).is_whole
    except PictureError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("size_px", [(1, 1), (2, 500), (500, 2), (72, 30), (576, 255), (3000, 2000)])
def test_the_test_card_has_any_size(size_px: tuple[int, int]) -> None:
    frame = make_card(*size_px)
    assert (frame.width_px, frame.height_px) == size_px and frame.is_whole


def test_the_test_card_holds_ramps_hues_single_pixel_lines_text_and_the_photo() -> None:
    pixels = np.asarray(make_card(576, 255).image()).astype(int)
    grey = pixels[20, 261:570]
    assert (np.diff(grey[:, 0]) >= 0).all() and grey[0, 0] < 5 and grey[-1, 0] > 250
    assert all((np.abs(pixels[55:90, 261:570] - colour).sum(axis=2) < 40).any() for colour in np.eye(3, dtype=int) * 255)
    assert pixels[110, 261:281, 0].tolist() == [235, 0] * 10
    with Image.open(PHOTO) as photo:
        assert np.abs(pixels[:255, :255] - np.asarray(photo.convert("RGB").resize((255, 255)))).mean() < 1
    assert (pixels[175:, 261:] > 200).any()
