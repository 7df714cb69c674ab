"""What a crash leaves behind: a worker that outlived its server, and half-written pictures under hidden names.

Such a worker would hold the device's memory, and could still write pictures of a job that goes on elsewhere. It is found
through a record on disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import time
from pathlib import Path
from typing import Final

import msgspec

_START_TIME: Final = 19
"""Place of `starttime` in /proc/pid/stat after the command's closing parenthesis (proc(5), field 22)."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMELESS: Final = re.compile(r"\.sdtui-[0-9a-f]{16}\.part")
"""Files with which an output directory is tried, and pictures that are saved outside of jobs."""
_OLD_S: Final = 3600.0
"""Nobody works for so long on a file that takes milliseconds."""
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


def remove_parts(directory: Path, job: str | None = None) -> None:
    """Remove half-written pictures: those of a job that is on no worker any more, and old ones of nobody."""
    try:
        with os.scandir(directory) as entries:
            parts = [entry for entry in entries if entry.name.startswith(".sdtui-") and entry.name.endswith(".part")]
        for entry in parts:
            if (job is not None and entry.name.startswith(f".sdtui-{job}-")) or _is_abandoned(entry):
                Path(entry).unlink(missing_ok=True)
    except OSError as error:
        log.info("%s could not be tidied: %s", directory, error)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    found = entry.stat(follow_symlinks=False)
    return bool(_NAMELESS.fullmatch(entry.name)) and found.st_uid == os.getuid() and time.time() - found.st_mtime > _OLD_S
