"""Faults inside the server and the worker, one after the other, as a file in the test's home directory says.

`faults.json` is a list; its first entry is armed. An entry is `{"who": "worker", "at": POINT, "nth": 1, "do": WHAT}`. Points:
`event:Kind` or `event:Kind:stage` (a message that goes out, by its stage or step), `call:name` (a function of `CALLS`, before
it is called), `done:name` (after). WHAT is a signal, which this process then sends to itself, or an error number's name, which
the call raises; with `"until": FILE` it goes on raising until that file is there. A fault that has happened is taken off the
list first, so a list is a story over many lives.
"""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "fsync", "fdatasync", "link", "replace", "ftruncate")
"""Of `os`; `replace` is a rename."""
_write, _replace, _open = os.write, os.replace, os.open
_lock = threading.Lock()
_counted: dict[str, int] = {}
_watched = threading.local()


def _file() -> Path:
    return Path(os.environ["HOME"]) / "faults.json"


def armed(who: str) -> dict[str, Any] | None:
    """The fault that is next, if it is this process's turn."""
    try:
        faults = json.loads(_file().read_bytes())
    except (OSError, ValueError):
        return None
    return faults[0] if faults and faults[0]["who"] == who else None


def _take_off() -> None:
    faults = json.loads(_file().read_bytes())
    part = _file().with_suffix(".part")
    descriptor = _open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    _write(descriptor, json.dumps(faults[1:]).encode())
    os.close(descriptor)
    _replace(part, _file())
    _counted.clear()


def reached(who: str, point: str, about: str = "") -> None:
    """This point is reached: do what is planned for it, if anything."""
    if getattr(_watched, "busy", False):
        return
    _watched.busy = True
    try:
        with _lock:
            fault = armed(who)
            if fault is None or fault["at"] != point or fault.get("about", "") not in about:
                return
            _counted[point] = _counted.get(point, 0) + 1
            if _counted[point] < fault.get("nth", 1):
                return
            lasting = fault.get("until")
            if lasting is None or Path(lasting).exists():
                _take_off()
            if lasting is not None and Path(lasting).exists():
                return
    finally:
        _watched.busy = False
    what = fault["do"]
    if what.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, what))
        signal.pause()
    number = getattr(errno, what)
    raise OSError(number, os.strerror(number), about or None)


def _wrapped(who: str, name: str, real: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        about = _about(args)
        reached(who, f"call:{name}", about)
        result = real(*args, **kwargs)
        reached(who, f"done:{name}", about)
        return result

    return call


def _about(args: tuple[Any, ...]) -> str:
    """The file that a call is about."""
    if args and isinstance(args[0], int):
        try:
            return str(Path(f"/proc/self/fd/{args[0]}").readlink())
        except OSError:
            return ""
    return " ".join(str(arg) for arg in args[:2] if isinstance(arg, str | os.PathLike))


class _File(io.BufferedWriter):
    """A file whose writes are points too; `os.fdopen` writes past `os.write`."""

    who = ""

    def write(self, data: Any) -> int:
        about = _about((self.fileno(),))
        reached(self.who, "call:fdopen-write", about)
        written = super().write(data)
        reached(self.who, "done:fdopen-write", about)
        return written


def _fdopen(who: str, real: Any) -> Any:
    def fdopen(descriptor: int, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "wb":
            return real(descriptor, mode, *args, **kwargs)
        file = _File(io.FileIO(descriptor, "wb"))
        file.who = who
        return file

    return fdopen


class _Connection(sqlite3.Connection):
    """Fails as SQLite does when its file cannot be written."""

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
        verb = statement.lstrip().split(None, 1)[0].upper()
        try:
            reached("server", f"sql:{verb}", statement)
        except OSError as error:
            full = error.errno == errno.ENOSPC
            raise sqlite3.OperationalError("database or disk is full" if full else "disk I/O error") from error
        return super().execute(statement, *args)

    def __exit__(self, *args: Any) -> Any:
        try:
            reached("server", "sql:COMMIT")
        except OSError as error:
            super().__exit__(type(error), error, None)  # as Python does when the commit fails
            raise sqlite3.OperationalError("disk I/O error") from error
        result = super().__exit__(*args)
        reached("server", "sql:COMMITTED")
        return result


def install(who: str) -> None:
    """Put the points in place; nothing else of the process changes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in CALLS:
        setattr(os, name, _wrapped(who, name, getattr(os, name)))
    os.fdopen = _fdopen(who, os.fdopen)
    if who == "server":
        connect = sqlite3.connect
        sqlite3.connect = lambda *args, **kwargs: connect(*args, **{"factory": _Connection, **kwargs})
        return
    from sdtui.worker import wire

    real = wire.Sender.send

    def send(self: Any, message: Any) -> None:
        kind = type(message).__name__
        detail = getattr(message, "stage", getattr(message, "step_index", getattr(message, "image_index", "")))
        reached(who, f"event:{kind}")
        reached(who, f"event:{kind}:{detail}")
        real(self, message)

    wire.Sender.send = send
