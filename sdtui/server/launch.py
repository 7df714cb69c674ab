"""Starting, finding and reading about the server from outside; used by clients, so it imports next to nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from sdtui import settings
from sdtui.server.endpoint import peer_credentials, read_holder
from sdtui.text import safe_text

_TAIL_BYTES: Final = 256 * 1024
started: Final[list[subprocess.Popen[bytes]]] = []
"""Servers outlive us on purpose; kept so that Python neither warns about them nor leaves them as zombies at the next start."""


def start_server() -> subprocess.Popen[bytes]:
    """Start a server that is detached from this terminal. A second one notices the first and leaves with code 3.

    Raises `OSError` when the log cannot be opened.
    """
    log = settings.server_log_path()
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "sdtui.server"],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(handle)
    started.append(process)
    return process


def socket_paths() -> list[Path]:
    """Where a server may listen: here, or where one that was started with another `XDG_RUNTIME_DIR` says it does.

    Raises `SettingsError` for an unsafe runtime directory.
    """
    path = settings.socket_path()
    holder = read_holder(settings.database_lock_path())
    return [path] if holder is None or Path(holder.socket) == path else [path, Path(holder.socket)]


def server_running() -> int | None:
    """The pid of the server that answers on its socket, else None. Raises `SettingsError` for an unsafe runtime directory."""
    for path in socket_paths():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return peer_credentials(probe)[0]
    return None


def read_server_log(lines: int = 50) -> list[str]:
    """The last lines of the server's log, safe to show; empty when there is none."""
    return tail(settings.server_log_path(), lines)


def tail(path: Path, lines: int, *, start: int = 0) -> list[str]:
    """The last lines of a file from byte `start` on, safe to show; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(start, size), size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [safe_text(line) for line in text.splitlines()[-lines:]] if lines > 0 else []
