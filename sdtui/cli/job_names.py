"""Jobs whose steps are recorded, found by their names or by the beginning of one: no server is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sdtui.cli.output import EXIT_BAD_INPUT, CommandError
from sdtui.settings import nearest, tapes_dir
from sdtui.tape import TapeError, job_directory
from sdtui.trajectory import trajectories_of

LAST: Final = "last"
"""In place of a name: the job whose steps were written to last."""
_MOST_NAMES: Final = 5


def find_recorded(given: str) -> Path:
    """The directory of the job of this name, or of the only one whose name begins so; `LAST`. Raises `CommandError`."""
    tapes = tapes_dir()
    try:
        directory = job_directory(tapes, given)
    except TapeError as error:
        raise CommandError(f"JOB: {error}", EXIT_BAD_INPUT) from error
    if directory.is_dir():
        return directory
    known = sorted(path for path in tapes.iterdir() if trajectories_of(path)) if tapes.is_dir() else []
    if given == LAST and known:
        return max(known, key=_written_at)
    matches = [path for path in known if path.name.startswith(given)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(path.name for path in matches[-_MOST_NAMES:])
        more = f"{len(matches) - _MOST_NAMES} more, " if len(matches) > _MOST_NAMES else ""
        raise CommandError(f"JOB: {given!r} is the beginning of {len(matches)} names: {more}{names}", EXIT_BAD_INPUT)
    hint = f"; {nearest(given, [path.name for path in known[-_MOST_NAMES:]])}" if known else ". sdtui jobs lists the jobs."
    raise CommandError(f"JOB: no steps are recorded of a job {given!r}{hint}", EXIT_BAD_INPUT)


def _written_at(directory: Path) -> float:
    try:
        return max((path.stat().st_mtime for path in trajectories_of(directory)), default=0.0)
    except OSError:  # it went while we looked
        return 0.0
