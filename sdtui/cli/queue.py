"""`sdtui queue`: what is done to jobs that are there already."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, cast

import typer

from sdtui.cli.connection import ask, connected
from sdtui.cli.ending import said_of_cancelled
from sdtui.cli.initial import with_initial_image
from sdtui.cli.jobs import show_jobs
from sdtui.cli.options import MAX_PRIORITY, MIN_PRIORITY, edited_params, parameter_options, problems_in_json, read_prompt
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, CommandError, complain, note, result, result_json
from sdtui.cli.rows import state_of, summary
from sdtui.cli.start import settings_or_error
from sdtui.protocol import (
    Cancel,
    CancelWaiting,
    Delete,
    DeleteEnded,
    Duplicate,
    Edit,
    EndedDeleted,
    GetJob,
    Hold,
    JobCancelled,
    JobChanged,
    JobDeleted,
    JobFailed,
    JobFinished,
    JobPaused,
    Message,
    Move,
    Pause,
    QueueChanged,
    Resume,
    Retry,
    SetPriority,
    WaitingCancelled,
    as_json,
    new_job_id,
)
from sdtui.settings import nearest
from sdtui.text import count_noun, format_seconds

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    invoke_without_command=True,
    help="Show the queue, or change it. sdtui jobs lists the names of jobs.",
    epilog="Example: sdtui queue pause 20260101-120000-abcd",
)
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PLACES: Final = ("first", "up", "down", "last")
_WHEN: Final = ("now", "after-image", "after-step")
_ENDS: Final = (JobFinished, JobFailed, JobCancelled)
Job = Annotated[str, typer.Argument(metavar="JOB", help="A job's name.", show_default=False)]
SomeJobs = Annotated[list[str], typer.Argument(metavar="JOB...", help="Names of jobs.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="The server's answer as a JSON object.")]


@app.callback()
def show_by_default(context: typer.Context) -> int | None:
    """Show the queue, or change it. sdtui jobs lists the names of jobs."""
    return show() if context.invoked_subcommand is None else None


@app.command("list", short_help="List the queue.")
def show(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many jobs to list at most.")] = 100,
) -> int:
    """List what runs, waits and is paused; the same as sdtui jobs --queue."""
    return show_jobs("queue", limit, json=json)


@app.command(short_help="Take jobs off the device, or out of the queue.")
def pause(jobs: SomeJobs, json: AsJson = False) -> int:
    """Take jobs out of the queue, or off the device at the end of the step, until they are resumed. Steps are kept."""
    return _each(jobs, lambda job: _change(Pause(job=job), job, JobPaused, JobChanged, *_ENDS, patient=True), json=json)


@app.command(short_help="Put paused jobs back.")
def resume(jobs: SomeJobs, json: AsJson = False) -> int:
    """Put paused jobs back, before the others of their priority."""
    return _each(jobs, lambda job: _change(Resume(job=job), job, JobChanged), json=json)


@app.command(short_help="Cancel jobs, waiting or running.")
def cancel(
    jobs: SomeJobs,
    when: Annotated[
        str, typer.Option(metavar="WHEN", help="now; after-image: finish the pictures in work; after-step: keep the steps.")
    ] = "now",
    json: AsJson = False,
) -> int:
    """Cancel jobs, waiting or running.

    Example: sdtui queue cancel 20260101-120000-abcd --when after-image
    """
    if when not in _WHEN:
        raise CommandError(f"--when: {when!r} is not known; {nearest(when, _WHEN)}", EXIT_BAD_INPUT)
    at = cast(Literal["now", "after_image", "after_step"], when.replace("-", "_"))
    return _each(jobs, lambda job: _change(Cancel(job=job, when=at), job, *_ENDS, patient=True), json=json)


@app.command(short_help="Queue failed or cancelled jobs again.")
def retry(jobs: SomeJobs, json: AsJson = False) -> int:
    """Queue failed or cancelled jobs again; steps and pictures they have are not made again."""
    return _each(jobs, lambda job: _change(Retry(job=job), job, JobChanged), json=json)


@app.command(short_help="Queue a copy of a job.")
def duplicate(
    job: Job,
    new_seed: Annotated[bool, typer.Option("--new-seed", help="Draw another seed instead of the one that was used.")] = False,
    json: AsJson = False,
) -> int:
    """Queue a copy of a job, and print its name."""
    name = new_job_id()
    answer = _change(Duplicate(job=job, new_job=name, same_seed=not new_seed), name, JobChanged)
    result_json(as_json(answer)) if json else result(name)
    return EXIT_DONE


@app.command(context_settings={"ignore_unknown_options": True}, short_help="Give a job another priority.")
def priority(
    job: Job,
    number: Annotated[
        int, typer.Argument(metavar="N", min=MIN_PRIORITY, max=MAX_PRIORITY, help="Higher ones run first; -100 to 100.")
    ],
    json: AsJson = False,
) -> int:
    """Give a job another priority; it goes behind the others of that priority."""
    return _tell(_change(SetPriority(job=job, priority=number), job, JobChanged), json=json)


@app.command(short_help="Move a waiting job.")
def move(
    job: Job,
    to: Annotated[str, typer.Argument(metavar="WHERE", help="first, up, down or last.", show_default=False)],
    json: AsJson = False,
) -> int:
    """Move a waiting job in the queue.

    Example: sdtui queue move 20260101-120000-abcd first
    """
    if to not in _PLACES:
        raise CommandError(f"WHERE: {to!r} is not known; {nearest(to, _PLACES)}", EXIT_BAD_INPUT)
    place = cast(Literal["first", "up", "down", "last"], to)
    return _tell(_change(Move(job=job, to=place), job, JobChanged), json=json)


@app.command(short_help="Begin no further job.")
def hold(json: AsJson = False) -> int:
    """Begin no further job until sdtui queue go-on; the running one is not touched."""
    return _tell(_change(Hold(on=True), None, QueueChanged), json=json)


@app.command("go-on", short_help="Let a held queue go on.")
def go_on(json: AsJson = False) -> int:
    """Let a held queue go on."""
    return _tell(_change(Hold(on=False), None, QueueChanged), json=json)


@app.command(short_help="Forget ended jobs.")
def delete(jobs: SomeJobs, json: AsJson = False) -> int:
    """Forget ended jobs: their records and recorded steps. Their pictures stay."""
    return _each(jobs, lambda job: _change(Delete(job=job), job, JobDeleted), json=json)


@app.command(short_help="Forget every ended job.")
def clear(
    older_than: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Only jobs that ended longer ago, such as 90s, 30m, 12h, 7d or 4w.", show_default=False
        ),
    ] = "0s",
    json: AsJson = False,
) -> int:
    """Forget every job that has ended; their pictures stay.

    Example: sdtui queue clear --older-than 7d
    """
    return _tell(_change(DeleteEnded(older_than_s=_seconds(older_than)), None, EndedDeleted), json=json)


@app.command("cancel-all", short_help="Cancel every waiting job.")
def cancel_all(json: AsJson = False) -> int:
    """Cancel every job that waits; the running one and paused ones stay."""
    return _tell(_change(CancelWaiting(), None, WaitingCancelled), json=json)


def edit(
    *,
    job: Job,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the picture should show; - reads it from stdin.", show_default=False)
    ] = None,
    json: AsJson = False,
    **given: str | bool | None,
) -> int:
    """Change the parameters of a job that has not begun; what is not named stays. --init "" takes the initial image away.

    Example: sdtui queue edit 20260101-120000-abcd --prompt "a blue cat" --steps 30
    """
    if prompt is None and all(value is None for value in given.values()):
        raise CommandError("Nothing to change was named; see sdtui queue edit --help", EXIT_BAD_INPUT)
    settings = settings_or_error()
    row = cast(JobChanged, _change(GetJob(job=job), job, JobChanged)).row
    words = None if prompt is None else read_prompt(prompt)
    with problems_in_json(wanted=json):
        params = edited_params(row.params, words, given, allow_pickle=settings.worker.allow_pickle)
        if params.init_image != row.params.init_image:
            params = with_initial_image(params, settings)
    return _tell(_change(Edit(job=job, params=params), job, JobChanged), json=json)


def _with_parameter_options() -> None:
    """Put the options made from the parameters in the place of `given`, where Typer looks for them."""
    signature = inspect.signature(edit, eval_str=True)
    own = [entry for entry in signature.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    cast(Any, edit).__signature__ = signature.replace(parameters=[*own[:2], *parameter_options(), *own[2:]])


_with_parameter_options()
app.command(short_help="Change a job that has not begun.")(edit)


def _seconds(text: str) -> float:
    """A time such as `7d`. Raises `CommandError`."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw]?)", text.strip(), re.ASCII)
    if found is None:
        raise CommandError(f"--older-than: {text!r} is no time; write 90s, 30m, 12h, 7d or 4w.", EXIT_BAD_INPUT)
    return float(found[1]) * _UNITS[found[2] or "s"]


def _each(jobs: Sequence[str], change: Callable[[str], Message], *, json: bool) -> int:
    """Do it to each job, whatever is wrong with another one; the exit code of the last that went wrong."""
    code = EXIT_DONE
    for job in dict.fromkeys(jobs):
        try:
            code = _tell(change(job), json=json) or code
        except CommandError as error:
            complain(str(error))
            code = error.code
    return code


def _change(command: Message, job: str | None, *wanted: type[Message], patient: bool = False) -> Message:
    """Send one command and return its answer; `patient` ones take effect at the end of a step. Raises `CommandError`."""
    return asyncio.run(_ask(command, job, wanted, patient=patient))


async def _ask(command: Message, job: str | None, wanted: tuple[type[Message], ...], *, patient: bool) -> Message:
    async with connected(subscribe=patient) as client:
        if not patient:
            return await ask(client, command, *wanted, job=job)
        asyncio.get_running_loop().call_later(2.0, note, "Waiting for the worker; Ctrl-C leaves, and what was asked stays asked.")
        return await ask(client, command, *wanted, job=job, patience_s=None)


def _tell(answer: Message, *, json: bool) -> int:
    """Say what became of it; the exit code."""
    if json:
        result_json(as_json(answer))
    for sentence in _sentences(answer) if not json else []:
        note(sentence)
    return EXIT_FAILED if isinstance(answer, JobFinished | JobFailed) else EXIT_DONE


def _sentences(answer: Message) -> list[str]:
    match answer:
        case JobChanged():
            before = "" if answer.position is None else f", {count_noun(answer.position, 'job')} before it"
            level = f", priority {answer.row.priority}" if answer.row.priority else ""
            return [f"Job {answer.job} is {state_of(answer.row)}{level}{before}."]
        case JobPaused():
            took = f" within {format_seconds(answer.latency_s)}" if answer.latency_s else ""
            return [f"Job {answer.job} is paused{took}, {count_noun(answer.steps_done, 'step')} kept."]
        case JobCancelled():
            return [f"Job {answer.job}: {' '.join(said_of_cancelled(answer))}"]
        case JobFinished() | JobFailed():
            return [f"Job {answer.job} had ended before that: {'done' if isinstance(answer, JobFinished) else answer.message}."]
        case JobDeleted():
            return [f"Job {answer.job} is forgotten; its pictures stay."]
        case EndedDeleted():
            return [f"{count_noun(answer.count, 'job')} forgotten; their pictures stay."]
        case WaitingCancelled():
            return [f"{count_noun(answer.count, 'job')} cancelled."]
        case QueueChanged():
            return [f"{summary(answer).capitalize()}."]
        case _:
            return []
