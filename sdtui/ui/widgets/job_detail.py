"""Everything that is known of one job."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from sdtui.metadata import initial_name
from sdtui.protocol import ENDED, JobRow
from sdtui.schedulers import BY_NAME, MODEL_DEFAULT
from sdtui.text import count_noun, safe_text
from sdtui.ui.queue_rows import MARKS, TONES, state_word, time_text
from sdtui.ui.rows import Span

_LABEL: Final = 12
_TEXT_LIMIT: Final = 4000
_NOTHING: Final = "No job is selected."


class JobDetail(VerticalScroll, can_focus=True):
    """The selected job's parameters, what became of it, and where its pictures are."""

    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "Job"
        self._text = Static(Content(_NOTHING), markup=False)
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        """The text."""
        yield self._text

    def show(self, row: JobRow | None, log_tail: Sequence[str] = ()) -> None:
        """Another job, or the same with something new; `log_tail`: the last lines of the worker that died under it."""
        shown = (row, tuple(log_tail))
        if shown == self._shown:
            return
        if row is None or not self._shown or not isinstance(self._shown[0], JobRow) or self._shown[0].job != row.job:
            self.scroll_to(y=0, animate=False)
        self._shown = shown
        self.border_title = Content(f"Job {safe_text(row.job, limit=40)}") if row is not None else "Job"
        if row is None:
            self._text.update(Content.styled(_NOTHING, "$muted"))
        else:
            parts = [(text, "" if tone == "text" else f"${tone}") for text, tone in detail_spans(row, log_tail, time.time())]
            self._text.update(Content.assemble(*parts))


def detail_spans(row: JobRow, log_tail: Sequence[str], now: float) -> list[Span]:
    """The text with its tones; lines end with newlines and are wrapped by who shows them."""
    spans: list[Span] = [(f"{MARKS[row.state]} {_state_text(row, now)}\n", TONES[row.state])]
    if row.reason:
        tone = "error" if row.state == "failed" else "warning"
        spans.append((f"{safe_text(row.reason, multiline=True, limit=_TEXT_LIMIT)}\n", tone))
    spans += [(f"  {safe_text(line)}\n", "muted") for line in log_tail]
    params = row.params
    spans += [("\n", "text"), (f"{safe_text(params.prompt, multiline=True, limit=_TEXT_LIMIT)}\n", "text")]
    if params.negative_prompt:
        negative = safe_text(params.negative_prompt, multiline=True, limit=_TEXT_LIMIT)
        spans += [("not ", "muted"), (f"{negative}\n", "text")]
    spans.append(("\n", "text"))
    for label, value in _facts(row):
        spans += [(f"{label:<{_LABEL}}", "muted"), (f"{value}\n", "text")]
    if row.images:
        spans.append((f"\n{count_noun(len(row.images), 'picture')}\n", "muted"))
        spans += [(f"{safe_text(path)}\n", "text") for path in row.images]
    return spans


def _state_text(row: JobRow, now: float) -> str:
    """The state with what matters in it."""
    took = time_text(row, now)
    match row.state:
        case "running":
            return f"runs for {took}"
        case "queued":
            return f"waits for {took}"
        case "paused" | "interrupted":
            where = f", goes on from step {row.steps_done} of {row.total_steps}" if row.steps_done else ""
            return f"{row.state}{where}"
        case "cancelled" if row.steps_done:
            return f"cancelled after step {row.steps_done} of {row.total_steps}"
        case _:
            return state_word(row.state) + (f" in {took}" if row.state == "done" and took else "")


def _facts(row: JobRow) -> Iterable[tuple[str, str]]:
    params = row.params
    width, height = params.width or "model's", params.height or "model's"
    yield "size", "the model's own" if not (params.width or params.height) else f"{width} × {height} px"
    yield "steps", str(params.num_inference_steps)
    yield "guidance", f"{params.guidance_scale:g}"
    yield "seed", "random" if params.seed is None else str(params.seed)
    scheduler = BY_NAME[params.scheduler].label if params.scheduler in BY_NAME else params.scheduler
    name = "the model's own" if params.scheduler == MODEL_DEFAULT else safe_text(scheduler, limit=40)
    yield "scheduler", name + (f", {params.sigmas} sigmas" if params.sigmas != "default" else "")
    if params.init_image is not None:
        yield "begins with", f"{initial_name(params.init_image)}, {params.resize}, strength {params.strength:g}"
    if row.branch is not None:
        yield "branch of", f"{safe_text(row.branch.job, limit=40)} at step {row.branch.step}"
    if params.batch_count > 1 or params.batch_size > 1:
        yield "batches", f"{params.batch_count} of {count_noun(params.batch_size, 'picture')}"
    yield "model", safe_text(params.model, limit=200)
    if row.priority:
        yield "priority", f"{row.priority:+d}"
    if row.attempts:
        yield "attempts", f"{count_noun(row.attempts, 'worker')} died under it"
    if row.copy_of:
        yield "copy of", safe_text(row.copy_of, limit=40)
    yield "submitted", _clock(row.created_at)
    if row.started_at is not None:
        yield "began", _clock(row.started_at)
    if row.finished_at is not None and row.state in ENDED:
        yield "ended", _clock(row.finished_at)
    if took := time_text(row, 0.0) if row.state in ("failed", "cancelled") else "":
        yield "took", took


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
