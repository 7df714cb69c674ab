"""What the Create screen does with what the server says: one function an event, no state of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sdtui.protocol import (
    DownloadProgress,
    Heartbeat,
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobStarted,
    Message,
    ModelFailed,
    ModelLoaded,
    QueueChanged,
    Refused,
    Replay,
    ServerStatus,
    StageStarted,
    StepFinished,
    WorkerDied,
    WorkerReady,
    WorkerStage,
)
from sdtui.text import count_noun, format_seconds, safe_text
from sdtui.ui.feed import FeedState
from sdtui.ui.rows import NoteRow, StepHead, rows_for

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
    "latents": "drawing noise",
    "timesteps": "choosing timesteps",
    "denoise": "first step",
    "decode": "decoding",
    "save": "saving",
}
_READY: Final = "Ready."


def show_state(screen: CreateScreen, state: FeedState) -> None:
    """Say how the connection is; on a new one, take up what runs."""
    if state.state == "connecting":
        screen.progress.wait_for("connecting to the server")
        return
    if state.state == "lost":
        screen.header.set_notice("no server")
        screen.progress.say(f"No server. Next try in {state.retry_s:.0f} s; F8 tries now.", "error")
        screen.picture.explain(state.reason)
        return
    screen.header.set_notice("")
    screen.picture.explain("")
    welcome = state.welcome
    if welcome is None:
        return
    if welcome.model is not None:
        screen.take_model(welcome.model)
    running = next((row for row in welcome.jobs if row.state == "running"), None)
    screen.header.set_queue(sum(row.state == "queued" for row in welcome.jobs))
    _show_worker(screen, welcome.worker)
    if running is not None:
        screen.following.follow(running.job)
        screen.begin_following(running.job)
        screen.send(Replay(job=running.job))
    elif screen.following.can_cancel:
        _replay_lost(screen, {row.job for row in welcome.jobs})


def _replay_lost(screen: CreateScreen, known: set[str]) -> None:
    """The followed job went on, or ended, while there was no connection: the records say which."""
    job = screen.following.job
    if job is not None:
        if job not in known:
            screen.steps.append(NoteRow("the connection was lost; this is what is recorded", "warning"))
        screen.send(Replay(job=job))


def _show_worker(screen: CreateScreen, worker: str) -> None:
    if worker == "ready":
        screen.progress.say(_READY)
    elif worker == "down":
        screen.progress.say("The worker is down; the next job starts it.", "warning")
    else:
        screen.progress.wait_for(_STAGES.get(worker, "starting the worker"))


def show_event(screen: CreateScreen, event: Message) -> None:
    """Show one event of the server."""
    match event:
        case Heartbeat():
            screen.header.set_memory(event.device_bytes or event.rss_bytes, event.device_total_bytes)
        case QueueChanged():
            screen.header.set_queue(event.queued)
        case Refused():
            _refused(screen, event)
        case ServerStatus():
            _show_status(screen, event)
        case WorkerStage() | WorkerReady() | ModelLoaded() | ModelFailed() | DownloadProgress() | WorkerDied():
            _show_worker_event(screen, event)
        case _:
            _show_job_event(screen, event)


def _refused(screen: CreateScreen, event: Refused) -> None:
    message = safe_text(event.message)
    if event.job is not None and event.job == screen.following.job:
        screen.following.over = True
        screen.picture.clear()
        screen.progress.say(message, "error")
        screen.refresh_bindings()
    if event.field is not None:
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
    idle = not screen.following.started or screen.following.over
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
            screen.progress.say(f"The worker ended: {safe_text(event.reason)}. A new one starts.", "error")
        case DownloadProgress():
            screen.progress.download(event)
    screen.steps.append(*rows_for(event))


def _show_job_event(screen: CreateScreen, event: Message) -> None:
    following = screen.following
    if isinstance(event, JobStarted) and following.takes_over(event):
        following.follow(event.job)
        screen.begin_following(event.job)
    if not following.is_news(event):
        return
    match event:
        case JobStarted():
            screen.form.set_last_seed(event.seed)
            screen.progress.start(event.params.batch_count)
        case StageStarted():
            screen.progress.wait_for(_STAGES.get(event.stage, safe_text(event.stage)))
            if event.stage == "denoise":
                screen.steps.append(StepHead())
        case StepFinished():
            screen.progress.step(event)
        case ImageSaved():
            screen.picture.show_saved(event)
        case JobFinished():
            screen.progress.finish(event.elapsed_s, len(event.images))
        case JobFailed():
            message = safe_text(event.message, multiline=True)
            screen.progress.say("Failed.", "error")
            screen.picture.explain(message)
            screen.notify(message, title="Failed", severity="error", timeout=15, markup=False)
            if event.field is not None:
                screen.show_problem(event.field, safe_text(event.message))
        case JobCancelled():
            screen.progress.say("Cancelled.", "warning")
    screen.steps.append(*rows_for(event))
    if following.over:
        screen.refresh_bindings()
