"""`sdtui explain PROMPT`: the sampling function line by line, with what each line makes."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Final, cast

import msgspec
import typer

from sdtui.cli.initial import with_initial_image
from sdtui.cli.options import (
    option_name,
    parameter_options,
    params_from,
    problems_in_json,
    read_prompt,
    with_model_path,
)
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, CommandError, note, result, result_json
from sdtui.cli.start import settings_or_error
from sdtui.cli.transcript import Transcript
from sdtui.metadata import OutputError, prepare_output
from sdtui.params import BY_FIELD, GenerationParams
from sdtui.protocol import (
    Advance,
    DownloadProgress,
    ExplainingFailed,
    LineRan,
    Message,
    SaveExplained,
    StartExplaining,
    as_json,
)
from sdtui.server.explainer import Explainer, ExplainerError
from sdtui.text import format_bytes, safe_text

_SAY_S: Final = 2.0
"""Between two lines about a model that is fetched."""
_PNG: Final = ".png"


def explain(
    *,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture should show; - reads it from stdin.")],
    plain: Annotated[bool, typer.Option("--plain", help="Print a transcript on a terminal too, in place of the app.")] = False,
    every_step: Annotated[
        bool, typer.Option("--every-step", help="All steps of the loop in full, in place of the first and the last one.")
    ] = False,
    notes: Annotated[bool, typer.Option("--notes/--no-notes", help="Say of each line why it is there.")] = True,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE.png", help="Save the picture; without it none is.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write each line that ran as a line of JSON to stdout.")] = False,
    **given: str | bool | None,
) -> int:
    """Run the sampling function line by line, and say what each line makes and why it is there.

    On a terminal it opens in the app; else, or with --plain, it is printed. A process of its own does it, beside the worker;
    the picture is bit-identical to the pipeline's.

    Example: sdtui explain "a red cat in the desert" --steps 20 --seed 7 --plain
    """
    settings = settings_or_error()
    with problems_in_json(wanted=json):
        params = params_from(read_prompt(prompt), given, {"model": settings.general.model})
        params = with_model_path(params, allow_pickle=settings.worker.allow_pickle)
        path = _checked_output(output)
        params = with_initial_image(params, settings)  # last, as it may take long
    if not (plain or json or output) and sys.stdout.isatty() and sys.stdin.isatty():
        return _show_on_the_screen(params)
    try:
        asyncio.run(_explain(params, path, None if json else Transcript(every_step=every_step, notes=notes)))
    except ExplainerError as error:
        if json:
            result_json(as_json(_as_failed(error)))
        raise _command_error(error) from error
    return EXIT_DONE


def _with_parameter_options() -> None:
    """Put the options made from the parameters in the place of `given`, where Typer looks for them."""
    written = signature(explain, eval_str=True)
    own = [entry for entry in written.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    cast(Any, explain).__signature__ = written.replace(parameters=[own[0], *parameter_options(), *own[1:]])


_with_parameter_options()
app = typer.Typer(rich_markup_mode=None, add_completion=False)
app.command()(explain)


def _show_on_the_screen(params: GenerationParams) -> int:
    """The app at the Explain screen, until it is left."""
    from sdtui.cli.start import start_app

    return start_app(opening=lambda app: app.show_explain(params))


async def _explain(params: GenerationParams, path: Path | None, transcript: Transcript | None) -> None:
    """Run the function to its end, and print what it does as it goes; without a transcript as JSON. Raises `ExplainerError`."""
    explainer = Explainer(on_message=_Told().take)
    try:
        if transcript is not None and sys.stderr.isatty():
            note("Importing torch and loading the model takes a few seconds.")
        started = await explainer.request(StartExplaining(request=0, params=params))
        if transcript is None:
            result_json(as_json(started))
        else:
            _print(transcript.begin(started))
        async for line in _lines(explainer):
            if transcript is None:
                result_json(msgspec.json.encode({"type": "line_ran", **msgspec.structs.asdict(line)}))
            else:
                _print(transcript.line(line))
        if path is not None:
            saved = await explainer.request(SaveExplained(request=0, path=str(path)))
            if transcript is None:
                result_json(as_json(saved))
            else:
                _print(["", f"Saved {saved.path}"])
    finally:
        await explainer.close()


async def _lines(explainer: Explainer) -> AsyncIterator[LineRan]:
    """Every line that runs, as soon as it is told."""
    finished = False
    while not finished:
        ran = await explainer.request(Advance(request=0, to="end", pictures=False))
        finished = ran.finished
        for line in ran.lines:
            yield line


def _print(lines: list[str]) -> None:
    for line in lines:
        result(line)


class _Told:
    """Says now and then how far a model is that is fetched."""

    def __init__(self) -> None:
        self._last = 0.0

    def take(self, message: Message) -> None:
        """What the process tells besides its answers."""
        if isinstance(message, DownloadProgress) and time.monotonic() - self._last > _SAY_S:
            self._last = time.monotonic()
            of = f" of {format_bytes(message.total_bytes)}" if message.total_bytes else ""
            what = f"{safe_text(message.model, limit=120)}: {safe_text(message.file, limit=120)}"
            note(f"Fetching {what} {format_bytes(message.done_bytes)}{of}")


def _checked_output(given: str | None) -> Path | None:
    """The file for the picture, its directory made and tried before any work. Raises `CommandError`."""
    if given is None:
        return None
    path = Path(given).expanduser().absolute()
    try:
        str(path).encode()
        if path.suffix.lower() != _PNG:
            raise CommandError(f"--output: {safe_text(given, limit=200)!r} does not end in {_PNG}.", EXIT_BAD_INPUT)
        prepare_output(path.parent)
    except UnicodeEncodeError:
        raise CommandError(f"--output: the name {str(path)!r} is not UTF-8 text.", EXIT_BAD_INPUT) from None
    except OutputError as error:
        raise CommandError(f"--output: {error}", EXIT_BAD_INPUT) from error
    return path


def _as_failed(error: ExplainerError) -> ExplainingFailed:
    return ExplainingFailed(request=0, message=str(error), field=error.field, line=error.line, detail=error.detail)


def _command_error(error: ExplainerError) -> CommandError:
    """The error with the option that it is about; it is bad input where it is one of the parameters."""
    if error.field in BY_FIELD and error.line is None:
        return CommandError(f"{option_name(error.field)}: {error}", EXIT_BAD_INPUT, detail=error.detail)
    return CommandError(str(error), EXIT_FAILED, detail=error.detail)
