"""A worker that outlived its server: found by the next server through a record on disk, and ended.

It would hold the device's memory, and could still write pictures of a job that goes on elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import Final

import msgspec

_START_TIME: Final = 19
"""Place of `starttime` in /proc/pid/stat after the command's closing parenthesis (proc(5), field 22)."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
log = logging.getLogger(__name__)


class WorkerRecord(msgspec.Struct, frozen=True):
    """Which process the last worker was; a process id alone may be somebody else's by now."""

    pid: int
    start_time: str
    boot_id: str


def _describe(pid: int) -> WorkerRecord | None:
    """The process as the kernel knows it, None where it is gone or the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
        return WorkerRecord(pid, stat.rpartition(")")[2].split()[_START_TIME], _BOOT_ID.read_text("ascii").strip())
    except (OSError, IndexError):
        return None


def record_worker(path: Path, pid: int) -> None:
    """Write down which process the worker is."""
    record = _describe(pid)
    if record is None:
        return
    part = path.with_suffix(".part")
    try:
        part.write_bytes(msgspec.json.encode(record))
        part.replace(path)
    except OSError as error:
        log.warning("the worker's process id could not be written to %s: %s", path, error)


def end_leftover(path: Path) -> int | None:
    """Kill the worker of a server that is gone, with its children; its process id, None where there is none."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=WorkerRecord)
    except (OSError, msgspec.DecodeError):
        return None
    if _describe(record.pid) != record:
        return None
    log.warning("the last server's worker (pid %d) still lives and is killed", record.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(record.pid, signal.SIGKILL)  # it leads a session of its own
    return record.pid
