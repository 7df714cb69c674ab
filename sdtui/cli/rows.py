"""Jobs as rows of a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from sdtui.cli.output import table
from sdtui.metadata import initial_name
from sdtui.protocol import JobRow, QueueChanged
from sdtui.text import count_noun, format_seconds, safe_text

_HEAD: Final = ("job", "state", "steps", "priority", "made", "took", "seed", "begins with", "prompt")
_TO_THE_RIGHT: Final = (2, 3, 5)
"""Columns of figures."""
_ORIGIN: Final = _HEAD.index("begins with")
_PROMPT_CHARACTERS: Final = 60


def job_lines(rows: Sequence[JobRow]) -> list[str]:
    """Jobs as the lines of a table; what they begin with only where that is not noise for every one."""
    if not rows:
        return []
    shown = [_HEAD, *map(_cells, rows)]
    if not any(cells[_ORIGIN] for cells in shown[1:]):
        shown = [(*cells[:_ORIGIN], *cells[_ORIGIN + 1 :]) for cells in shown]
    return table(shown, right=_TO_THE_RIGHT)


def _cells(row: JobRow) -> tuple[str, ...]:
    """One job under `_HEAD`."""
    began, ended = row.started_at, row.finished_at
    return (
        row.job,
        row.state,
        progress(row),
        str(row.priority) if row.priority else "",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created_at)),
        format_seconds(max(0.0, ended - began)) if began and ended else "",
        "random" if row.params.seed is None else str(row.params.seed),
        origin(row),
        safe_text(row.params.prompt, limit=_PROMPT_CHARACTERS),
    )


def origin(row: JobRow) -> str:
    """What a job begins with: another one's steps, or an initial image; empty for noise."""
    params, branch = row.params, row.branch
    if branch is not None:
        return f"branch of {safe_text(branch.job)} at step {branch.step}"
    return f"{initial_name(params.init_image)}, strength {params.strength:g}" if params.init_image is not None else ""


def progress(row: JobRow) -> str:
    """`12/20`, and the batch where there are several; empty for a job that has not begun, or that is done."""
    if not row.steps_done or row.state == "done":
        return ""
    batch = f"{row.batch_index + 1}: " if row.params.batch_count > 1 else ""
    return f"{batch}{row.steps_done}/{row.total_steps}" if row.total_steps else f"{batch}{row.steps_done}"


def state_of(row: JobRow) -> str:
    """A job's state in a few words, with the reason where there is one."""
    steps = progress(row)
    after = f" at step {steps}" if steps and row.state in ("running", "paused", "interrupted") else ""
    return f"{row.state}{after}{f': {row.reason}' if row.reason else ''}"


def summary(queue: QueueChanged) -> str:
    """The whole queue in a line."""
    parts = ["1 job runs" if queue.running else "no job runs", f"{queue.queued:,} waiting"]
    if queue.paused:
        parts.append(f"{queue.paused:,} paused")
    if queue.held:
        parts.append("held: sdtui queue go-on lets it go on")
    if queue.trouble:
        parts.append(queue.trouble)
    return ", ".join(parts)


def counted(counts: dict[str, int], states: Sequence[str]) -> str:
    """`2 queued, 10 done`: how many there are in each of these states."""
    return ", ".join(f"{counts[state]:,} {state}" for state in states if counts.get(state))


def more(left: int) -> str:
    """What is said of rows that are not shown."""
    return f"... and {count_noun(left, 'further job')}; --limit shows more of them."
