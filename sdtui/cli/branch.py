"""`sdtui branch JOB`: a job that takes over another one's steps up to one, and goes its own way from there."""

from __future__ import annotations

import asyncio
from inspect import signature
from typing import Annotated, Any, Final, cast

import msgspec
import typer

from sdtui.cli.connection import ask, connected
from sdtui.cli.job_names import find_recorded, recorded_picture
from sdtui.cli.options import BadParams, edited_params, parameter_options, problems_in_json, read_prompt
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
from sdtui.params import GenerationParams
from sdtui.protocol import BranchPoint, GetJob, JobChanged, Submit, new_job_id
from sdtui.text import count_noun
from sdtui.trajectory import Trajectory

CHANGEABLE: Final = frozenset(
    {"negative_prompt", "guidance_scale", "scheduler", "sigmas", "num_inference_steps", "seed", "clip_skip"}
)
"""Parameters besides the prompt that may be others from a step on; all else decides the steps that are taken over."""


def branch(
    *,
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            help="The job to go on from: its name, the beginning of it, or `last`, the one made last.",
            show_default=False,
        ),
    ],
    step: Annotated[int, typer.Option(metavar="K", help="How many of its steps are taken over, 1 or more.", show_default=False)],
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Which of its batches, counted from 1.")] = 1,
    picture: Annotated[int, typer.Option(metavar="N", min=1, help="Which picture of that batch, counted from 1.")] = 1,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the picture should show; - reads it from stdin.", show_default=False)
    ] = None,
    output: OutputOption = None,
    name_pattern: NamePatternOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    preview: PreviewOption = None,
    detach: DetachOption = False,
    **given: str | bool | None,
) -> int:
    """Go on from a step of a job with other parameters; what is not named stays as it was there.

    A branch that changes nothing makes the same picture again, bit for bit where its batch was of one picture. Another seed
    changes only the noise that the scheduler draws from there on. Another scheduler, or another number of steps, goes on
    from the nearest noise level.

    Example: sdtui branch last --step 8 --prompt "a blue cat"
    """
    settings = settings_or_error()
    directory = find_recorded(job)
    point = BranchPoint(job=directory.name, step=step, batch_index=batch - 1, picture=picture - 1)
    with problems_in_json(wanted=json):
        trajectory, place = recorded_picture(directory, batch, picture)
        _check_step(trajectory, step)
        params = asyncio.run(_params_of(directory.name))
        same = msgspec.structs.replace(params, batch_count=1, batch_size=1, seed=trajectory.facts.seeds[place])
        params = edited_params(same, None if prompt is None else read_prompt(prompt), given)
        output_path, pattern = checked_output(output, settings), checked_pattern(name_pattern, settings)
    submit = Submit(
        job=new_job_id(),
        params=params,
        output_dir=str(output_path),
        name_pattern=pattern,
        preview=preview_of(settings),
        branch=point,
    )
    if detach:
        return submit_and_leave(submit, json=json)
    return submit_and_show(submit, settings, json=json, verbose=verbose, preview=preview)


def _check_step(trajectory: Trajectory, step: int) -> None:
    """Raises `BadParams` for a step that nothing can go on from: at least one must be left to make anew."""
    recorded = len(trajectory.steps)
    if not 1 <= step < recorded:
        room = f"--step is from 1 to {recorded - 1}" if recorded > 1 else "that is too few to branch from"
        name = trajectory.facts.job
        raise BadParams(f"--step: it is {step}; {count_noun(recorded, 'step')} of job {name} are recorded, so {room}.", "branch")


async def _params_of(job: str) -> GenerationParams:
    """A job's parameters, with sizes, seed and scheduler filled in. Raises `CommandError`."""
    async with connected() as client:
        return (await ask(client, GetJob(job=job), JobChanged, job=job)).row.params


def _with_parameter_options() -> None:
    """Put the options of the parameters that may change in the place of `given`, where Typer looks for them."""
    written = signature(branch, eval_str=True)
    own = [entry for entry in written.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    options = parameter_options(without_defaults=CHANGEABLE)
    cast(Any, branch).__signature__ = written.replace(parameters=[*own[:5], *options, *own[5:]])


_with_parameter_options()
app = typer.Typer(rich_markup_mode=None, add_completion=False)
app.command()(branch)
