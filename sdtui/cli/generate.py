"""`sdtui generate`: a prompt in, the paths of pictures out."""

from __future__ import annotations

from inspect import signature
from typing import Annotated, Any, cast

import typer

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
from sdtui.cli.start import settings_or_error
from sdtui.cli.submitting import (
    DetachOption,
    JsonOption,
    NamePatternOption,
    OutputOption,
    PreviewOption,
    VerboseOption,
    checked_output,
    checked_pattern,
    preview_of,
    submit_and_leave,
    submit_and_show,
)
from sdtui.protocol import InspectMode, Submit, new_job_id


def generate(
    *,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture should show; - reads it from stdin.")],
    output: OutputOption = None,
    name_pattern: NamePatternOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
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
    preview: PreviewOption = None,
    priority: Annotated[
        int, typer.Option(metavar="N", min=MIN_PRIORITY, max=MAX_PRIORITY, help="Jobs of a higher one run first; -100 to 100.")
    ] = 0,
    detach: DetachOption = False,
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
        output_path = checked_output(output, settings)
        pattern = checked_pattern(name_pattern, settings)
        params = with_initial_image(params, settings)  # last, as it may take long
    submit = Submit(
        job=new_job_id(),
        params=params,
        output_dir=str(output_path),
        name_pattern=pattern,
        priority=priority,
        inspect=inspect,
        words=words,
        preview=preview_of(settings),
    )
    if detach:
        return submit_and_leave(submit, json=json)
    return submit_and_show(submit, settings, json=json, verbose=verbose or inspect != "off", preview=preview)


def _with_parameter_options() -> None:
    """Put the options made from the parameters in the place of `given`, where Typer looks for them."""
    written = signature(generate, eval_str=True)
    own = [entry for entry in written.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    cast(Any, generate).__signature__ = written.replace(parameters=[own[0], *parameter_options(), *own[1:]])


_with_parameter_options()
app = typer.Typer(rich_markup_mode=None, add_completion=False)
app.command()(generate)
