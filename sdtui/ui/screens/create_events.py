"""What the Create screen does with what the server says: one function an event, no state of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sdtui.params import BY_FIELD
from sdtui.protocol import (
    DownloadProgress,
    ImageSaved,
    JobCancelled,
    JobChanged,
    JobDeleted,
    JobFailed,
    JobFinished,
    JobInterrupted,
    JobPaused,
    JobQueued,
    JobResumed,
    JobStarted,
    MemoryRanOut,
    Message,
    ModelFailed,
    ModelLoaded,
    ModulesRan,
    QueueChanged,
    Refused,
    ReplayDone,
    ServerStatus,
    StageStarted,
    StepFinished,
    StorageFreed,
    StorageFull,
    WorkerDied,
    WorkerReady,
    WorkerStage,
)
from sdtui.text import count_noun, format_seconds, safe_text
from sdtui.ui.feed import FeedState
from sdtui.ui.happenings import remedy_text, rows_for_happening, where_text
from sdtui.ui.rows import StepHead, after_death, rows_for
from sdtui.ui.screens.create_jobs import (
    PAUSED,
    edit_answered,
    end_edit,
    followed_changed,
    own_ended,
    record_shown,
    take_left_behind,
    take_up,
)

if TYPE_CHECKING:
    from sdtui.ui.screens.create import CreateScreen

_STAGES: Final = {
    "handshake": "starting the worker",
    "torch": "loading torch",
    "diffusers": "loading diffusers",
    "model": "loading the model",
    "warm_up": "warming up",
    "load": "loading the model",
    "tokens": "reading the prompt",
    "embeddings": "encoding the prompt",
    "image": "reading the initial image",
    "encode": "encoding the initial image",
    "latents": "drawing noise",
    "timesteps": "choosing timesteps",
    "denoise": "first step",
    "decode": "decoding",
    "save": "saving",
}
_READY: Final = "Ready."
HELD: Final = "Queued. The queue is held: alt+5, then H, lets it go on."


def show_state(screen: CreateScreen, state: FeedState) -> None:
    """Say how the connection is; on a new one, take up what runs."""
    screen.header.take_state(state)
    if state.state == "connecting":
        screen.progress.wait_for("connecting to the server")
        return
    if state.state == "lost":
        screen.progress.say(f"No server. Next try in {state.retry_s:.0f} s; F8 tries now.", "error")
        screen.picture.explain(state.reason)
        return
    screen.picture.explain("")
    welcome = state.welcome
    if welcome is None:
        return
    if welcome.model is not None:
        screen.take_model(welcome.model)
    _show_worker(screen, welcome.worker)
    _show_queue(screen, welcome.queue)
    take_up(screen, welcome)


def _show_worker(screen: CreateScreen, worker: str) -> None:
    if worker == "ready":
        screen.progress.say(_READY)
    elif worker == "down":
        screen.progress.say("The worker is down; the next job starts it.", "warning")
    else:
        screen.progress.wait_for(_STAGES.get(worker, "starting the worker"))


def show_event(screen: CreateScreen, event: Message, *, replayed: bool) -> None:
    """Show one event of the server; `replayed`: from a record, which another screen may have asked for."""
    screen.header.take_event(event)
    match event:
        case QueueChanged():
            _show_queue(screen, event)
        case Refused():
            _refused(screen, event, replayed=replayed)
        case ServerStatus():
            _show_status(screen, event)
        case JobChanged():
            _job_changed(screen, event)
        case JobDeleted():
            _job_deleted(screen, event)
        case ReplayDone():
            record_shown(screen, event.job)
        case WorkerStage() | WorkerReady() | ModelLoaded() | ModelFailed() | DownloadProgress() | WorkerDied():
            _show_worker_event(screen, event)
        case _:
            if not replayed:
                screen.note_time(event)
            own_ended(screen, event, replayed=replayed)
            _show_job_event(screen, event, replayed=replayed)


def _show_queue(screen: CreateScreen, queue: QueueChanged) -> None:
    """What keeps the queue from going on matters to who waits for a picture."""
    screen.running, screen.held = queue.running, queue.held
    waits = screen.following.can_cancel and not screen.following.started
    if queue.trouble and not screen.following.at_work:
        screen.progress.say(safe_text(queue.trouble, limit=200), "error")
    elif queue.held and waits and not screen.following.paused:
        screen.progress.say(HELD, "warning")
    elif waits and screen.progress.text in (HELD, safe_text(screen.trouble, limit=200)):
        screen.progress.wait_for("queued")
    screen.trouble = queue.trouble


def _job_changed(screen: CreateScreen, event: JobChanged) -> None:
    take_left_behind(screen, event.job, event.row)
    edit_answered(screen, event)
    if event.job == screen.following.job:
        followed_changed(screen, event)


def _job_deleted(screen: CreateScreen, event: JobDeleted) -> None:
    if screen.edited is not None and event.job == screen.edited.job:
        end_edit(screen)
    if event.job == screen.following.job and not screen.following.over:
        screen.following.over = True
        screen.progress.say("The job was deleted.", "warning")
        screen.refresh_bindings()


def _refused(screen: CreateScreen, event: Refused, *, replayed: bool) -> None:
    if event.job is not None and take_left_behind(screen, event.job, None):
        return
    message = safe_text(event.message)
    following = screen.following
    if replayed and event.job != following.job:
        return  # a screen looked for a job that is gone, and deals with that itself
    if event.job is not None and event.job == following.job and not following.known:
        following.over = True
        screen.own_jobs.ended(event.job)
        screen.picture.clear()
        screen.progress.say(message, "error")
        screen.refresh_bindings()
    elif event.job is not None and event.job == following.job and screen.progress.waiting and following.can_cancel:
        screen.progress.say(message, "warning")  # what was asked of the job is not being waited for
    if event.field in BY_FIELD and screen.app.screen is screen:
        screen.show_problem(event.field, message)
    else:
        screen.notify(message, title="Refused", severity="error", markup=False)


def _show_status(screen: CreateScreen, event: ServerStatus) -> None:
    lines = (
        f"sdtui {event.version}, pid {event.pid}, up {format_seconds(event.uptime_s)}, {count_noun(event.clients, 'client')}",
        f"worker {event.worker}" + (f", pid {event.worker_pid}" if event.worker_pid is not None else ""),
        f"{count_noun(event.queued, 'job')} queued" + (f", {event.running} runs" if event.running else ""),
        f"log {event.log}",
    )
    screen.notify(safe_text("\n".join(lines), multiline=True), title="Server", timeout=15, markup=False)


def _show_worker_event(screen: CreateScreen, event: Message) -> None:
    idle = not screen.following.at_work
    match event:
        case WorkerStage(state="started") if idle:
            screen.progress.wait_for(_STAGES.get(event.stage, event.stage))
        case ModelLoaded():
            screen.take_model(event.info)
            if idle:
                screen.progress.say(_READY)
        case ModelFailed():
            screen.progress.say("The model could not be loaded.", "error")
            screen.picture.explain(safe_text(event.message, multiline=True))
        case WorkerReady() if idle and screen.model is not None:
            screen.progress.say(_READY)
        case WorkerDied():
            screen.progress.say(f"The worker ended. {after_death(event)}", "error")
        case DownloadProgress():
            screen.progress.download(event)
    screen.steps.append(*rows_for(event))


def _show_job_event(screen: CreateScreen, event: Message, *, replayed: bool) -> None:
    following = screen.following
    if not replayed and isinstance(event, JobStarted) and following.takes_over(event):
        following.follow(event.job)
        screen.begin_following(event.job)
    if following.begins_record(event):
        screen.steps.clear()
    elif replayed and following.has_record:
        return  # another screen asked for it; all of this was shown
    steps_done = following.steps_done
    if not following.is_news(event):
        return
    _show_progress(screen, event)
    if isinstance(event, JobQueued | JobStarted):
        screen.shown_params = event.params
    match event:
        case JobStarted():
            screen.form.set_last_seed(event.seed)
        case StageStarted(stage="denoise"):
            screen.steps.append(StepHead())
        case ImageSaved():
            screen.picture.show_saved(event)
        case JobFinished(advice=advice) if advice and not replayed:
            screen.notify(safe_text(advice, multiline=True), title="For the next one", timeout=15, markup=False)
        case JobFailed():
            _show_failure(screen, event, replayed=replayed)
        case ModulesRan():
            screen.steps.append_modules(event)
    screen.steps.append(*rows_for(event), *rows_for_happening(event, steps_done))
    if following.over or isinstance(event, JobStarted | JobPaused | JobInterrupted):
        screen.refresh_bindings()


def _show_failure(screen: CreateScreen, event: JobFailed, *, replayed: bool) -> None:
    message = safe_text(event.message, multiline=True)
    screen.picture.explain(message)
    if replayed:
        return
    screen.notify(message, title="Failed", severity="error", timeout=15, markup=False)
    if event.field in BY_FIELD and screen.app.screen is screen:
        screen.show_problem(event.field, safe_text(event.message))


def _show_progress(screen: CreateScreen, event: Message) -> None:
    progress = screen.progress
    match event:
        case JobQueued() if screen.held:
            progress.say(HELD, "warning")
        case JobStarted():
            progress.start(event.params.batch_count)
        case StageStarted():
            progress.wait_for(_STAGES.get(event.stage, safe_text(event.stage)))
        case StepFinished():
            progress.step(event)
        case JobFinished():
            progress.finish(event.elapsed_s, len(event.images))
        case JobFailed():
            progress.say("Failed.", "error")
        case JobCancelled():
            progress.say(f"Stopped in {format_seconds(event.latency_s)}." if event.latency_s else "Cancelled.", "warning")
        case _:
            _show_happening(screen, event)


def _show_happening(screen: CreateScreen, event: Message) -> None:
    progress = screen.progress
    match event:
        case JobPaused():
            progress.say(PAUSED, "warning")
        case JobInterrupted():
            progress.wait_for(f"interrupted; {where_text(screen.following.steps_done)}")
        case JobResumed():
            progress.wait_for(where_text(event.steps_done))
        case MemoryRanOut():
            progress.wait_for(f"memory ran out; trying {remedy_text(event.remedy)}")
        case StorageFull():
            progress.wait_for("the picture cannot be written and waits; see the steps")
        case StorageFreed():
            progress.wait_for("saving")
