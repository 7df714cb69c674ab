"""What a job keeps on disk while it runs: its lock, its ledger of saved pictures, its tapes, the memory remedies in force."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sdtui.inspected import inspected_path
from sdtui.ledger import JobLock, Ledger
from sdtui.settings import write_atomically
from sdtui.tape import Tape, TapeError, job_directory, read_tape
from sdtui.trajectory import trajectory_path
from sdtui.worker.errors import JobProblem

_log: Final = logging.getLogger(__name__)


class Journal:
    """A job's directory, held against other workers until `close`."""

    def __init__(self, directory: Path, *, record: bool, look: Callable[[], None] = lambda: None) -> None:
        """Take up what an earlier worker left; `look` is called while that one still holds it. Raises `TapeError`, `OSError`."""
        self.record = record
        self._directory = directory
        self._lock = JobLock(directory, look=look)
        try:
            self.ledger = Ledger(directory)
        except BaseException:
            self._lock.release()
            raise

    @property
    def seed(self) -> int | None:
        """The job's first seed, where a tape or the ledger tells it."""
        for picture in self.ledger.saved.values():
            return picture.seed - picture.image_index
        for path in sorted(self._directory.glob("batch-0000*.tape")):
            with suppress(OSError, TapeError, KeyError, IndexError, TypeError, ValueError):
                found, _ = read_tape(path)
                return int(found["seeds"][0])
        return None

    def tape(self, name: str, fingerprint: Mapping[str, Any]) -> tuple[Tape | None, str]:
        """The tape of a batch, or none where nothing is recorded, and why not."""
        if not self.record:
            return None, ""
        try:
            return Tape(self._directory / f"{name}.tape", fingerprint), ""
        except OSError as error:
            _log.warning("steps are not recorded: %s", error)
            return None, error.strerror or str(error)

    @property
    def tapes(self) -> Path:
        """Where all jobs keep their files."""
        return self._directory.parent

    def trajectory_path(self, name: str) -> Path:
        """Where the trajectory of a batch is kept."""
        return trajectory_path(self._directory / f"{name}.tape")

    def inspected_path(self, batch_index: int, part: tuple[int, int] | None = None) -> Path:
        """Where what was seen of a batch, or of a part of one, is kept."""
        return inspected_path(self._directory, batch_index, part)

    @property
    def remedies(self) -> dict[str, Any]:
        """The memory remedies that were in force when the worker before ended."""
        with suppress(OSError, ValueError):
            found = json.loads((self._directory / "remedies.json").read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    def keep_remedies(self, remedies: Mapping[str, Any]) -> None:
        """Remember what is in force, so that a resumed job does not run out of memory first."""
        with suppress(OSError):
            write_atomically(self._directory / "remedies.json", json.dumps(remedies).encode())

    def close(self) -> None:
        """Let the next worker have the job."""
        self._lock.release()


def open_journal(tapes: Path, job: str, *, record: bool, look: Callable[[], None]) -> Journal | None:
    """The journal of a job; None where its directory cannot be made, as the job itself can do without.

    Raises `JobProblem` when another worker has the job and keeps it, or what `look` raises.
    """
    try:
        return Journal(job_directory(tapes, job), record=record, look=look)
    except TapeError as error:
        raise JobProblem(str(error)) from error
    except OSError as error:
        _log.warning("job %s keeps nothing on disk: %s", job, error)
        return None
