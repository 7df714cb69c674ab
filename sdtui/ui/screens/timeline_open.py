"""Which job the Timeline screen shows: opening its file, reading on while that grows, and what is said where it is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sdtui.inspected import InspectedError
from sdtui.protocol import WAITING
from sdtui.settings import SettingsError, load_settings, tapes_dir
from sdtui.tape import TapeError, job_directory
from sdtui.text import safe_text
from sdtui.trajectory import trajectories_of
from sdtui.ui.screens.create_jobs import short_name
from sdtui.ui.timeline_jobs import recorded_jobs
from sdtui.ui.timeline_record import Record, open_record
from sdtui.ui.widgets.pages.beside import run_beside

if TYPE_CHECKING:
    from sdtui.timeline.views import Figures
    from sdtui.ui.screens.timeline import TimelineScreen

_TRY_AGAIN_S: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""A step is told of a moment before a thread of the worker has written it."""
_MEASURE_S: Final = 0.1
"""Curves of a job that runs are drawn anew so often at most."""
_FAULTS: Final = (InspectedError, TapeError, OSError, ValueError)


class Growth(msgspec.Struct):
    """What is known to come in a file that grows."""

    followed: str | None = None
    """The job that Create followed when that was last told."""
    batch_index: int = 0
    steps: int = 0
    """Of that batch so many steps were told of."""
    follow: bool = True
    """Whether a step that comes is gone to: whether the last one was shown when the user last went anywhere."""
    shown: tuple[Record, int, int] | None = None
    """What is shown of the file: its first step, and how many there are."""
    is_wanted: bool = False
    """Whether somebody asked to read on since reading on began."""
    is_reading: bool = False


# --- opening --------------------------------------------------------------------------------------------------------


def follow(screen: TimelineScreen, job: str | None, *, at_work: bool) -> None:
    """Show the job that Create follows, where it is another than the last time; else what was shown, else the newest."""
    if job is not None and job != screen.growth.followed:
        screen.growth.followed = job
        _begin(screen, partial(_follow, screen, job, at_work=at_work))
    elif screen.job is None:
        _begin(screen, partial(_open_newest, screen))


async def _follow(screen: TimelineScreen, job: str, *, at_work: bool) -> None:
    if at_work or await asyncio.to_thread(_has_steps, job):
        await _open(screen, job)
    elif screen.job is None:
        await _open_newest(screen)


def _has_steps(job: str) -> bool:
    try:
        return bool(trajectories_of(job_directory(tapes_dir(), job)))
    except TapeError:
        return False


async def _open_newest(screen: TimelineScreen) -> None:
    jobs = await asyncio.to_thread(recorded_jobs, tapes_dir())
    if jobs:
        await _open(screen, jobs[0])
    elif not await asyncio.to_thread(_records):
        screen.show_nothing("No steps are recorded: worker.tape is off in the settings.")


def open_job(screen: TimelineScreen, job: str, *, step: int | None = None) -> None:
    """Show a job."""
    if job != screen.job:
        screen.growth.batch_index = screen.growth.steps = 0
    screen.job = job
    _begin(screen, partial(_open, screen, job, step=step))


def turn_picture(screen: TimelineScreen, by: int) -> None:
    """The next picture of the file, behind its last one the first of the next file; the step stays."""
    opened = screen.opened
    if opened is None:
        return
    number, picture = opened.number, opened.record.picture + by
    if not 0 <= picture < len(opened.record.facts.seeds):
        number, picture = (number + by) % opened.files, 0 if by > 0 else -1
    _begin(screen, partial(_open, screen, opened.record.job, step=screen.step, number=number, picture=picture))


def turn_job(screen: TimelineScreen, by: int) -> None:
    """An older job, or a newer one."""
    _begin(screen, partial(_turn_job, screen, by))


async def _turn_job(screen: TimelineScreen, by: int) -> None:
    jobs = await asyncio.to_thread(recorded_jobs, tapes_dir())
    at = jobs.index(screen.job) + by if screen.job in jobs else 0
    if 0 <= at < len(jobs):
        await _open(screen, jobs[at])
    else:
        screen.show_notice(f"There is no {'older' if by > 0 else 'newer'} job with recorded steps.")


def compare(screen: TimelineScreen, job: str) -> None:
    """Show a job beside the one that is shown."""

    async def show() -> None:
        try:
            directory = job_directory(tapes_dir(), job)
            picture = screen.record.picture if screen.record is not None else 0
            opened = await asyncio.to_thread(open_record, directory, 0, 0)
            if 0 < picture < len(opened.record.facts.seeds):
                opened = await asyncio.to_thread(open_record, directory, 0, picture)
        except _FAULTS as error:
            screen.show_notice(f"Not compared: {safe_text(str(error), limit=400)}", "warning")
            return
        screen.take_other(opened.record)

    _begin(screen, show)


def _begin(screen: TimelineScreen, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Only the last of what is begun is done."""
    run_beside(screen, work, "open", exclusive=True)


async def _open(
    screen: TimelineScreen, job: str, *, step: int | None = None, number: int | None = None, picture: int = 0
) -> None:
    screen.job = job
    screen.jobs.ask(screen, job)
    at_work = job == screen.running
    try:
        directory = job_directory(tapes_dir(), job)
        opened = await asyncio.to_thread(open_record, directory, (-1 if at_work else 0) if number is None else number, picture)
    except _FAULTS as error:
        sentence = await _why(screen, job, safe_text(str(error), limit=600))
        if screen.job == job:
            screen.show_nothing(sentence)
        return
    if screen.job == job:  # no other one is wanted by now
        screen.take(opened, step)


async def _why(screen: TimelineScreen, job: str, error: str) -> str:
    """Why a job has no steps to show."""
    row = screen.jobs.rows.get(job)
    if job == screen.running or (row is not None and row.state in (*WAITING, "running", "paused")):
        if not await asyncio.to_thread(_has_steps, job):
            return f"Job {short_name(job)} has no recorded step yet. They appear here as it runs."
    elif not await asyncio.to_thread(_records):
        return f"The steps of job {short_name(job)} are not recorded: worker.tape is off in the settings."
    return error


def _records() -> bool:
    try:
        return load_settings().worker.tape
    except SettingsError:
        return True


# --- growing --------------------------------------------------------------------------------------------------------


def resumed(screen: TimelineScreen) -> None:
    """The screen is shown again."""
    if screen.record is not None:
        look_again(screen)


def grow(screen: TimelineScreen, batch_index: int, steps: int) -> None:
    """A step of the shown job was told of."""
    screen.growth.batch_index, screen.growth.steps = batch_index, steps
    look_again(screen)


def look_again(screen: TimelineScreen) -> None:
    """There may be more in the file, another file, or none any more."""
    screen.growth.is_wanted = True
    if not screen.growth.is_reading:
        screen.growth.is_reading = True
        run_beside(screen, partial(_grow, screen), "grow")


async def _grow(screen: TimelineScreen) -> None:
    """Read on until what was told of is there, or did not come for seconds."""
    growth = screen.growth
    rests: Iterator[float] = iter(())
    try:
        while True:
            if growth.is_wanted:
                growth.is_wanted, rests = False, iter(_TRY_AGAIN_S)
            more = await _read_on(screen)
            rest_s = next(rests, None)
            if not growth.is_wanted and (not more or rest_s is None):
                return
            if not growth.is_wanted:
                await asyncio.sleep(rest_s or 0.0)
    finally:
        growth.is_reading = False


async def _read_on(screen: TimelineScreen) -> bool:
    """Whether there is more to come."""
    job, opened, growth = screen.job, screen.opened, screen.growth
    if job is None:
        return False
    if opened is None or opened.record.job != job:
        if opened is None and await asyncio.to_thread(_has_steps, job):
            await _open(screen, job)
        return (screen.record is None or screen.record.job != job) and job == screen.running
    record = opened.record
    try:
        await asyncio.to_thread(record.refresh)
    except _FAULTS as error:
        if screen.record is record:
            await _lost(screen, record, safe_text(str(error), limit=600))
        return False
    if screen.record is not record:
        return False
    if growth.shown != shown_of(record):
        _show_growth(screen, record)
    if record.facts.batch_index < growth.batch_index and growth.follow:
        await _open(screen, job, number=-1)  # the next batch is begun
        return screen.record is record
    return record.facts.batch_index == growth.batch_index and record.count < growth.steps


def shown_of(record: Record) -> tuple[Record, int, int]:
    """What can be shown of a file now."""
    return record, record.first, record.count


def _show_growth(screen: TimelineScreen, record: Record) -> None:
    screen.growth.shown = shown_of(record)
    if screen.growth.follow:
        screen.step = record.last
    screen.show_step()
    screen.measure()
    screen.refresh_bindings()


def grow_other(screen: TimelineScreen) -> None:
    """A step of the job that is compared was told of."""
    run_beside(screen, partial(_grow_other, screen), "grow-other")


async def _grow_other(screen: TimelineScreen) -> None:
    other = screen.other
    if other is None:
        return
    with suppress(*_FAULTS):  # its picture says why
        await asyncio.to_thread(other.refresh)
    if screen.other is other:
        screen.show_step()
        screen.measure()


async def _lost(screen: TimelineScreen, record: Record, reason: str) -> None:
    """The file is gone, or was begun anew."""
    if await asyncio.to_thread(record.path.exists):
        await _open(screen, record.job)
    else:
        where = safe_text(str(record.path), limit=300)
        screen.show_nothing(f"The steps of job {short_name(record.job)} were removed: {where} is not there any more.")
        screen.show_notice(reason if "were removed" not in reason else "")


# --- measuring ------------------------------------------------------------------------------------------------------


async def measure(screen: TimelineScreen, known: dict[Record, Figures]) -> None:
    """Measure what is in view until its figures are known, and have them shown; `known` keeps them."""
    unreadable: set[Record] = set()
    while True:
        records = [side.record for side in screen.sides() if side.record not in unreadable]
        todo = [record for record in records if record not in known or len(known[record].step) < record.count]
        for record in [record for record in known if record not in records]:
            known.pop(record)
        if not todo:
            screen.show_figures()
            return
        try:
            known[todo[0]] = await asyncio.to_thread(todo[0].measure)
        except _FAULTS:
            unreadable.add(todo[0])  # its picture says why
        screen.show_figures()
        await asyncio.sleep(_MEASURE_S)
