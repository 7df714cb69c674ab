"""Which jobs have recorded steps, and how they descend from each other. No Textual here; what reads is for threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size

from sdtui.inspected import InspectedError
from sdtui.params import GenerationParams
from sdtui.protocol import BranchPoint, JobRow, JobState
from sdtui.text import count_noun, safe_text
from sdtui.trajectory import PATTERN, Trajectory, trajectories_of
from sdtui.ui.queue_rows import MARKS, state_word
from sdtui.ui.screens.create_jobs import short_name

_MOST_READ: Final = 100
"""Files that are opened for the prompts of jobs that the server does not know of, or while there is none."""
_PROMPT_CHARACTERS: Final = 300
MOST_INDENTED: Final = 6
"""Branches of branches that are shown as such; deeper ones leave no room for their prompts."""
_WIDE: Final = 70
"""Cells from which the state's name has room, and not only its mark."""
_ORIGIN_CELLS: Final = 14


class JobLine(NamedTuple):
    """A job in the list, with what is known of it."""

    job: str
    depth: int
    """0, or how many of its ancestors are in the list."""
    params: GenerationParams | None
    state: JobState | None
    """None where the server does not say."""
    branch: BranchPoint | None


def recorded_jobs(tapes: Path) -> list[str]:
    """Every job with steps on the disk, the one that was written to last first."""
    newest: dict[str, float] = {}
    for path in tapes.glob(f"*/{PATTERN}"):
        try:
            written = path.stat().st_mtime
        except OSError:
            continue  # it went while we looked
        newest[path.parent.name] = max(written, newest.get(path.parent.name, 0.0))
    return sorted(newest, key=lambda job: (newest[job], job), reverse=True)


def read_params(tapes: Path, jobs: Iterable[str]) -> dict[str, GenerationParams]:
    """What jobs were asked for, from their files; those that cannot be read are left out."""
    found: dict[str, GenerationParams] = {}
    for job in list(jobs)[:_MOST_READ]:
        for path in trajectories_of(tapes / job)[:1]:
            try:
                found[job] = Trajectory(path).facts.params
            except InspectedError:
                continue
    return found


def family_lines(jobs: Sequence[str], rows: Mapping[str, JobRow], params: Mapping[str, GenerationParams]) -> list[JobLine]:
    """The jobs in their order, each with its branches below it, the newest of these first."""
    there = set(jobs)
    children: dict[str, list[str]] = {}
    roots: list[str] = []
    for job in jobs:
        branch = rows[job].branch if job in rows else None
        (children.setdefault(branch.job, []) if branch is not None and branch.job in there - {job} else roots).append(job)
    lines: list[JobLine] = []
    listed: set[str] = set()
    stack = [(job, 0) for job in reversed((*roots, *jobs))]  # all jobs again: some may name each other as parents
    while stack:
        job, depth = stack.pop()
        if job not in listed:
            listed.add(job)
            row = rows.get(job)
            known = row.params if row is not None else params.get(job)
            lines.append(JobLine(job, depth, known, row.state if row else None, row.branch if row else None))
            stack += [(child, depth + 1) for child in reversed(children.get(job, ()))]
    return lines


def line_text(line: JobLine, width: int, deepest: int) -> str:
    """A job as a line of the chooser, in at most so many cells."""
    tree = f"{'  ' * (min(line.depth, MOST_INDENTED) - 1)}└ " if line.depth else ""
    mark = MARKS[line.state] if line.state is not None else "·"
    name = f"{tree}{mark} {short_name(line.job)}".ljust(2 * min(deepest, MOST_INDENTED) + 8)
    state = (state_word(line.state) if line.state is not None else "").ljust(11) + " " if width >= _WIDE else ""
    prompt = safe_text(line.params.prompt[:_PROMPT_CHARACTERS]) if line.params is not None else "its steps cannot be read"
    text = f"{name}{state}{_origin(line):<{_ORIGIN_CELLS}}{prompt}"
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(0, width - 1)).rstrip()}…"


def _origin(line: JobLine) -> str:
    """How many steps it has, or where it branched."""
    if line.branch is not None:
        parent = "" if line.depth else f" of {short_name(line.branch.job)}"
        return f"from step {line.branch.step}{parent}  "
    return count_noun(line.params.num_inference_steps, "step") if line.params is not None else ""
