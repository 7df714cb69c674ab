"""The tapes of jobs on disk: removed with their jobs, and the oldest ones when there are too many.

A job's directory holds its recorded steps (`*.tape`) and the list of its saved pictures; the worker writes them, this
only counts and removes.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Container
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
log = logging.getLogger(__name__)


class Tapes:
    """The directory of all tapes. Work on the disk is done in a thread, one piece after the other."""

    def __init__(self, directory: Path, budget_bytes: int) -> None:
        self._directory = directory
        self._budget_bytes = budget_bytes
        self._one_at_a_time = asyncio.Lock()

    def has_steps(self, job: str) -> bool:
        """Whether there are recorded steps of a job."""
        return any(self._of(job).glob("*.tape"))

    async def forget_steps(self, job: str) -> None:
        """Remove a job's steps; which of its pictures are saved stays known."""
        await self._in_thread(lambda: _remove_files(self._of(job)))

    async def remove(self, *jobs: str) -> None:
        """Remove all that is kept of these jobs."""
        await self._in_thread(lambda: _remove(*map(self._of, jobs)))

    async def tidy(self, needed: Callable[[], Container[str]]) -> None:
        """Remove the oldest tapes over the budget; those of jobs that have not ended are `needed`."""
        await self._in_thread(lambda: _tidy(self._directory, self._budget_bytes, needed()))

    async def _in_thread(self, work: Callable[[], object]) -> None:
        async with self._one_at_a_time:
            try:
                await asyncio.to_thread(work)
            except OSError as error:
                log.warning("tapes in %s could not be removed: %s", self._directory, error)

    def _of(self, job: str) -> Path:
        return self._directory / job


def size_of(directory: Path) -> int:
    """The bytes of the files in a directory of tapes; 0 where there is none."""
    return sum(file.stat().st_size for file in directory.glob("*/*") if file.is_file())


def _remove(*directories: Path) -> None:
    for directory in directories:
        if directory.is_dir() and not directory.is_symlink():
            shutil.rmtree(directory, ignore_errors=True)


def _remove_files(directory: Path) -> None:
    for file in directory.glob("*.tape"):
        file.unlink(missing_ok=True)


def _tidy(directory: Path, budget_bytes: int, needed: Container[str]) -> None:
    found = []
    for folder in directory.iterdir() if directory.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink():
            files = [file.stat() for file in folder.iterdir() if file.is_file()]
            found.append((max((file.st_mtime for file in files), default=0.0), sum(file.st_size for file in files), folder))
    room = budget_bytes
    for _, size, folder in sorted(found, key=lambda item: item[0], reverse=True):
        room -= size
        if folder.name not in needed and room < 0:
            _remove(folder)
