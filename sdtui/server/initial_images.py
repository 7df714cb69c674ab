"""The copies of initial images that clients keep in `initial/`: removed when no job refers to them any more."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from sdtui.server.store import Store

KEPT_S: Final = 86_400.0
"""A client takes a picture in before it submits the job, and a user may think about the form for a while."""
_OURS: Final = re.compile(r"\.?[0-9a-f]{16}-.+")
"""A copy, or one that was being written; anything else that lies there is not ours to remove."""
log = logging.getLogger(__name__)


class InitialImages:
    """The directory of copies. Which of them jobs refer to stands in the database."""

    def __init__(self, directory: Path, store: Store) -> None:
        self._directory = directory
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    def prune_later(self) -> None:
        """Remove in the background what is old and belongs to no job."""
        task = asyncio.create_task(self.prune())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def prune(self) -> None:
        """Remove what is old and belongs to no job; the database is asked only where something is old."""
        try:
            old = await asyncio.to_thread(lambda: set(_older(self._directory, KEPT_S)))
            if not old:
                return
            referred = {Path(source).name for source in await self._store.initial_images()}
            await asyncio.to_thread(_remove, self._directory, old - referred)
        except (OSError, sqlite3.Error) as error:
            log.warning("initial images in %s could not be tidied: %s", self._directory, error)

    async def end(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _older(directory: Path, age_s: float) -> Iterator[str]:
    """Names of copies that have not been touched for so long."""
    if directory.is_dir():
        for file in directory.iterdir():
            if _OURS.fullmatch(file.name) and _is_old(file, age_s):
                yield file.name


def _is_old(file: Path, age_s: float) -> bool:
    """Whether it is a file, and no link to one, that has not been touched for so long."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > age_s


def _remove(directory: Path, names: Collection[str]) -> None:
    for name in names:
        if _is_old(directory / name, KEPT_S):  # a client may have taken it in again just now
            (directory / name).unlink(missing_ok=True)
    if names:
        log.info("removed %d initial images that no job refers to", len(names))
