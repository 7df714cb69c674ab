"""The finished picture where colours are few, and that importing what draws it says nothing to the terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdtui.protocol import ImageSaved
from sdtui.ui.widgets.preview.still import StillPicture
from tests.ui.stage import stage, until

IMPORT = "from sdtui.ui.widgets.preview.still import import_widgets; import_widgets(); print('imported')"
SHADES = set("█▓▒░ ")


def saved(path: Path) -> ImageSaved:
    Image.linear_gradient("L").convert("RGB").save(path)
    return ImageSaved(job="j", path=str(path), seed=1, image_index=0, width_px=256, height_px=256, size_bytes=10, elapsed_s=0.0)


@pytest.mark.parametrize("size", [(24, 80), (0, 0)])
def test_importing_textual_image_neither_asks_the_terminal_nor_fails(size: tuple[int, int]) -> None:
    master, slave = pty.openpty()
    try:
        command = [sys.executable, "-c", IMPORT]
        done = subprocess.run(command, check=False, stdin=slave, stdout=slave, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        written = b""
        while select.select([master], [], [], 0)[0]:
            written += os.read(master, 1024)
        assert written == b"imported\r\n"
    finally:
        os.close(master)
        os.close(slave)


async def test_with_sixteen_colours_the_finished_picture_comes_in_shades(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLORTERM", raising=False)
    async with stage() as running:
        picture = running.screen.picture
        picture.show_saved(saved(tmp_path / "shades.png"))
        await until(lambda: picture.has_class("-still") and len(SHADES & set(_text(running))) >= 4, "shades")
        assert not picture._live.display


def _text(running) -> str:
    still = running.screen.query_one(StillPicture)
    region = still.region
    lines = running.screen_text().splitlines()[region.y : region.bottom]
    return "".join(line[region.x : region.right] for line in lines)


async def test_with_more_colours_textual_image_is_never_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    async with stage() as running:
        running.screen.picture.show_saved(saved(tmp_path / "colours.png"))
        await running.pilot.pause()
        assert not running.screen.picture.has_class("-still")
        assert not running.screen.query(StillPicture)
