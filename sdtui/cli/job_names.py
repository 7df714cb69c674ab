"""Jobs whose steps are recorded, found by their names or by the beginning of one, and their pictures: no server is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sdtui.cli.output import EXIT_BAD_INPUT, CommandError
from sdtui.inspected import InspectedError
from sdtui.settings import nearest, tapes_dir
from sdtui.tape import TapeError, job_directory
from sdtui.text import count_noun
from sdtui.trajectory import Trajectory, find_trajectory, trajectories_of

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


def read_recorded(directory: Path) -> list[Trajectory]:
    """Every batch that is recorded, or its parts. Raises `CommandError` where there is none, or one cannot be used."""
    try:
        found = [Trajectory(path) for path in trajectories_of(directory)]
        if not found:
            find_trajectory(directory, 0, 0)  # it says why there are none
    except InspectedError as error:
        raise CommandError(f"JOB: {error}", EXIT_BAD_INPUT) from error
    return found


def recorded_picture(directory: Path, batch: int, picture: int) -> tuple[Trajectory, int]:
    """A trajectory and a picture's place in it, both counted from 1. Raises `CommandError` naming the option."""
    every = read_recorded(directory)
    of_batch = [one for one in every if one.facts.batch_index == batch - 1]
    if not of_batch:
        numbers = ", ".join(str(number + 1) for number in sorted({one.facts.batch_index for one in every}))
        raise CommandError(f"--batch: recorded of job {directory.name} is batch {numbers}; not {batch}.", EXIT_BAD_INPUT)
    for trajectory in of_batch:
        place = picture - 1 - trajectory.facts.first_picture
        if 0 <= place < len(trajectory.facts.seeds):
            return trajectory, place
    count = count_noun(sum(len(one.facts.seeds) for one in of_batch), "picture")
    raise CommandError(f"--picture: recorded of batch {batch} are {count}; there is no picture {picture}.", EXIT_BAD_INPUT)


def _written_at(directory: Path) -> float:
    try:
        return max((path.stat().st_mtime for path in trajectories_of(directory)), default=0.0)
    except OSError:  # it went while we looked
        return 0.0
