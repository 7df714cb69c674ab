"""Tapes on disk: removed with their jobs, and the oldest first when there are too many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdtui.server.tapes import Tapes, size_of


@pytest.fixture
def tapes(tmp_path: Path) -> Tapes:
    """Three tapes of 100 bytes, `old` the oldest; room for two and a half."""
    for age, name in enumerate(("new", "middle", "old")):
        folder = tmp_path / "tapes" / name
        folder.mkdir(parents=True)
        (folder / "batch-0000.tape").write_bytes(bytes(90))
        (folder / "saved.jsonl").write_bytes(bytes(10))
        for file in folder.iterdir():
            os.utime(file, (1e9 - age, 1e9 - age))
    return Tapes(tmp_path / "tapes", 250)


def decoded(folder: Path, size_bytes: int) -> None:
    """A picture of a step, made just now."""
    (folder / "decoded").mkdir()
    (folder / "decoded" / "batch-0000-000-0007.png").write_bytes(bytes(size_bytes))


def names(tmp_path: Path) -> set[str]:
    return {folder.name for folder in (tmp_path / "tapes").iterdir()}


async def test_the_oldest_go_first(tapes: Tapes, tmp_path: Path) -> None:
    assert size_of(tmp_path / "tapes") == 300
    await tapes.tidy(set)
    assert names(tmp_path) == {"new", "middle"}


async def test_what_a_job_still_needs_stays_and_counts(tapes: Tapes, tmp_path: Path) -> None:
    await tapes.tidy(lambda: {"old", "new"})
    assert names(tmp_path) == {"new", "middle", "old"} - set(), "needed ones are never removed"


async def test_a_budget_of_nothing_keeps_what_is_needed(tapes: Tapes, tmp_path: Path) -> None:
    await Tapes(tmp_path / "tapes", 0).tidy(lambda: {"middle"})
    assert names(tmp_path) == {"middle"}


async def test_steps_go_and_the_list_of_pictures_stays(tapes: Tapes, tmp_path: Path) -> None:
    folder = tmp_path / "tapes" / "old"
    (folder / "batch-0000.steps").write_bytes(bytes(10))
    decoded(folder, 10)
    assert await tapes.has_steps("old")
    await tapes.forget_steps("old")
    assert not await tapes.has_steps("old")
    assert [file.name for file in folder.iterdir()] == ["saved.jsonl"]


async def test_steps_that_are_needed_stay(tapes: Tapes, tmp_path: Path) -> None:
    await tapes.forget_steps("old", lambda: {"old"})
    assert await tapes.has_steps("old")


async def test_pictures_of_steps_count_and_keep_the_steps_young(tapes: Tapes, tmp_path: Path) -> None:
    decoded(tmp_path / "tapes" / "old", 20)
    assert size_of(tmp_path / "tapes") == 320
    await tapes.tidy(set)
    assert names(tmp_path) == {"new", "old"}, "what was looked at last is the newest"


async def test_removing_takes_everything_of_that_job_alone(tapes: Tapes, tmp_path: Path) -> None:
    await tapes.remove("old", "never-there")
    assert names(tmp_path) == {"new", "middle"}


async def test_a_link_in_the_place_of_a_tape_is_not_followed(tapes: Tapes, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"mine")
    (tmp_path / "tapes" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tapes" / "old" / "decoded").symlink_to(tmp_path / "elsewhere")
    assert size_of(tmp_path / "tapes") == 300
    await tapes.remove("link")
    await tapes.forget_steps("old")
    await Tapes(tmp_path / "tapes", 0).tidy(set)
    assert (tmp_path / "elsewhere" / "file").exists()


async def test_without_a_directory_there_is_nothing_to_do(tmp_path: Path) -> None:
    await Tapes(tmp_path / "none", 0).tidy(set)
    assert size_of(tmp_path / "none") == 0
