"""Which job the Create screen shows, and what it does with it: taking up what was missed, opening, editing, stopping."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from sdtui.params import BY_FIELD, GenerationParams
from sdtui.protocol import (
    ENDED,
    JOB_ENDS,
    Cancel,
    CancelWhen,
    Edit,
    GetJob,
    JobChanged,
    JobFailed,
    JobFinished,
    JobRow,
    Message,
    Pause,
    Replay,
    Resume,
    Welcome,
)
from sdtui.text import count_noun, safe_text
from sdtui.ui.widgets.form import value_text

if TYPE_CHECKING:
    from sdtui.ui.screens.create import CreateScreen

CANCEL_WAYS: Final[tuple[tuple[CancelWhen, str], ...]] = (
    ("now", "Now: within the step; its steps are not kept"),
    ("after_image", "After this picture: it is finished and saved"),
    ("after_step", "After this step: a retry goes on from there"),
)
PAUSED: Final = "Paused. F6 goes on."
_MARK: Final = 4
"""Characters of a job's name that tell it from others at a glance: the random ones at its end."""


class Edited(msgspec.Struct):
    """The job that is being edited, and what the user had written before."""

    job: str
    prompt: str
    negative: str
    form: dict[str, str]
    sent: GenerationParams | None = None
    """What the server was asked to take."""


def short_name(job: str) -> str:
    """A job's name where there is little room."""
    return safe_text(job.rpartition("-")[2] or job, limit=12) if len(job) > _MARK else safe_text(job)


# --- what was missed ------------------------------------------------------------------------------------------------


def take_up(screen: CreateScreen, welcome: Welcome) -> None:
    """There is a connection again: go on with what was followed, else with what runs, and look for what ended unseen."""
    following = screen.following
    running = next((row.job for row in welcome.jobs if row.state in ("running", "interrupted")), None)
    screen.running = running  # what was cut short goes on first
    if following.job is not None and (following.can_cancel or following.pinned):
        follow_record(screen, following.job, pinned=following.pinned)
    elif running is not None:
        follow_record(screen, running)
    screen.run_worker(_find_own(screen), group="own", exclusive=True, exit_on_error=False)


def follow_record(screen: CreateScreen, job: str, *, pinned: bool = False) -> None:
    """Show a job from its record on, then live."""
    screen.following.follow(job, from_record=True, pinned=pinned)
    screen.begin_following(job)
    screen.send(Replay(job=job))


def record_shown(screen: CreateScreen, job: str) -> None:
    """All that is recorded of a job was told. If it ended while there was no connection, what runs now comes next."""
    following = screen.following
    if job != following.job:
        return
    following.record_told()
    running = screen.running
    if running is not None and running != job and following.over and not following.pinned and job not in following.own:
        follow_record(screen, running)
    elif not following.over and not following.started:
        screen.progress.wait_for("queued")


async def _find_own(screen: CreateScreen) -> None:
    """Ask what became of jobs whose UI went before they ended."""
    if not screen.looked_for_own:
        screen.looked_for_own = True
        screen.left_behind = set(await asyncio.to_thread(screen.own_jobs.adopt))
        screen.following.own |= screen.left_behind
    if screen.left_behind:
        screen.send(*(GetJob(job=job) for job in sorted(screen.left_behind)))


def take_left_behind(screen: CreateScreen, job: str, row: JobRow | None) -> bool:
    """One of those jobs was found, or is not known any more; whether it was one of those."""
    if job not in screen.left_behind:
        return False
    screen.left_behind.discard(job)
    if row is None or row.state in ENDED:
        screen.own_jobs.ended(job)
    if row is not None and row.state in ENDED:
        screen.missed.append(row)
    if not screen.left_behind and screen.missed:
        _show_missed(screen)
    return True


def _show_missed(screen: CreateScreen) -> None:
    missed = sorted(screen.missed, key=lambda row: row.finished_at or 0.0)
    screen.missed.clear()
    states = [f"{sum(row.state == state for row in missed)} {state}" for state in ENDED if any(r.state == state for r in missed)]
    text = f"{count_noun(len(missed), 'job')} ended while sdtui was away: {', '.join(states)}."
    screen.notify(text, title="Meanwhile", timeout=10, markup=False)
    if screen.following.job is None:
        follow_record(screen, missed[-1].job)


def own_ended(screen: CreateScreen, event: Message, *, replayed: bool) -> None:
    """A job of ours has ended: it needs not be found again, and is announced if it took long and ended just now."""
    job = getattr(event, "job", None)
    if not isinstance(event, JOB_ENDS) or job not in screen.following.own:
        return
    screen.own_jobs.ended(event.job)
    if replayed:
        return
    took_s = event.elapsed_s if isinstance(event, JobFinished) else screen.seconds_since_start(event.job)
    terminal = screen.settings.terminal
    if took_s is None or took_s < terminal.notify_after_s:
        return
    if isinstance(event, JobFailed):
        screen.announce(f"failed: {event.message}")
    elif isinstance(event, JobFinished):
        screen.announce(f"{count_noun(len(event.images), 'picture')} done")


# --- what the user does with it -------------------------------------------------------------------------------------


def open_job(screen: CreateScreen, row: JobRow) -> None:
    """Show this job; it stays until another is submitted or opened. The one that runs is followed as usual."""
    screen.picture.clear(words="No picture yet." if row.state not in ENDED else "No picture of this job.")
    follow_record(screen, row.job, pinned=row.state != "running")


def pause_or_resume(screen: CreateScreen) -> None:
    """Take the followed job off the device, or put it back."""
    job = screen.following.job
    if job is None:
        return
    if screen.following.paused:
        screen.send(Resume(job=job))
        screen.progress.wait_for("resuming")
    else:
        screen.send(Pause(job=job))
        screen.progress.wait_for("pausing, at the end of this step" if screen.following.at_work else "pausing")


def cancel_way(name: str) -> CancelWhen:
    """The way with this name, as a chooser returns it."""
    return next(when for when, _ in CANCEL_WAYS if when == name)


def cancel(screen: CreateScreen, when: CancelWhen) -> None:
    """Stop the followed job."""
    if screen.following.job is not None:
        screen.send(Cancel(job=screen.following.job, when=when))
        after = {"now": "", "after_image": ", after this picture", "after_step": ", after this step"}[when]
        screen.progress.wait_for(f"cancelling{after}")


def followed_changed(screen: CreateScreen, event: JobChanged) -> None:
    """The followed job was paused while it waited, resumed, or queued again."""
    following, row = screen.following, event.row
    if row.state == "paused" and not following.over:
        following.paused = True
        screen.progress.say(PAUSED, "warning")
    elif row.state in ("queued", "interrupted") and (following.paused or following.over):
        following.queued_again()
        screen.progress.wait_for("queued")
    screen.refresh_bindings()


# --- editing --------------------------------------------------------------------------------------------------------


def begin_edit(screen: CreateScreen, row: JobRow) -> None:
    """Fill prompts and form with a queued job's parameters; the user's own text comes back afterwards."""
    if screen.edited is not None:
        end_edit(screen)
    screen.edited = Edited(row.job, screen.prompt.text, screen.negative.text, screen.form.texts())
    fill_from(screen, row.params)
    screen.prompt.border_title = f"Prompt · editing job {short_name(row.job)}"
    screen.set_class(True, "-editing")
    screen.prompt.move_cursor(screen.prompt.document.end)
    screen.prompt.focus()
    screen.say_help("You are editing a queued job: F5 saves the change, esc leaves it as it was.")
    screen.refresh_bindings()


def save_edit(screen: CreateScreen) -> None:
    """Send the change, once everything in the form is right."""
    params, problems = screen.read_params()
    if problems:
        screen.show_problem(problems[0].field, problems[0].message)
    elif screen.edited is not None:
        edited = screen.edited
        screen.initial.take_in(params, lambda ready: _send_edit(screen, edited, ready))


def _send_edit(screen: CreateScreen, edited: Edited, params: GenerationParams) -> None:
    """Unless it is not edited any more: an initial image may have been on its way for long."""
    if screen.edited is edited:
        edited.sent = params
        screen.send(Edit(job=edited.job, params=params))


def edit_answered(screen: CreateScreen, event: JobChanged) -> None:
    """The server has the change, if this is the answer to it."""
    if screen.edited is None or (event.job, event.row.params) != (screen.edited.job, screen.edited.sent):
        return
    screen.notify(f"Job {short_name(event.job)} is changed.", markup=False)
    end_edit(screen)
    screen.run_worker(screen.app.run_action("app.show_screen('queue')"), exit_on_error=False)


def end_edit(screen: CreateScreen) -> None:
    """Put back what the user had written."""
    edited, screen.edited = screen.edited, None
    if edited is not None:
        screen.initial.stop()
        _fill(screen, edited.prompt, edited.negative, edited.form)
        screen.prompt.border_title = BY_FIELD["prompt"].spec.label
        screen.set_class(False, "-editing")
        screen.say_help("")
        screen.refresh_bindings()


def fill_from(screen: CreateScreen, params: GenerationParams) -> None:
    """Write a job's parameters into prompts and form."""
    texts = {name: value_text(getattr(params, name)) for name in BY_FIELD}
    prompt, negative = (safe_text(texts[name], multiline=True) for name in ("prompt", "negative_prompt"))
    _fill(screen, prompt, negative, texts)


def _fill(screen: CreateScreen, prompt: str, negative: str, form: dict[str, str]) -> None:
    screen.prompt.load_text(prompt)
    screen.negative.load_text(negative)
    screen.form.fill(form)
