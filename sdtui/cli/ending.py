"""How a followed job is shown to its end, and what its end means for the command."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sdtui.cli.options import option_name
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED, CommandError, note, result_json
from sdtui.params import BY_FIELD
from sdtui.protocol import JobCancelled, JobFailed, JobFinished, Refused, as_json
from sdtui.text import count_noun, format_seconds

if TYPE_CHECKING:
    from sdtui.cli.follow import End, Follower
    from sdtui.cli.screen import Screen


def show_to_the_end(follower: Follower, screen: Screen, job: str) -> int:
    """Follow a job on the screen; the command's exit code. Raises `CommandError` for a failure."""
    end: End | None = None
    try:
        end = asyncio.run(follower.run())
    except asyncio.CancelledError:
        note(f"Left; job {job} goes on unless it was cancelled. See it again: sdtui attach {job}")
        return EXIT_CANCELLED
    except BrokenPipeError:
        note(f"Whoever read the output has left; job {job} goes on. See it again: sdtui attach {job}")
        raise
    finally:
        screen.close(end)
    return finish(end, json=screen.json)


def finish(end: End, *, json: bool) -> int:
    """Say how it ended; the exit code. Raises `CommandError` for a failure."""
    match end:
        case JobFinished():
            return EXIT_DONE
        case JobCancelled():
            for sentence in said_of_cancelled(end):
                note(sentence)
            return EXIT_CANCELLED
        case Refused():
            if json:
                result_json(as_json(end))
            raise CommandError(_with_option(end.field, end.message), EXIT_BAD_INPUT)
        case JobFailed():
            code = EXIT_BAD_INPUT if end.field in BY_FIELD else EXIT_FAILED
            raise CommandError(_with_option(end.field, end.message), code, detail=end.detail)


def said_of_cancelled(end: JobCancelled) -> list[str]:
    """What became of a cancelled job, in sentences."""
    said = [f"Cancelled; stopped in {format_seconds(end.latency_s)}." if end.latency_s else "Cancelled before it had begun."]
    if end.detail:
        said.append(end.detail)
    if end.images:
        said.append(f"{count_noun(len(end.images), 'picture')} had been finished before.")
    if end.kept_steps:
        said.append(f"{count_noun(end.kept_steps, 'step')} are kept: sdtui queue retry {end.job} goes on from there.")
    return said


def _with_option(field: str | None, message: str) -> str:
    return f"{option_name(field)}: {message}" if field not in (None, "", "job", "branch") else message
