"""Which picture of which inspected job is meant, from what lies on disk: no server is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sdtui.cli.output import EXIT_BAD_INPUT, CommandError
from sdtui.inspected import PATTERN, InspectedError, InspectedFile, files_of, newest
from sdtui.ledger import Ledger
from sdtui.metadata import MetadataError, read_png
from sdtui.settings import nearest, tapes_dir
from sdtui.tape import TapeError, job_directory
from sdtui.text import count_noun

HOW: Final = "sdtui generate --words makes a job with maps."

_MOST_NAMES: Final = 5
"""Jobs that are named where one is not found: the last ones."""


@dataclass(frozen=True)
class Inspected:
    """One picture of an inspected job."""

    file: InspectedFile
    position: int
    """In the file."""
    number: int
    """In the job, from 1 on."""
    of: int
    """How many pictures of the job were inspected."""
    picture: Path | None
    """Where it was saved, whether it is there still or not."""

    @property
    def seed(self) -> int:
        """Of this picture."""
        return self.file.facts.seeds[self.position]


def find_inspected(target: str | None, number: int | None) -> Inspected:
    """The picture of a job's name, of one of its files or of a picture; without one, of the last job with word maps.

    `number` counts the job's pictures from 1 on. Raises `CommandError`.
    """
    picture = None
    if target is None:
        path = newest(tapes_dir(), words=True)
        if path is None:
            raise CommandError(f"There is no job with maps of words. {HOW}", EXIT_BAD_INPUT)
        directory = path.parent
    elif _is_file(target):
        if target.endswith(".safetensors"):
            return _chosen(_all_of([Path(target)]), number, None)
        directory, number, picture = _of_picture(Path(target), number)
    else:
        directory = _of_job(target)
    files = files_of(directory)
    if not files:
        raise CommandError(f"Job {directory.name} has no maps of words, or they were removed. {HOW}", EXIT_BAD_INPUT)
    return _chosen(_all_of(files), number, picture)


def _is_file(target: str) -> bool:
    return "/" in target or target.endswith((".png", ".safetensors")) or Path(target).is_file()


def _of_job(name: str) -> Path:
    tapes = tapes_dir()
    try:
        directory = job_directory(tapes, name)
    except TapeError as error:
        raise CommandError(f"JOB: {error}", EXIT_BAD_INPUT) from error
    if not directory.is_dir():
        known = sorted({path.parent.name for path in tapes.glob(f"*/{PATTERN}")})[-_MOST_NAMES:]
        hint = nearest(name, known) if known else HOW
        raise CommandError(f"JOB: nothing is kept of a job {name!r}; {hint}", EXIT_BAD_INPUT)
    return directory


def _of_picture(path: Path, number: int | None) -> tuple[Path, int, Path]:
    """The directory of the job that made a picture, which of its pictures that is, and the picture itself."""
    try:
        record = read_png(path).record
    except MetadataError as error:
        raise CommandError(f"FILE: {error}", EXIT_BAD_INPUT) from error
    if record is None or not record.job:
        raise CommandError(f"FILE: {path} does not say which job made it.", EXIT_BAD_INPUT)
    if number is not None:
        raise CommandError("--image: the file is one picture; give its job to choose another.", EXIT_BAD_INPUT)
    return _of_job(record.job), record.image_index + 1, path


def _all_of(paths: Sequence[Path]) -> list[Inspected]:
    """Every picture that was inspected, with its number in the job. Raises `CommandError`."""
    found: list[Inspected] = []
    for path in paths:
        try:
            file = InspectedFile(path)
            ledger = Ledger(path.parent)
        except (InspectedError, OSError) as error:
            raise CommandError(str(error), EXIT_BAD_INPUT) from error
        saved = {picture.seed: picture for picture in [*(line.picture for line in ledger.saving), *ledger.saved.values()]}
        for position, seed in enumerate(file.facts.seeds):
            known = saved.get(seed)
            number = known.image_index + 1 if known is not None else len(found) + 1
            found.append(Inspected(file, position, number, 0, Path(known.path) if known is not None else None))
    return found


def _chosen(found: list[Inspected], number: int | None, picture: Path | None) -> Inspected:
    with_words = [one for one in found if one.file.facts.words is not None]
    if not with_words:
        raise CommandError(
            f"Job {found[0].file.facts.job if found else ''} was inspected without its words. {HOW}", EXIT_BAD_INPUT
        )
    numbers = [one.number for one in with_words]
    chosen = with_words[0] if number is None else next((one for one in with_words if one.number == number), None)
    if chosen is None:
        raise CommandError(
            f"--image: there are maps of {count_noun(len(numbers), 'picture')}, {_listed(numbers)}; not of {number}.",
            EXIT_BAD_INPUT,
        )
    return Inspected(chosen.file, chosen.position, chosen.number, len(numbers), picture or chosen.picture)


def _listed(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"
