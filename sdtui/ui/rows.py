"""What the step log shows: events as rows of text. Rows hold facts; they are laid out only when a line is on the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from rich.cells import cell_len, set_cell_size

from sdtui.protocol import (
    ImageSaved,
    JobCancelled,
    JobFailed,
    JobFinished,
    JobQueued,
    JobStarted,
    Message,
    ModelFailed,
    ModelLoaded,
    ModuleRun,
    NotANumber,
    PromptTokens,
    StageFinished,
    StepFinished,
    TensorFact,
    WorkerDied,
    WorkerReady,
)
from sdtui.schedulers import BY_NAME
from sdtui.text import count_noun, format_bytes, format_seconds, safe_text

Span = tuple[str, str]
"""Text and its tone: `text`, `muted`, `accent`, `success`, `warning`, `error`."""
WIDE: Final = 74
"""Cells from which a step shows what the network said and the memory too."""
_NARROW: Final = 44
"""Cells of the log at 120 columns: what a step's figures need."""
_TEXT_LIMIT: Final = 2000
Target = tuple[str, str]
"""A network and a path in it that a row is about; the empty path is the network itself."""
_TARGETS: Final[dict[str, Target]] = {
    "tokens": ("text_encoder", ""),
    "embeddings": ("text_encoder", ""),
    "denoise": ("unet", ""),
    "decode": ("vae", ""),
}
_NAME: Final = 12
_SHAPE, _SHORT_SHAPE = 18, 13
_SHORTER: Final = {
    "down_blocks": "down",
    "up_blocks": "up",
    "mid_block": "mid",
    "resnets": "res",
    "attentions": "att",
    "transformer_blocks": "tb",
    "single_transformer_blocks": "stb",
    "downsamplers": "↓",
    "upsamplers": "↑",
    "encoder": "enc",
    "decoder": "dec",
}
"""How parts of long paths are written where there is little room."""
_WORD_END: Final = "</w>"
_TENSOR_NAMES: Final = {
    "prompt_embeds": "embeddings",
    "negative_prompt_embeds": "negative",
    "prompt_embeds (uncond, text)": "guidance",
}


def _cut(text: str, width_cells: int) -> str:
    if cell_len(text) <= width_cells:
        return text
    return f"{set_cell_size(text, max(0, width_cells - 1))}…"


class LogRow(Protocol):
    """One line of the log."""

    @property
    def target(self) -> Target | None:
        """The module that it is about; None where there is none."""
        ...

    def spans(self, width_cells: int) -> Sequence[Span]:
        """The line laid out for a width; it may be longer, the log cuts it."""
        ...


class NoteRow(msgspec.Struct, frozen=True):
    """A sentence."""

    text: str
    tone: str = "muted"
    target: Target | None = None

    def spans(self, width_cells: int) -> Sequence[Span]:
        """The sentence, with an ellipsis where it is cut; copying takes all of it."""
        return ((_cut(self.text, width_cells), self.tone),)


class FactRow(msgspec.Struct, frozen=True):
    """A name, what is known of it, and how long it took at the right."""

    name: str
    fact: str
    note: str = ""
    elapsed_s: float | None = None
    shorter: tuple[str, ...] = ()
    """What to write instead of the note where it does not fit, longest first."""
    target: Target | None = None

    def spans(self, width_cells: int) -> Sequence[Span]:
        """Name and fact in columns, the time right-aligned."""
        time = format_seconds(self.elapsed_s) if self.elapsed_s is not None else ""
        fact = _cut(self.fact, width_cells - _NAME - len(time) - 1)
        room = width_cells - _NAME - cell_len(fact) - len(time) - 2
        note = next((f" {note}" for note in (self.note, *self.shorter) if note and cell_len(note) <= room), "")
        gap = " " * max(1, width_cells - _NAME - cell_len(fact) - cell_len(note) - len(time))
        return (
            (f"{self.name:<{_NAME}}", "accent"),
            (fact, "text"),
            (note + gap, "muted"),
            (time, "text"),
        )


class StepHead(msgspec.Struct, frozen=True):
    """The names of the columns that `StepRow` fills."""

    target: Target | None = None

    def spans(self, width_cells: int) -> Sequence[Span]:
        """The column names, right-aligned as the figures are."""
        text = f"{'step':>4} {'t':>4} {'σ':>6}  {'x0 mean':>7} {'std':>5} {'|Δ|':>6} {'ms':>5}"
        if width_cells >= WIDE:
            text += f" {'x mean':>6} {'x std':>6} {'prev':>5} {'memory':>8}"
        return ((text, "muted"),)


class StepRow(msgspec.Struct, frozen=True):
    """One denoising step: timestep, sigma, x0 prediction, guidance difference, time; quiet where it comes from the tape."""

    step: StepFinished
    target: Target | None = _TARGETS["denoise"]
    """The network that denoises, whatever it is called."""

    def spans(self, width_cells: int) -> Sequence[Span]:
        """The figures in columns."""
        step = self.step
        first = f"{step.step_index + 1:>4} {step.timestep:>4.0f} {figure(step.sigma, 6, 3)}  "
        middle = f"{figure(step.denoised.mean, 7, 3)} {figure(step.denoised.std, 5, 2)} {figure(step.guidance_norm, 6, 3)}"
        last = f" {step.elapsed_s * 1000:>5.0f}"
        if width_cells >= WIDE:
            last += f" {figure(step.latents.mean, 6, 3)} {figure(step.latents.std, 6, 3)}"
            last += f" {step.preview_s * 1000:>5.1f} {format_bytes(step.memory_bytes):>8}"
        return ((first, "muted"), (middle, "muted" if step.replayed else "text"), (last, "muted"))


class ModuleRow(msgspec.Struct, frozen=True):
    """What a module gave in the step above: its output's shape, its time, its statistics."""

    network: str
    run: ModuleRun

    @property
    def target(self) -> Target | None:
        """The module."""
        return self.network, self.run.path

    def spans(self, width_cells: int) -> Sequence[Span]:
        """The path, shorter and cut at its beginning where it has to be, and the figures in columns."""
        run = self.run
        figures, shape = f" {figure(run.elapsed_s * 1000, 7, 2)}", f" {'×'.join(map(str, run.shape)):<{_SHORT_SHAPE}}"
        if width_cells >= WIDE:
            figures += f" {figure(run.mean, 7, 3)} {figure(run.std, 7, 3)} {figure(run.absmax, 8, 2)}"
            shape = f" {shape_text(run.shape) if run.shape else '':<{_SHAPE}}"
        fault = {"nan": " NaN", "inf": " Inf"}.get(run.fault, "")
        room = max(8, width_cells - 2 - len(shape) - len(figures) - len(fault))
        path = safe_text(run.path[-_TEXT_LIMIT:] or self.network, limit=_TEXT_LIMIT)
        if cell_len(path) > room:
            path = ".".join(_SHORTER.get(part, part) for part in path.split("."))
        name = path if cell_len(path) <= room else f"…{set_cell_size(path[::-1], room - 1)[::-1]}"
        return (("  ", "muted"), (set_cell_size(name, room), "muted"), (shape, "text"), (figures, "muted"), (fault, "error"))


def figure(value: float | None, width: int, digits: int) -> str:
    """A number right-aligned in a column, with fewer digits where they do not fit; a dash for none."""
    if value is None:
        return f"{'–':>{width}}"
    text = f"{value:.{digits}f}"
    if len(text) > width:
        text = f"{value:.{max(0, digits - (len(text) - width))}f}"
    return f"{text:>{width}}" if len(text) <= width else f"{value:>{width}.0e}"


def shape_text(shape: Sequence[int]) -> str:
    """A shape as torch writes it: `[1, 4, 16, 16]`."""
    return f"[{', '.join(map(str, shape))}]"


def row_text(row: LogRow, width_cells: int = 100) -> str:
    """A row as plain text, for copying; sentences are whole."""
    if isinstance(row, NoteRow):
        return row.text
    return "".join(text for text, _ in row.spans(width_cells)).rstrip()


def rows_for(event: Message) -> list[LogRow]:
    """The rows an event adds to the log; none for events that the log leaves out."""
    match event:
        case StepFinished():
            return [StepRow(event)]
        case StageFinished():
            return _stage_rows(event)
        case PromptTokens():
            return _token_rows(event)
        case NotANumber():
            return _fault_rows(event)
        case JobQueued(position=position) if position > 0:
            return [NoteRow(f"queued, {count_noun(position, 'job')} before it")]
        case JobStarted():
            return [_start_row(event)]
        case ImageSaved():
            name = safe_text(event.path.rpartition("/")[2], limit=_TEXT_LIMIT)
            return [FactRow("saved", name, format_bytes(event.size_bytes), event.elapsed_s)]
        case JobFinished():
            memory = f", {format_bytes(event.peak_memory_bytes)} at most" if event.peak_memory_bytes else ""
            done = NoteRow(f"done in {format_seconds(event.elapsed_s)}{memory}", "success")
            return [done, *wrapped_rows(event.advice, "accent")]
        case JobCancelled():
            return _cancelled_rows(event)
        case JobFailed():
            return wrapped_rows(event.message, "error")
        case _:
            return _worker_rows(event)


def _worker_rows(event: Message) -> list[LogRow]:
    match event:
        case WorkerReady():
            return [NoteRow(f"torch {event.torch}, diffusers {event.diffusers}, {safe_text(event.device_name or event.device)}")]
        case ModelLoaded(info=info):
            total = sum(info.parameters.values())
            return [
                FactRow(
                    "model",
                    safe_text(info.model),
                    f"{total / 1e6:,.1f} M parameters",
                    event.elapsed_s,
                    shorter=(f"{total / 1e6:,.1f} M",),
                )
            ]
        case ModelFailed():
            return wrapped_rows(event.message, "error")
        case WorkerDied():
            said = event.reason if event.reason.startswith("The worker") else f"The worker ended: {event.reason}"
            return wrapped_rows(f"{said.rstrip('.')}. {after_death(event)}", "error")
        case _:
            return []


def wrapped_rows(message: str, tone: str) -> list[LogRow]:
    """Sentences in full, wrapped for the narrowest log."""
    lines = safe_text(message, multiline=True, limit=_TEXT_LIMIT).splitlines()
    return [NoteRow(part, tone) for line in lines for part in textwrap.wrap(line, _NARROW)]


def after_death(event: WorkerDied) -> str:
    """What happens now that the worker is dead."""
    return "The next job starts another." if event.given_up else "A new one starts."


def _cancelled_rows(event: JobCancelled) -> list[LogRow]:
    text = f"stopped in {format_seconds(event.latency_s)}" if event.latency_s else "cancelled before it began"
    if event.images:
        text += f", {count_noun(len(event.images), 'picture')} saved before"
    rows: list[LogRow] = [NoteRow(text, "warning")]
    if event.kept_steps:
        rows.append(NoteRow(f"{count_noun(event.kept_steps, 'step')} kept: a retry goes on from there"))
    return [*rows, *wrapped_rows(event.detail, "muted")]


def _start_row(event: JobStarted) -> LogRow:
    params = event.params
    scheduler = BY_NAME[params.scheduler].label if params.scheduler in BY_NAME else params.scheduler
    sigmas = f", {params.sigmas} sigmas" if params.sigmas != "default" else ""
    return NoteRow(f"seed {event.seed}, {params.num_inference_steps} steps of {safe_text(scheduler)}{sigmas}", "accent")


def _fault_rows(event: NotANumber) -> list[LogRow]:
    path = safe_text(".".join(part for part in (event.network, event.module) if part)[:_TEXT_LIMIT], limit=200)
    word = {"nan": "NaN", "inf": "Inf"}[event.fault]
    text = f"{path} was given {word}" if event.given else f"the first {word} came from {path}"
    return [NoteRow(part, "error", (event.network, event.module)) for part in textwrap.wrap(text, _NARROW)]


def _stage_rows(event: StageFinished) -> list[LogRow]:
    if event.stage in ("tokens", "save"):
        return []  # PromptTokens and ImageSaved say more
    rows: list[LogRow] = []
    elapsed: float | None = event.elapsed_s
    target = _TARGETS.get(event.stage)
    for index, tensor in enumerate(event.tensors):
        name = _TENSOR_NAMES.get(tensor.name) or (event.stage if index == 0 else tensor.name)
        notes = _tensor_notes(tensor)
        rows.append(FactRow(safe_text(name), shape_text(tensor.shape), notes[0], elapsed, notes[1:], target))
        elapsed = None
    if not rows:
        detail = safe_text(event.detail, limit=_TEXT_LIMIT)
        rows.append(FactRow(safe_text(event.stage), detail, elapsed_s=event.elapsed_s, target=target))
    return rows


def _tensor_notes(tensor: TensorFact) -> tuple[str, ...]:
    """What else is known of a tensor, at length and shorter."""
    note = safe_text(tensor.note).replace("x init_noise_sigma ", "×")
    spread = f"mean {tensor.mean:.2f} std {tensor.std:.2f}" if tensor.mean is not None and tensor.std is not None else ""
    dtype = safe_text(tensor.dtype.removeprefix("torch."))
    full = "  ".join(part for part in (dtype, spread, note) if part)
    brief = note or (f"std {tensor.std:.2f}" if tensor.std is not None else "")
    return full, "  ".join(part for part in (dtype, brief) if part), brief


def _readable_words(words: Sequence[str]) -> str:
    """The tokens as words: parts of one word are joined by a dot, the marks for start and end are left out."""
    return joined_words([word for word in words if not _is_mark(word)])


def joined_words(words: Sequence[str]) -> str:
    """Tokens as words, safe to show: parts of one word are joined by a dot."""
    joined = "".join(
        f"{word.removesuffix(_WORD_END)} " if word.endswith(_WORD_END) or _is_mark(word) else f"{word}·" for word in words
    )
    return safe_text(joined).rstrip(" ·")


def _is_mark(word: str) -> bool:
    return word.startswith("<|") and word.endswith("|>")


def _token_rows(event: PromptTokens) -> list[LogRow]:
    which = "tokens" if event.which == "prompt" else "negative"
    words = _readable_words(event.words)
    rows: list[LogRow] = [
        FactRow(which, f"[1, {event.max_tokens}]", f"{len(event.ids)} used", event.elapsed_s, target=_TARGETS["tokens"]),
    ]
    if words:
        rows.append(NoteRow(" " * _NAME + words, target=_TARGETS["tokens"]))
    if event.cut_off:
        rows.append(NoteRow(f"not read: {safe_text(event.cut_off, limit=_TEXT_LIMIT)}", "warning"))
    return rows
