"""Which jobs this UI submitted and has not seen the end of, kept on disk: the next UI takes them over if this one is gone.

One file a UI, one line a change: `+job` when it is submitted, `-job` when its end was seen. The UI holds a lock on its file,
so a file without one was left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path
from typing import Final

from sdtui.settings import state_dir

_LONGEST_BYTES: Final = 1 << 20
"""Some 40,000 jobs; a longer file is none of ours."""
MOST_ADOPTED: Final = 50
"""The newest ones; who left more jobs behind finds them in the queue."""


class OwnJobs:
    """The file of this UI. Made when the first job is submitted; nothing here is needed for anything else to work."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or state_dir() / "ui"
        self._descriptor: int | None = None
        self._lock = threading.Lock()  # what was left behind is taken over in a thread

    def add(self, *jobs: str) -> None:
        """These are ours."""
        self._write("+", jobs)

    def ended(self, job: str) -> None:
        """Its end was seen."""
        if self._descriptor is not None:
            self._write("-", (job,))

    def adopt(self) -> list[str]:
        """Take over what others left behind, oldest first."""
        jobs: list[str] = []
        with contextlib.suppress(OSError):
            for path in sorted(self._directory.glob("*.jobs")):
                jobs += _take(path)
        jobs = sorted(set(jobs))[-MOST_ADOPTED:]
        if jobs:
            self.add(*jobs)
        return jobs

    def close(self) -> None:
        """Let go of the file; the next UI finds it. Without a job in it, it goes."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):
                if not _read(descriptor):
                    self._path.unlink(missing_ok=True)
            os.close(descriptor)

    @property
    def _path(self) -> Path:
        return self._directory / f"{os.getpid()}-{id(self):x}.jobs"

    def _write(self, sign: str, jobs: tuple[str, ...]) -> None:
        with self._lock, contextlib.suppress(OSError):  # a full disk must not keep anybody from making pictures
            if self._descriptor is None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._descriptor = _open_locked(self._path)
            os.write(self._descriptor, "".join(f"{sign}{job}\n" for job in jobs).encode())


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # somebody took it for one that was left behind, before it was locked


def _take(path: Path) -> list[str]:
    """The jobs of a file that nobody holds, which is then gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        jobs = _read(descriptor)
        path.unlink(missing_ok=True)
    except OSError:
        return []  # its UI lives
    finally:
        os.close(descriptor)
    return jobs


def _read(descriptor: int) -> list[str]:
    """The jobs whose end was not seen, in the order in which they were submitted."""
    if os.fstat(descriptor).st_size > _LONGEST_BYTES:
        return []
    text = os.pread(descriptor, _LONGEST_BYTES, 0).decode("utf-8", "replace")
    open_jobs: dict[str, None] = {}
    for line in text.splitlines():
        if line.startswith("+") and len(line) > 1:
            open_jobs[line[1:]] = None
        elif line.startswith("-"):
            open_jobs.pop(line[1:], None)
    return list(open_jobs)
