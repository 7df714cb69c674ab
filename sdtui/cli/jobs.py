"""`sdtui jobs`: the list of jobs, or the record of one."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import msgspec
import typer

from sdtui.cli.connection import ask, connected
from sdtui.cli.log import log_lines
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json, table
from sdtui.protocol import JobRow, Jobs, ListJobs, Message, Refused, Replay, ReplayDone, as_json
from sdtui.text import format_seconds

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def jobs(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A job's name: print all that happened in it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many jobs to list, newest first.")] = 20,
) -> int:
    """List the jobs, newest first, or print the record of one.

    Example: sdtui jobs --limit 5
    """
    if job is not None:
        _print_events(asyncio.run(_record_of(job)), json=json)
        return EXIT_DONE
    rows = asyncio.run(_list(limit))
    if json:
        for row in rows:
            result_json(msgspec.json.encode(row))
    elif rows:
        for line in table([_HEAD, *map(_cells, rows)], right=(3,)):
            result(line)
    else:
        note("No jobs yet. Make one: sdtui generate 'a red cat in the desert'")
    return EXIT_DONE


_HEAD = ("job", "state", "made", "took", "seed", "prompt")


def _cells(row: JobRow) -> tuple[str, ...]:
    took = format_seconds(row.finished_at - row.started_at) if row.started_at and row.finished_at else ""
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.created_at))
    seed = "random" if row.params.seed is None else str(row.params.seed)
    return row.job, row.state, made, took, seed, row.params.prompt[:60]


async def _list(limit: int) -> tuple[JobRow, ...]:
    async with connected() as client:
        return (await ask(client, ListJobs(limit=limit), Jobs)).jobs


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
            if getattr(message, "job", None) == job:
                found.append(message)
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
