"""The sentences of the Explain screen: where the function stands, what is done, what a line made."""

from __future__ import annotations

from typing import Final

from sdtui.params import GenerationParams
from sdtui.protocol import DownloadProgress, ExplainingStarted
from sdtui.text import format_bytes, format_seconds, safe_text
from sdtui.ui.explain_run import Run

STARTING: Final = "A process of its own imports torch and loads the model, which takes some seconds."
_SHORT_DTYPES: Final = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def model_name(params: GenerationParams) -> str:
    """What a model is called, without its folder."""
    return safe_text(params.model.rstrip("/").rpartition("/")[2] or params.model, limit=32)


def facts(started: ExplainingStarted) -> str:
    """Model, device and what decides the pixels."""
    params = started.params
    size = f"{params.width}×{params.height}" if params.width and params.height else ""
    dtype = _SHORT_DTYPES.get(started.dtype, started.dtype)
    seed = f"seed {params.seed}" if params.seed is not None else ""
    parts = (model_name(params), f"{safe_text(started.device, limit=16)} {safe_text(dtype, limit=16)}", size, seed)
    return " · ".join(part for part in parts if part)


def loop_words(run: Run) -> str:
    """`step 3 of 20, t 851`; empty outside of the loop."""
    place = run.place
    if place is None or run.finished:
        return ""
    timestep = f", t {place.timestep:g}" if place.timestep is not None else ""
    return f"step {place.step + 1} of {place.total}{timestep}"


def standing(run: Run) -> str:
    """Where the function stands."""
    if run.finished:
        return "The function has returned. w saves the picture, r runs it anew."
    if run.last is None:
        return f"Before line {run.next_line}, and nothing has run yet. Space runs it, s the stage, e all."
    parts = (f"Line {run.next_line} is next", loop_words(run), f"guidance {run.guidance:g}" if run.place is not None else "")
    return " · ".join(part for part in parts if part)


def running(run: Run, to: str, waited_s: float, *, stopping: bool) -> str:
    """What is done while lines run."""
    place = loop_words(run)
    what = f"Line {run.next_line} runs" if to == "line" else f"Running to the end{' of the stage' if to == 'stage' else ''}"
    parts = (what, place, format_seconds(waited_s) if waited_s >= 1 else "")
    stop = "stops at the next line" if stopping else "" if to == "line" else "esc stops"
    return " · ".join(part for part in (*parts, stop) if part)


def starting(waited_s: float, model: str, download: DownloadProgress | None) -> str:
    """What is done before the function is there."""
    waited = f" {waited_s:.0f} s" if waited_s >= 1 else ""
    if download is not None:
        total = f" of {format_bytes(download.total_bytes)}" if download.total_bytes else ""
        return f"Fetching {safe_text(model, limit=80)}: {format_bytes(download.done_bytes)}{total} …{waited}"
    return f"Starting with {safe_text(model, limit=80)} …{waited}\n{STARTING}"


def made_title(run: Run, line: int) -> tuple[str, str]:
    """Title and subtitle of what a line made."""
    ran = run.ran.get(line)
    if ran is None:
        return f"Line {line}", "has not run yet"
    if ran.finished:
        return f"Line {line} returned", format_seconds(ran.elapsed_s)
    step = f"step {ran.step_index + 1} of {ran.total_steps}" if ran.step_index is not None else ""
    return f"Line {line} made", " · ".join(part for part in (step, format_seconds(ran.elapsed_s)) if part)
