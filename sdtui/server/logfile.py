"""Log files: private, appended to, and put aside when they have grown large."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Final

MAX_LOG_BYTES: Final = 5 * 1024 * 1024
"""Weeks of ordinary use; one older file of the same size is kept."""


def open_log(path: Path) -> BinaryIO:
    """The log, opened for appending, mode 0600; a large one is renamed to `….1` first. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def redirect_output(path: Path) -> None:
    """Point stdout and stderr at the log, as it may have been put aside just now. Raises `OSError`."""
    with open_log(path) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def output_is(path: Path) -> bool:
    """Whether stderr goes to this file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(2))
    except OSError:
        return False
