"""The picture in characters, as Textual draws it: which colours are in which cells, through every way they can be asked for."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip

from sdtui.protocol import ImageSaved, PreviewReady
from sdtui.terminal.blocks import UPPER_HALF, to_cells
from sdtui.terminal.picture import Frame, fit, read_picture
from sdtui.ui.feed import FeedFrame
from sdtui.ui.widgets.preview.live import LivePicture
from tests.ui.stage import stage, until

Pixel = tuple[int, int, int]


def chequered(width_px: int, height_px: int) -> Frame:
    """Every pixel another colour."""
    pixels = (bytes((x * 37 % 256, y * 53 % 256, (x * 7 + y * 11) % 256)) for y in range(height_px) for x in range(width_px))
    return Frame(width_px, height_px, b"".join(pixels))


def from_segments(strips: list[Strip]) -> list[list[Pixel]]:
    """The pixels that strips show, two rows a strip, read from their segments; only the picture's cells."""
    rows: list[list[Pixel]] = []
    for strip in strips:
        cells = [(segment.style.color.triplet, segment.style.bgcolor.triplet) for segment in strip if segment.text == UPPER_HALF]
        rows += [[tuple(top) for top, _ in cells], [tuple(bottom) for _, bottom in cells]]
    return rows


def from_bytes(strips: list[Strip]) -> list[list[Pixel]]:
    """The same, read from the bytes that go to the terminal."""
    rows: list[list[Pixel]] = []
    for strip in strips:
        top: list[Pixel] = []
        bottom: list[Pixel] = []
        colours: dict[str, Pixel] = {}
        for layer, triple, text in re.findall(r"\x1b\[([34])8;2;([\d;]+)m|(▀)", strip.render(Console(color_system="truecolor"))):
            if text:
                top.append(colours["3"])
                bottom.append(colours["4"])
            else:
                colours[layer] = tuple(map(int, triple.split(";")))
        rows += [top, bottom]
    return rows


def pixels_of(frame: Frame) -> list[list[Pixel]]:
    stride = frame.width_px * 3
    lines = [frame.rgb[start : start + stride] for start in range(0, len(frame.rgb), stride)]
    return [[tuple(line[at : at + 3]) for at in range(0, stride, 3)] for line in lines]


class Bench(App[None]):
    """A picture of a known size."""

    CSS = "Screen { layers: low high; } LivePicture { width: 20; height: 10; }"

    def compose(self) -> ComposeResult:
        yield LivePicture()


@pytest.mark.parametrize("read", [from_segments, from_bytes])
async def test_each_pixel_is_in_its_place_with_its_colour(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    frame = chequered(20, 20)
    app = Bench()
    async with app.run_test(size=(40, 20)) as pilot:
        picture = app.query_one(LivePicture)
        picture.show_frame(frame)
        await until(lambda: picture._cells is not None, "scaled")
        await pilot.pause()
        strips = picture.render_lines(Region(0, 0, 20, 10)) if read is from_bytes else [picture.render_line(y) for y in range(10)]
        assert read(strips) == pixels_of(frame)


async def test_a_part_of_the_picture_is_cut_where_something_lies_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    frame = chequered(20, 20)
    app = Bench()
    async with app.run_test(size=(40, 20)) as pilot:
        picture = app.query_one(LivePicture)
        picture.show_frame(frame)
        await until(lambda: picture._cells is not None, "scaled")
        await pilot.pause()
        strips = picture.render_lines(Region(5, 2, 7, 3))
        assert from_segments(strips) == [row[5:12] for row in pixels_of(frame)[4:10]]
        assert [strip.cell_length for strip in strips] == [7, 7, 7]


@pytest.mark.parametrize(
    ("width_px", "height_px", "cells"), [(64, 64, (20, 10)), (128, 64, (20, 5)), (64, 128, (10, 10)), (1000, 8, (20, 1))]
)
def test_the_aspect_ratio_is_kept(width_px: int, height_px: int, cells: tuple[int, int]) -> None:
    assert fit(width_px, height_px, 20, 10) == cells


async def test_the_newest_of_many_frames_is_the_one_that_stays() -> None:
    app = Bench()
    async with app.run_test(size=(40, 20)) as pilot:
        picture = app.query_one(LivePicture)
        for shade in range(200):
            picture.show_frame(Frame(4, 4, bytes((shade, 0, 0)) * 16))
        await until(lambda: picture._cells is not None and picture._cells.rows[0].front[:3] == bytes((199, 0, 0)), "newest")
        await pilot.pause()
        await until(lambda: picture._painting is not None and picture._painting.done(), "at rest")


async def test_pictures_are_scaled_and_read_off_the_event_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    threads: set[threading.Thread] = set()

    def recorded(function):
        def call(*arguments, **named):
            threads.add(threading.current_thread())
            return function(*arguments, **named)

        return call

    monkeypatch.setattr("sdtui.terminal.blocks.to_cells", recorded(to_cells))
    monkeypatch.setattr("sdtui.ui.widgets.preview.live.read_picture", recorded(read_picture))
    path = tmp_path / "red.png"
    Image.new("RGB", (8, 8), (250, 10, 20)).save(path)
    app = Bench()
    async with app.run_test(size=(40, 20)):
        picture = app.query_one(LivePicture)
        picture.show_file(path)
        await until(lambda: picture._cells is not None, "scaled")
    assert threads
    assert threading.main_thread() not in threads


async def test_the_picture_fits_again_after_a_resize_during_previews() -> None:
    async with stage(size=(200, 60)) as running:
        picture = running.screen.picture
        picture.job = "job"
        live = picture.query_one(LivePicture)
        for size in ((200, 60), (80, 24), (40, 12), (240, 60), (120, 36)):
            await running.pilot.resize_terminal(*size)
            event = PreviewReady(
                job="job", batch_index=0, step_index=1, width_px=8, height_px=8, rgb=bytes(192), method="vae", elapsed_s=0.0
            )
            picture.post_message(FeedFrame(event))
            await running.pilot.pause()
        await until(
            lambda: live._cells is not None and live._cells.columns == min(live.size.width, live.size.height * 2), "refit"
        )


async def test_frames_of_other_jobs_and_broken_frames_are_not_shown() -> None:
    async with stage() as running:
        picture = running.screen.picture
        picture.job = "ours"
        frame = {"batch_index": 0, "step_index": 1, "width_px": 8, "height_px": 8, "method": "vae", "elapsed_s": 0.0}
        picture.post_message(FeedFrame(PreviewReady(job="theirs", rgb=bytes(192), **frame)))
        picture.post_message(FeedFrame(PreviewReady(job="ours", rgb=bytes(191), **frame)))
        await running.pilot.pause()
        assert picture.has_class("-empty")


async def test_a_picture_that_cannot_be_read_is_said_and_the_app_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "[x].png"
    broken.write_bytes(b"no picture")
    async with stage() as running:
        running.screen.picture.show_saved(
            ImageSaved(job="j", path=str(broken), seed=1, image_index=0, width_px=8, height_px=8, size_bytes=10, elapsed_s=0.0)
        )
        await until(lambda: "[x].png: cannot identify" in running.toasts(), "toast")


async def test_the_finished_picture_is_the_one_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    path = tmp_path / "red.png"
    Image.new("RGB", (128, 128), (250, 10, 20)).save(path)
    async with stage() as running:
        picture = running.screen.picture
        picture.show_saved(
            ImageSaved(job="j", path=str(path), seed=1, image_index=0, width_px=128, height_px=128, size_bytes=10, elapsed_s=0.0)
        )
        live = picture.query_one(LivePicture)
        await until(lambda: live._cells is not None, "shown")
        assert {row.front for row in live._cells.rows} == {bytes((250, 10, 20)) * live._cells.columns}


class Tiny(App[None]):
    """A picture of one cell."""

    CSS = "LivePicture { width: 1; height: 1; }"

    def compose(self) -> ComposeResult:
        yield LivePicture()


@pytest.mark.parametrize("kind", [Bench, Tiny])
@pytest.mark.parametrize("size_px", [(1, 1), (4096, 16), (16, 4096)])
async def test_a_picture_of_any_shape_fits_in_any_room(kind: type[App[None]], size_px: tuple[int, int]) -> None:
    app = kind()
    async with app.run_test(size=(40, 20)):
        picture = app.query_one(LivePicture)
        picture.show_frame(Frame(0, 0, b""))
        picture.show_frame(Frame(*size_px, bytes((9, 80, 200)) * size_px[0] * size_px[1]))
        picture.show_frame(Frame(3, 3, b"too short"))
        await until(lambda: picture._cells is not None, "drawn")
        rows = picture._cells.rows
        assert {row.front[:3] for row in rows} == {bytes((9, 80, 200))}
        assert 1 <= picture._cells.columns <= picture.size.width
        assert 1 <= len(rows) <= picture.size.height
