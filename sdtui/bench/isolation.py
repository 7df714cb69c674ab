"""A place of its own for a measurement: settings, data, socket and pictures cannot meet those of the user."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def isolated() -> Iterator[Path]:
    """Point this process and its children at fresh directories; afterwards the server there is stopped, and all is removed."""
    root = Path(tempfile.mkdtemp(prefix="sdtui-b-"))  # short, since socket paths end at 107 bytes
    before = {name: os.environ.get(name) for name in _DIRECTORIES}
    for name, directory in _DIRECTORIES.items():
        (root / directory).mkdir(mode=0o700, exist_ok=True)
        os.environ[name] = str(root / directory)
    try:
        yield root
    finally:
        stop()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        shutil.rmtree(root, ignore_errors=True)


def stop() -> None:
    """Stop the server of these directories, if there is one, and wait until it is gone."""
    try:
        asyncio.run(stop_server())
    except ServerUnavailable as error:
        raise RuntimeError(f"The measurement's own server could not be stopped: {error}") from error
