"""The tapes of jobs on disk: removed with their jobs, and the oldest ones when there are too many.

A job's directory holds its recorded steps (`*.tape`, `*.steps`, and in `decoded` pictures of them) and the list of its saved
pictures; the worker writes them, this only counts and removes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
DECODED: Final = "decoded"
"""Below a job's directory: pictures of its steps by the full VAE."""
_STEPS: Final = ("*.tape", "*.steps")
log = logging.getLogger(__name__)


class Tapes:
    """The directory of all tapes. Work on the disk is done in a thread, one piece after the other."""

    def __init__(self, directory: Path, budget_bytes: int) -> None:
        self._directory = directory
        self._budget_bytes = budget_bytes
        self._one_at_a_time = asyncio.Lock()

    async def has_steps(self, job: str) -> bool:
        """Whether there are recorded steps of a job, once what is being removed is gone."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(lambda: any(self._of(job).glob("*.tape")))

    async def forget_steps(self, job: str, needed: Callable[[], Container[str]] = tuple) -> None:
        """Remove a job's steps, unless it is among the `needed`; which of its pictures are saved stays known."""
        await self._remove_but(needed, lambda kept: None if job in kept else _remove_steps(self._of(job)))

    async def remove(self, *jobs: str) -> None:
        """Remove all that is kept of these jobs."""
        await self._remove_but(tuple, lambda _: _remove(*map(self._of, jobs)))

    async def tidy(self, needed: Callable[[], Container[str]]) -> None:
        """Remove the oldest tapes over the budget; those of jobs that have not ended, and of their parents, are `needed`."""
        await self._remove_but(needed, lambda kept: _tidy(self._directory, self._budget_bytes, kept))

    async def _remove_but(self, needed: Callable[[], Container[str]], work: Callable[[Container[str]], None]) -> None:
        """Work in a thread; `needed` is asked when it is this one's turn, and in the event loop, where the jobs are."""
        async with self._one_at_a_time:
            kept = needed()
            try:
                await asyncio.to_thread(work, kept)
            except OSError as error:
                log.warning("tapes in %s could not be removed: %s", self._directory, error)

    def _of(self, job: str) -> Path:
        return self._directory / job


def size_of(directory: Path) -> int:
    """The bytes of the files in a directory of tapes; 0 where there is none."""
    return sum(found.st_size for folder in _folders(directory) for found in _files(folder))


def _folders(directory: Path) -> Iterator[Path]:
    """The jobs' directories; a link is none."""
    for folder in directory.iterdir() if directory.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink():
            yield folder


def _files(folder: str | Path) -> Iterator[os.stat_result]:
    """What is known of each file, also in folders below; links are not followed, what cannot be read is not counted."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False)
    except OSError as error:
        log.debug("%s is not counted: %s", folder, error)


def _remove(*directories: Path) -> None:
    for directory in directories:
        if directory.is_dir() and not directory.is_symlink():
            shutil.rmtree(directory, ignore_errors=True)


def _remove_steps(directory: Path) -> None:
    for pattern in _STEPS:
        for file in directory.glob(pattern):
            file.unlink(missing_ok=True)
    _remove(directory / DECODED)


def _tidy(directory: Path, budget_bytes: int, needed: Container[str]) -> None:
    found = []
    for folder in _folders(directory):
        files = list(_files(folder))
        found.append((max((file.st_mtime for file in files), default=0.0), sum(file.st_size for file in files), folder))
    room = budget_bytes
    for _, size, folder in sorted(found, key=lambda item: item[0], reverse=True):
        room -= size
        if folder.name not in needed and room < 0:
            _remove(folder)
