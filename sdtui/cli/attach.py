"""`sdtui attach [JOB]`: a job from its beginning to its end, as `sdtui generate` shows it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from sdtui.cli.connection import connected
from sdtui.cli.ending import show_to_the_end
from sdtui.cli.follow import Follower
from sdtui.cli.output import EXIT_FAILED, CommandError
from sdtui.cli.start import settings_or_error
from sdtui.protocol import QueueChanged, Welcome
from sdtui.text import count_noun

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def attach(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="A job's name; without it, the one that runs.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Write each event as a line of JSON to stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Write the step log to stderr.")] = False,
    preview: Annotated[
        bool | None, typer.Option("--preview/--no-preview", help="Show the forming picture on a terminal.", show_default=False)
    ] = None,
) -> int:
    """Show a job from its beginning to its end, wherever it was started; Ctrl-C leaves, and the job goes on.

    Its exit code is that of the job; 3 when none runs.

    Example: sdtui attach --verbose
    """
    settings = settings_or_error()
    name = job if job is not None else asyncio.run(_running_job())
    from sdtui.cli.screen import Screen

    screen = Screen(json=json, verbose=verbose, preview=preview, settings=settings)
    follower = Follower(name, screen.reporters, previews=screen.pictures, interrupt="leave")
    return show_to_the_end(follower, screen, name)


async def _running_job() -> str:
    """The job that runs, or that will run next. Raises `CommandError` when there is none."""
    async with connected() as client:
        welcome = client.welcome
    name = welcome.queue.running or next((row.job for row in welcome.jobs if row.state == "running"), None)
    if name is not None:
        return name
    blocked = welcome.queue.held or welcome.queue.trouble
    if welcome.jobs and not blocked:
        return welcome.jobs[0].job
    raise CommandError(f"No job runs. {_why_none(welcome)}", EXIT_FAILED)


def _why_none(welcome: Welcome) -> str:
    queue: QueueChanged = welcome.queue
    if not queue.queued and not queue.paused:
        return "sdtui jobs lists those that have ended; sdtui attach JOB shows one."
    waiting = f"{count_noun(queue.queued, 'job')} waiting, {queue.paused:,} paused"
    if queue.trouble:
        return f"{waiting}: {queue.trouble}"
    if queue.held:
        return f"{waiting}; the queue is held, and sdtui queue go-on lets it go on."
    return f"{waiting}; sdtui queue resume JOB lets one go on."
