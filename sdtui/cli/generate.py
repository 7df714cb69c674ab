"""`sdtui generate`: a prompt in, the paths of pictures out."""

from __future__ import annotations

import asyncio
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer

from sdtui.cli.connection import ask, connected
from sdtui.cli.ending import finish, show_to_the_end
from sdtui.cli.follow import Follower
from sdtui.cli.initial import with_initial_image
from sdtui.cli.options import (
    MAX_PRIORITY,
    MIN_PRIORITY,
    parameter_options,
    params_from,
    problems_in_json,
    read_prompt,
    with_model_path,
)
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json
from sdtui.cli.start import settings_or_error
from sdtui.metadata import OutputError, check_pattern, prepare_output
from sdtui.protocol import InspectMode, JobQueued, PreviewOptions, Refused, Submit, as_json, new_job_id
from sdtui.settings import Settings, output_dir


def generate(
    *,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture should show; - reads it from stdin.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Where the pictures go.", show_default=False)
    ] = None,
    name_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="File name without ending, from {date} {time} {job} {seed} {index} {model} {prompt}.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write each event as a line of JSON to stdout.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Write the step log to stderr.")] = False,
    inspect: Annotated[
        InspectMode,
        typer.Option(
            help="Look at the networks while they run and write what comes out of each block, or each module, to the log. "
            "It implies --verbose.",
        ),
    ] = "off",
    words: Annotated[
        bool, typer.Option("--words", help="Keep where each word of the prompt acts; sdtui words shows it.")
    ] = False,
    preview: Annotated[
        bool | None, typer.Option("--preview/--no-preview", help="Show the forming picture on a terminal.", show_default=False)
    ] = None,
    priority: Annotated[
        int, typer.Option(metavar="N", min=MIN_PRIORITY, max=MAX_PRIORITY, help="Jobs of a higher one run first; -100 to 100.")
    ] = 0,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Queue the job, print its name and leave; sdtui attach shows it.")
    ] = False,
    **given: str | bool | None,
) -> int:
    """Make pictures from a prompt, and print their paths.

    The job belongs to the server: it goes on when this command or its terminal is gone. Ctrl-C cancels it.

    Example: sdtui generate "a red cat in the desert" --steps 30 --seed 7 --output pictures
    """
    settings = settings_or_error()
    with problems_in_json(wanted=json):
        params = params_from(read_prompt(prompt), given, {"model": settings.general.model})
        params = with_model_path(params, allow_pickle=settings.worker.allow_pickle)
        output_path = _checked_output(output, settings)
        pattern = _checked_pattern(name_pattern or settings.general.name_pattern)
        params = with_initial_image(params, settings)  # last, as it may take long
    submit = Submit(
        job=new_job_id(),
        params=params,
        output_dir=str(output_path),
        name_pattern=pattern,
        priority=priority,
        inspect=inspect,
        words=words,
        preview=PreviewOptions(
            method=settings.preview.method, max_per_s=settings.preview.max_per_s, budget=settings.preview.budget
        ),
    )
    if detach:
        return _detach(submit, json=json)
    from sdtui.cli.screen import Screen  # rich is imported when there is something to show

    screen = Screen(json=json, verbose=verbose or inspect != "off", preview=preview, settings=settings)
    submit = msgspec.structs.replace(submit, preview=screen.preview_options())
    return show_to_the_end(Follower(submit.job, screen.reporters, submit=submit, previews=screen.pictures), screen, submit.job)


def _with_parameter_options() -> None:
    """Put the options made from the parameters in the place of `given`, where Typer looks for them."""
    written = signature(generate, eval_str=True)
    own = [entry for entry in written.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    cast(Any, generate).__signature__ = written.replace(parameters=[own[0], *parameter_options(), *own[1:]])


_with_parameter_options()
app = typer.Typer(rich_markup_mode=None, add_completion=False)
app.command()(generate)


def _checked_output(given: str | None, settings: Settings) -> Path:
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


def _checked_pattern(pattern: str) -> str:
    try:
        check_pattern(pattern)
    except OutputError as error:
        raise CommandError(f"--name-pattern: {error}", EXIT_BAD_INPUT) from error
    return pattern


def _detach(submit: Submit, *, json: bool) -> int:
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
