"""`sdtui generate`: a prompt in, the paths of pictures out."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from sdtui.cli.follow import Follower
from sdtui.cli.options import BadParams, option_name, parameter_options, params_from, read_prompt, with_model_path
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED, CommandError, note, result_json
from sdtui.cli.start import settings_or_error
from sdtui.metadata import OutputError, check_pattern, prepare_output
from sdtui.params import BY_FIELD
from sdtui.protocol import JobCancelled, JobFailed, JobFinished, Refused, Submit, as_json, new_job_id
from sdtui.settings import Settings, output_dir
from sdtui.text import format_seconds

if TYPE_CHECKING:
    from sdtui.cli.follow import End


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
    preview: Annotated[
        bool | None, typer.Option("--preview/--no-preview", help="Show the forming picture on a terminal.", show_default=False)
    ] = None,
    **given: str | bool | None,
) -> int:
    """Make pictures from a prompt, and print their paths.

    Example: sdtui generate "a red cat in the desert" --steps 30 --seed 7 --output pictures
    """
    settings = settings_or_error()
    try:
        params = with_model_path(params_from(read_prompt(prompt), given, {"model": settings.general.model}))
    except BadParams as error:
        if json:
            result_json(as_json(error.as_refused()))
        raise
    directory = _checked_output(output, settings)
    from sdtui.cli.screen import Screen  # rich is imported when there is something to show

    screen = Screen(json=json, verbose=verbose, preview=preview, image_protocol=settings.terminal.image_protocol)
    submit = Submit(
        job=new_job_id(),
        params=params,
        output_dir=str(directory),
        name_pattern=_checked_pattern(name_pattern or settings.general.name_pattern),
        preview=screen.preview_options(settings),
    )
    end: End | None = None
    try:
        end = asyncio.run(Follower(submit, screen.reporters).run())
    except asyncio.CancelledError:
        note(f"Left; job {submit.job} may go on. See sdtui jobs {submit.job}")
        return EXIT_CANCELLED
    except BrokenPipeError:
        note(f"Whoever read the output has left; job {submit.job} goes on. See sdtui jobs {submit.job}")
        raise
    finally:
        screen.close(end)
    return _finish(end, json=json)


def _with_parameter_options() -> None:
    """Put the options made from the parameters in the place of `given`, where Typer looks for them."""
    signature = inspect.signature(generate, eval_str=True)
    own = [entry for entry in signature.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    cast(Any, generate).__signature__ = signature.replace(parameters=[own[0], *parameter_options(), *own[1:]])


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


def _finish(end: End, *, json: bool) -> int:
    """Say how it ended; the exit code. Raises `CommandError` for a failure."""
    match end:
        case JobFinished():
            return EXIT_DONE
        case JobCancelled():
            note(f"Cancelled after {format_seconds(end.latency_s)}.")
            return EXIT_CANCELLED
        case Refused():
            if json:
                result_json(as_json(end))
            raise CommandError(_with_option(end.field, end.message), EXIT_BAD_INPUT)
        case JobFailed():
            code = EXIT_BAD_INPUT if end.field in BY_FIELD else EXIT_FAILED
            raise CommandError(_with_option(end.field, end.message), code, detail=end.detail)


def _with_option(field: str | None, message: str) -> str:
    return f"{option_name(field)}: {message}" if field else message
