"""`sdtui jobs`: the list of jobs, a list that stays current, or the record of one job."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import msgspec
import typer

from sdtui.cli.connection import Which, connected, list_jobs
from sdtui.cli.log import log_lines
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json
from sdtui.cli.rows import job_lines, more, summary
from sdtui.protocol import ENDED, JOB_EVENTS, JOB_STATES, JobRow, Message, QueueChanged, Refused, Replay, ReplayDone, as_json
from sdtui.settings import nearest

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_ALL: Final = 10_000_000


@app.command()
def jobs(
    *,
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="A job's name: print all that happened in it.")] = None,
    queue: Annotated[bool, typer.Option("--queue", help="What runs, waits and is paused, in the order of the queue.")] = False,
    ended: Annotated[bool, typer.Option("--ended", help="Only jobs that have ended.")] = False,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help=f"Only those in one state: {', '.join(JOB_STATES)}.", show_default=False),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay, and show what changes; Ctrl-C leaves.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many jobs to list at most.")] = 20,
) -> int:
    """List the jobs, newest first, or print the record of one. Commands for the queue: sdtui queue --help

    Example: sdtui jobs --state failed --limit 5
    """
    _check_options(job, queue=queue, ended=ended, state=state, watch=watch)
    if job is not None:
        _print_events(asyncio.run(_record_of(job)), json=json)
        return EXIT_DONE
    if watch:
        from sdtui.cli.watch import watch_jobs

        return watch_jobs(limit, json=json)
    which: Which = "queue" if queue or state in ("running", "queued", "interrupted", "paused") else "all"
    return show_jobs("ended" if ended or state in ENDED else which, limit, state=state, json=json)


def _check_options(job: str | None, *, queue: bool, ended: bool, state: str | None, watch: bool) -> None:
    """Raises `CommandError` for options that say different things."""
    given = {"JOB": job is not None, "--queue": queue, "--ended": ended, "--state": state is not None, "--watch": watch}
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1:
        raise CommandError(f"{' and '.join(names)}: give one of them.", EXIT_BAD_INPUT)
    if state is not None and state not in JOB_STATES:
        raise CommandError(f"--state: {state!r} is not known; {nearest(state, JOB_STATES)}", EXIT_BAD_INPUT)


def show_jobs(which: Which, limit: int, *, state: str | None = None, json: bool) -> int:
    """Print a list of jobs; the exit code."""
    rows, total, changed = asyncio.run(_list(which, limit, state))
    if json:
        for row in rows:
            result_json(msgspec.json.encode(row))
        return EXIT_DONE
    for line in job_lines(rows):
        result(line)
    if not rows:
        note(_nothing(which, state))
    elif total > len(rows):
        note(more(total - len(rows)))
    if which == "queue" and (changed.held or changed.trouble):
        note(summary(changed))
    return EXIT_DONE


def _nothing(which: Which, state: str | None) -> str:
    what = f"No job is {state}." if state else {"queue": "The queue is empty.", "ended": "No job has ended yet."}.get(which)
    return f"{what or 'No jobs yet.'} Make one: sdtui generate 'a red cat in the desert'"


async def _list(which: Which, limit: int, state: str | None) -> tuple[list[JobRow], int, QueueChanged]:
    """The rows, how many there are of them in all, and how the queue is."""
    async with connected() as client:
        rows, answer = await list_jobs(client, which, limit if state is None else _ALL)
        total = answer.total
        if state is not None:
            rows = [row for row in rows if row.state == state]
            total = len(rows)
        return rows[:limit], total, client.welcome.queue


async def _record_of(job: str) -> list[Message]:
    """The recorded events of a job, in order. Raises `CommandError` when there is no such job."""
    found: list[Message] = []
    async with connected() as client:
        await client.send(Replay(job=job))
        async for message in client.events():
            if isinstance(message, Refused):
                raise CommandError(message.message, EXIT_BAD_INPUT)
            if isinstance(message, ReplayDone):
                break
            if isinstance(message, JOB_EVENTS) and getattr(message, "job", None) == job:
                found.append(message)
        else:
            raise CommandError("The server went away before the record was complete; see sdtui server log.")
    if not found:
        raise CommandError(f"There is no job {job!r}; sdtui jobs lists them.", EXIT_BAD_INPUT)
    return found


def _print_events(events: list[Message], *, json: bool) -> None:
    for message in events:
        if json:
            result_json(as_json(message))
            continue
        for line in log_lines(message):
            result(line)
