"""Which pictures of a job are saved, and who may work on the job: files in its directory, beside its tapes.

`saved.jsonl` is the ledger, a line a picture; `saving.jsonl` says which name and which bytes a picture is about to get, so
that a crash between the name and the ledger's line leaves no doubt; `lock` is held by the worker that runs the job.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sdtui.tape import TapeError, digest_of, read_at, write_all

LOCK_WAIT_S: Final = 15.0
"""How long another worker that still has the job may take to end; one that lost its server leaves within 5 s."""
_POLL_S: Final = 0.05


class SavedPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of the job that is on disk under its final name: one line of the ledger."""

    image_index: int
    path: str
    seed: int
    width_px: int
    height_px: int
    size_bytes: int


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that is about to get its final name; whether it got it shows in the file's bytes."""

    picture: SavedPicture
    digest: str
    """BLAKE2b-128 of the file, hexadecimal."""


_Line = TypeVar("_Line", SavedPicture, Saving)


class Ledger:
    """Which pictures of a job are saved, each exactly once, over any number of workers."""

    def __init__(self, directory: Path) -> None:
        """Read what is there. Raises `OSError`."""
        self._saved_path, self._saving_path = directory / "saved.jsonl", directory / "saving.jsonl"
        self.saved = {picture.image_index: picture for picture in _lines(self._saved_path, SavedPicture)}
        self.saving = [line for line in _lines(self._saving_path, Saving) if line.picture.image_index not in self.saved]

    def announce(self, picture: SavedPicture, digest: str) -> None:
        """Note durably that a picture is about to get its name. Raises `OSError`."""
        line = Saving(picture=picture, digest=digest)
        _append_line(self._saving_path, line)
        self.saving.append(line)

    def add(self, picture: SavedPicture) -> None:
        """Note durably that a picture has its name. Raises `OSError`."""
        if picture.image_index not in self.saved:
            _append_line(self._saved_path, picture)
            self.saved[picture.image_index] = picture

    def find(self, image_index: int) -> SavedPicture | None:
        """The picture with this index if it is saved, also where the worker died before it could say so. Raises `OSError`."""
        if image_index not in self.saved:
            for line in reversed(self.saving):
                if line.picture.image_index == image_index and _has_digest(Path(line.picture.path), line):
                    self.add(line.picture)
                    break
        return self.saved.get(image_index)


def file_digest(data: bytes) -> str:
    """How `Saving` tells a file from another one."""
    return digest_of(data).hex()


def _has_digest(path: Path, line: Saving) -> bool:
    try:
        return path.stat().st_size == line.picture.size_bytes and file_digest(path.read_bytes()) == line.digest
    except OSError:
        return False


def _lines(path: Path, kind: type[_Line]) -> list[_Line]:
    """The whole lines of a file; a torn last one, or one that is no such line, is passed over."""
    try:
        whole = path.read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        return []
    found = []
    for line in whole.splitlines():
        with suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=kind))
    return found


def _append_line(path: Path, line: SavedPicture | Saving) -> None:
    """Append and sync; what a torn line or a failed write left behind is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = len(read_at(descriptor, os.fstat(descriptor).st_size, 0).rpartition(b"\n")[0])
        whole = size + 1 if size else 0
        os.ftruncate(descriptor, whole)
        os.lseek(descriptor, whole, os.SEEK_SET)
        write_all(descriptor, msgspec.json.encode(line) + b"\n")
        os.fdatasync(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


# --- one worker a job -----------------------------------------------------------------------------------------------


class JobLock:
    """Holds a job's directory against other workers, as long as this process lives or until `release`."""

    def __init__(self, directory: Path, *, wait_s: float = LOCK_WAIT_S, look: Callable[[], None] = lambda: None) -> None:
        """Take the lock; `look` is called while it waits, and may raise. Raises `TapeError`, or `OSError`."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(time.monotonic() + wait_s, look)
        except BaseException:
            self.release()
            raise

    def _take(self, deadline: float, look: Callable[[], None]) -> None:
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TapeError(
                        "Another worker still runs this job: one that an earlier server left behind. End it, and try again."
                    ) from None
            look()
            time.sleep(_POLL_S)

    def release(self) -> None:
        """Let the next worker have the job; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
