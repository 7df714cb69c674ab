"""A place of its own for a measurement: settings, data, socket and pictures cannot meet those of the user."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from sdtui.server.client import ServerUnavailable, stop_server

_DIRECTORIES = {
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "XDG_CACHE_HOME": "cache",
    "XDG_RUNTIME_DIR": "run",
    "XDG_PICTURES_DIR": "pictures",
    "SDTUI_GENERAL_OUTPUT_DIR": "pictures",
}
_END_S: Final = 10.0
"""A server ends its worker first; what takes longer is killed."""


_QUIET: Final = {"SDTUI_INSPECT_ESTIMATE": "false"}
"""What the app does when nothing is at work would meet a measurement between two of its jobs."""


@contextmanager
def isolated() -> Iterator[Path]:
    """Point this process and its children at fresh directories; afterwards the server there is stopped, and all is removed."""
    root = Path(tempfile.mkdtemp(prefix="sdtui-b-"))  # short, since socket paths end at 107 bytes
    for directory in _DIRECTORIES.values():
        (root / directory).mkdir(mode=0o700, exist_ok=True)
    places = {name: str(root / directory) for name, directory in _DIRECTORIES.items()}
    try:
        with environment(places | _QUIET):
            try:
                yield root
            finally:
                _end_all(root / "run")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables for this process and its children, for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def _end_all(runtime_dir: Path) -> None:
    """End every process that lives in these directories: first the server in its own way, then what is left of it.

    A server that the app started a moment ago does not listen yet, so asking it is not enough.
    """
    with suppress(ServerUnavailable):
        asyncio.run(stop_server())
    left = [process for process in psutil.process_iter() if _lives_in(process, runtime_dir)]
    for process in left:
        process.terminate()
    _, deaf = psutil.wait_procs(left, timeout=_END_S)
    for process in deaf:
        process.kill()
    psutil.wait_procs(deaf, timeout=_END_S)


def _lives_in(process: psutil.Process, runtime_dir: Path) -> bool:
    try:
        return bool(process.environ().get("XDG_RUNTIME_DIR") == str(runtime_dir)) and process.pid != os.getpid()
    except psutil.Error:
        return False
