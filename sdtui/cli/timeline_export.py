"""`sdtui timeline --export`: the steps as a file; where the full VAE is to show them, the server has them decoded first."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sdtui.cli.connection import connected
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, CommandError, result
from sdtui.inspected import InspectedError
from sdtui.protocol import DecodeStep, Message, Refused, StepDecoded, StepNotDecoded
from sdtui.server.client import Client
from sdtui.settings import nearest
from sdtui.text import safe_text
from sdtui.trajectory import INITIAL, Trajectory

if TYPE_CHECKING:
    from sdtui.timeline.export import Export

Told = Callable[[int, int], None]
"""Takes how many are done, of how many."""
_OPTIONS: Final = {"hold_s": "hold", "include_initial": "initial", "target": "export"}
"""Options that are not called as the fields of `Export` are."""
_SIZE: Final = re.compile(r"(\d{1,9})[xX×](\d{1,9})")
_UNDER_WAY: Final = 2
"""Steps that the worker has been asked for at once: it never waits for us, and does little in vain when we leave."""


def write(trajectory: Trajectory, place: int, target: str, given: Mapping[str, Any]) -> int:
    """Write a file of a picture's steps as the options say, and print its path. Raises `CommandError` naming the option."""
    from sdtui.timeline.export import ExportError, check_export, export, missing_decodes  # numpy and Pillow come with it
    from sdtui.timeline.views import NotDecoded

    wanted, overwrite = _wanted(place, given), "overwrite" in given
    try:
        try:
            check_export(trajectory, wanted, target, overwrite=overwrite)
        except NotDecoded:
            with _progress("decoding") as told:
                asyncio.run(_decode(trajectory, wanted, missing_decodes(trajectory, wanted), told))
        with _progress("writing") as told:
            path = export(trajectory, wanted, target, overwrite=overwrite, progress=told)
    except ExportError as error:
        name = _OPTIONS.get(error.field, error.field)
        raise CommandError(f"--{name}: {error}" if name else str(error), EXIT_BAD_INPUT) from error
    except InspectedError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error
    result(str(path))
    return EXIT_DONE


def _wanted(place: int, given: Mapping[str, Any]) -> Export:
    from sdtui.timeline.export import Export
    from sdtui.timeline.views import VIEWS

    view = given.get("view", "denoised")
    if view not in VIEWS:
        raise CommandError(f"--view: {view!r} is not known; {nearest(view, list(VIEWS))}", EXIT_BAD_INPUT)
    if "channel" in given and view != "channel":
        raise CommandError("--channel: it is for --view channel.", EXIT_BAD_INPUT)
    names = {"fps": "fps", "hold": "hold_s", "every": "every", "caption": "caption", "initial": "include_initial"}
    values = {field: given[name] for name, field in names.items() if name in given}
    return Export(view=view, picture=place, channel=given.get("channel", 1) - 1, size=_size(given.get("size")), **values)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    read = _SIZE.fullmatch(text.strip())
    if read is None:
        raise CommandError(f"--size: {text!r} is no size; write width and height in pixels, as in 768x512.", EXIT_BAD_INPUT)
    return int(read[1]), int(read[2])


# --- decoding -------------------------------------------------------------------------------------------------------


async def _decode(trajectory: Trajectory, wanted: Export, steps: Sequence[int], told: Told) -> None:
    """Have these steps decoded by the full VAE. Raises `CommandError` where the server or the worker cannot."""
    facts = trajectory.facts
    waiting = [
        DecodeStep(
            job=facts.job, step_index=step, batch_index=facts.batch_index, picture=facts.first_picture + wanted.picture
        )
        for step in reversed(steps)
    ]  # fmt: skip
    asked: dict[int, DecodeStep] = {}
    told(0, len(steps))
    async with connected() as client:
        await _ask_for_more(client, waiting, asked)
        async for message in client.events():
            if _answered(message, asked):
                told(len(steps) - len(waiting) - len(asked), len(steps))
                await _ask_for_more(client, waiting, asked)
            if not asked:
                return
    raise CommandError("The server went away before all steps were decoded; see sdtui server log.")


async def _ask_for_more(client: Client, waiting: list[DecodeStep], asked: dict[int, DecodeStep]) -> None:
    while waiting and len(asked) < _UNDER_WAY:
        command = waiting.pop()
        asked[command.step_index] = command
        await client.send(command)


def _answered(message: Message, asked: dict[int, DecodeStep]) -> bool:
    """Whether a step that was asked for is decoded now. Raises `CommandError` where it is not, and never will be."""
    match message:
        case Refused():
            raise CommandError(message.message, EXIT_BAD_INPUT)
        case StepDecoded() | StepNotDecoded():
            command = asked.get(message.step_index)
            if command is None or _place(command) != _place(message):
                return False
            del asked[message.step_index]
            if isinstance(message, StepNotDecoded):
                step = f"Step {message.step_index + 1}" if message.step_index != INITIAL else "What the job began with"
                raise CommandError(f"{step} is not decoded: {safe_text(message.message, limit=400)}", EXIT_FAILED)
            return True
    return False


def _place(message: DecodeStep | StepDecoded | StepNotDecoded) -> tuple[str, int, int]:
    return message.job, message.batch_index, message.picture


# --- progress -------------------------------------------------------------------------------------------------------


@contextmanager
def _progress(what: str) -> Iterator[Told]:
    """A bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, expand=True, redirect_stdout=False) as bar:
        task = bar.add_task(f"{what} the steps", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
