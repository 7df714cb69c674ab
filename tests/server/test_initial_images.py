"""Copies of initial images: kept for the jobs that refer to them, gone when none does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from sdtui import settings
from sdtui.initial_image import take_in
from sdtui.params import GenerationParams
from sdtui.protocol import Delete, DeleteEnded, EndedDeleted, Hold, JobDeleted, JobQueued, QueueChanged, Submit
from sdtui.server.initial_images import KEPT_S
from tests.server.harness import asked, end_of, job, serving, until

HASHES = {"used": "0" * 16, "unused": "1" * 16, "other": "2" * 16}


def kept(name: str, age_s: float = KEPT_S + 60) -> Path:
    """A copy in the store that was taken in so long ago."""
    path = settings.initial_dir() / f"{HASHES[name]}-{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def from_image(name: str, image: Path, prompt: str = "a red cat") -> Submit:
    return job(name, params=GenerationParams(prompt=prompt, init_image=str(image)))


async def test_a_server_that_starts_removes_old_ones_of_no_job() -> None:
    fresh = kept("other", age_s=KEPT_S - 60)
    mine = settings.initial_dir() / "holiday.png"
    mine.write_bytes(b"mine")
    link = settings.initial_dir() / f"{'3' * 16}-link.png"
    link.symlink_to(mine)
    for path in (mine, link):
        os.utime(path, (0, 0), follow_symlinks=False)
    async with serving() as served:
        await served.server._initial_images.end()
        client = await served.client()
        await asked(client, Hold(on=True), QueueChanged)
        used = kept("used")
        await asked(client, from_image("waits", used), JobQueued)
    unused = kept("unused")
    async with serving():
        await until(lambda: not unused.exists())
    assert all(path.exists() for path in (used, fresh, mine, link))


async def test_the_copy_goes_with_the_last_job_that_refers_to_it() -> None:
    async with serving() as served:
        await served.server._initial_images.end()
        client = await served.client()
        used, other = kept("used"), kept("other")
        for name, image in (("one", used), ("two", used), ("three", other)):
            await client.send(from_image(name, image))
            await end_of(client, name)
        await asked(client, Delete(job="one"), JobDeleted)
        unused = kept("unused")
        await asked(client, Delete(job="three"), JobDeleted)
        await until(lambda: not (unused.exists() or other.exists()))
        assert used.exists()
        await asked(client, DeleteEnded(), EndedDeleted)
        await until(lambda: not used.exists())


async def test_a_picture_that_is_taken_in_again_is_as_new(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    taken = take_in(str(tmp_path / "cat.png"), settings.initial_dir()).path
    for source in (tmp_path / "cat.png", taken):
        os.utime(taken, (0, 0))
        assert take_in(str(source), settings.initial_dir()).path == taken
        async with serving() as served:
            await served.server._initial_images.end()
        assert taken.exists()
    os.utime(taken, (0, 0))
    async with serving():
        await until(lambda: not taken.exists())


@pytest.mark.parametrize("source", ["cat.png", "~/cat.png", "https://example.org/cat.png"])
async def test_a_source_that_no_client_has_taken_in_is_refused(source: str) -> None:
    async with serving() as served:
        refused = await served.server.queue.submit(from_image("one", Path("/x")))
        assert refused is None
        params = GenerationParams(prompt="cat", init_image=source)
        refused = await served.server.queue.submit(msgspec.structs.replace(job("two"), params=params))
        assert refused is not None and refused.field == "init_image" and "absolute" in refused.message
