"""What befalls a job on its way, as rows of the step log and as words for the progress line."""

from __future__ import annotations

from typing import Final

from sdtui.protocol import (
    JobInspected,
    JobInterrupted,
    JobPaused,
    JobResumed,
    MemoryRanOut,
    Message,
    StorageFreed,
    StorageFull,
)
from sdtui.text import count_noun, format_bytes, format_seconds, safe_text
from sdtui.ui.rows import LogRow, NoteRow, wrapped_rows

_LOG_LINES: Final = 6
"""Of a dead worker's log: the last ones say what it died of."""
_REMEDIES: Final = {
    "vae_slicing": "VAE slicing",
    "vae_tiling": "VAE tiling",
    "smaller_batch": "a smaller batch",
    "model_offload": "model offload",
    "sequential_offload": "sequential offload",
}


def remedy_text(remedy: str) -> str:
    """What is tried when memory ran out, in words."""
    return _REMEDIES.get(remedy, safe_text(remedy))


def where_text(steps_done: int) -> str:
    """From where a job goes on."""
    return f"goes on from step {steps_done}" if steps_done else "begins anew"


def rows_for_happening(event: Message, steps_done: int = 0) -> list[LogRow]:
    """Rows for an event that is no plain progress; none for all others. `steps_done`: of the batch, before it happened."""
    match event:
        case JobInterrupted():
            return _interrupted_rows(event, steps_done)
        case JobPaused():
            after = f" after step {event.steps_done}" if event.steps_done else ""
            within = f", within {format_seconds(event.latency_s)}" if event.latency_s else ""
            return [NoteRow(f"paused{after}{within}", "warning")]
        case JobResumed():
            return _resumed_rows(event)
        case MemoryRanOut():
            return _memory_rows(event)
        case JobInspected():
            return _inspected_rows(event)
        case StorageFull():
            return wrapped_rows(event.message, "error")
        case StorageFreed():
            return [NoteRow(f"written after {format_seconds(event.waited_s)}", "success")]
        case _:
            return []


def _interrupted_rows(event: JobInterrupted, steps_done: int) -> list[LogRow]:
    count = f" ({event.attempt} of {event.max_attempts})" if event.attempt else ""
    text = f"interrupted{count}: {event.reason.rstrip('.')}; {where_text(steps_done)}"
    tail = [line for line in safe_text(event.log_tail, multiline=True).splitlines() if line.strip()][-_LOG_LINES:]
    return [*wrapped_rows(text, "warning"), *(NoteRow(f"  {line}") for line in tail)]


def _resumed_rows(event: JobResumed) -> list[LogRow]:
    done = f", {count_noun(event.images_done, 'picture')} done" if event.images_done else ""
    text = f"{where_text(event.steps_done)}{done}"
    return [NoteRow(text, "accent"), *wrapped_rows(event.detail, "muted")]


def _inspected_rows(event: JobInspected) -> list[LogRow]:
    rows: list[LogRow] = []
    if event.words:
        text = f"where the words act: {count_noun(event.words, 'word')}; sdtui words {safe_text(event.job)} shows it"
        rows += wrapped_rows(text, "accent")
    if event.modules:
        rows += wrapped_rows(f"activations of {count_noun(event.modules, 'module')} are kept for Inspect", "muted")
    return rows


def _memory_rows(event: MemoryRanOut) -> list[LogRow]:
    needed = f" {format_bytes(event.needed_bytes)} needed" if event.needed_bytes else ""
    free = f", {format_bytes(event.free_bytes)} free" if event.needed_bytes and event.free_bytes else ""
    head = (
        f"memory ran out in {safe_text(event.stage)}:{needed}{free}" if needed else f"memory ran out in {safe_text(event.stage)}"
    )
    return [
        NoteRow(head, "warning"),
        *wrapped_rows(event.message, "muted"),
        NoteRow(f"tried with {remedy_text(event.remedy)}", "accent"),
    ]
