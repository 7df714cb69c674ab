"""What the commands share that make a job: where its pictures go, and how it is submitted, shown, or left to itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sdtui.cli.connection import ask, connected
from sdtui.cli.ending import finish, show_to_the_end
from sdtui.cli.follow import Follower
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json
from sdtui.metadata import OutputError, check_pattern, prepare_output
from sdtui.protocol import JobQueued, PreviewOptions, Refused, Submit, as_json
from sdtui.settings import Settings, output_dir

OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="DIR", help="Where the pictures go.", show_default=False)
]
NamePatternOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="File name without ending, from {date} {time} {job} {seed} {index} {model} {prompt}.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write each event as a line of JSON to stdout.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Write the step log to stderr.")]
PreviewOption = Annotated[
    bool | None, typer.Option("--preview/--no-preview", help="Show the forming picture on a terminal.", show_default=False)
]
DetachOption = Annotated[
    bool, typer.Option("--detach", "-d", help="Queue the job, print its name and leave; sdtui attach shows it.")
]


def checked_output(given: str | None, settings: Settings) -> Path:
    """The directory for the pictures, made and tried before any work. Raises `CommandError`."""
    directory = Path(given).expanduser().absolute() if given else output_dir(settings)
    try:
        str(directory).encode()
        prepare_output(directory)
    except UnicodeEncodeError:
        raise CommandError(f"--output: the name {str(directory)!r} is not UTF-8 text.", EXIT_BAD_INPUT) from None
    except OutputError as error:
        raise CommandError(f"--output: {error}", EXIT_BAD_INPUT) from error
    return directory


def checked_pattern(given: str | None, settings: Settings) -> str:
    """The pattern for the pictures' names. Raises `CommandError`."""
    pattern = given or settings.general.name_pattern
    try:
        check_pattern(pattern)
    except OutputError as error:
        raise CommandError(f"--name-pattern: {error}", EXIT_BAD_INPUT) from error
    return pattern


def preview_of(settings: Settings) -> PreviewOptions:
    """The previews of a job that nobody looks at yet."""
    wanted = settings.preview
    return PreviewOptions(method=wanted.method, max_per_s=wanted.max_per_s, budget=wanted.budget)


def submit_and_show(submit: Submit, settings: Settings, *, json: bool, verbose: bool, preview: bool | None) -> int:
    """Submit a job and show it to its end; the command's exit code. Raises `CommandError`."""
    from sdtui.cli.screen import Screen  # rich is imported when there is something to show

    screen = Screen(json=json, verbose=verbose, preview=preview, settings=settings)
    submit = msgspec.structs.replace(submit, preview=screen.preview_options())
    return show_to_the_end(Follower(submit.job, screen.reporters, submit=submit, previews=screen.pictures), screen, submit.job)


def submit_and_leave(submit: Submit, *, json: bool) -> int:
    """Print the job's name as soon as the server has it. Raises `CommandError`."""
    answer = asyncio.run(_queued(submit))
    if isinstance(answer, Refused):
        return finish(answer, json=json)
    if json:
        result_json(as_json(answer))
    else:
        result(submit.job)
    note(f"The job goes on by itself; see it with sdtui attach {submit.job}")
    return EXIT_DONE


async def _queued(submit: Submit) -> JobQueued | Refused:
    async with connected() as client:
        return await ask(client, submit, JobQueued, Refused, job=submit.job)
