"""A1111's infotext: the grammar of its `modules/processing.py` (writing) and `modules/infotext_utils.py` (reading)."""

from __future__ import annotations

import json
import re
from typing import Final

from sdtui.metadata.record import ImageRecord
from sdtui.schedulers import BY_NAME, a1111_schedule, find_scheduler
from sdtui.text import safe_text

_MAX_PARAMETER_LINE: Final = 65_536
"""In characters; the grammar's regular expression takes time in the square of the line's length on hostile text."""
_PARAMETER: Final = re.compile(r'\s*(\w[\w \-/]{1,100}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""A1111's `re_param`, with the key's length bounded so that long text without a colon stays cheap."""
_SIZE: Final = re.compile(r"^(\d+)x(\d+)$")
_KEYWORD_LINE: Final = re.compile(r"^([^\S\n]*)(Negative prompt|Steps):", re.MULTILINE)


def _prompt_lines(text: str) -> str:
    """A prompt that readers take as prompt text alone: no line of it can pass for a keyword of the grammar."""
    return _KEYWORD_LINE.sub(r"\1\2 :", safe_text(text, multiline=True)).strip()


def _quote(value: str) -> str:
    """A1111's quoting rule; a leading quote is quoted too, since its parser would take it off."""
    if value.startswith('"') or any(mark in value for mark in ",:\n"):
        return json.dumps(value, ensure_ascii=False)
    return value


def _sampler(record: ImageRecord) -> str:
    spec = BY_NAME.get(find_scheduler(record.params.scheduler) or "")
    if spec is None:
        return record.scheduler_class.removesuffix("Scheduler")
    return spec.a1111 or spec.label


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _parameters(record: ImageRecord) -> dict[str, str | None]:
    """The last line's keys and values in A1111's order; None is left out."""
    params = record.params
    in_batch = record.batch_size > 1
    return {
        "Steps": str(params.num_inference_steps),
        "Sampler": _sampler(record),
        "Schedule type": a1111_schedule(params.sigmas),
        "CFG scale": _number(params.guidance_scale),
        "Seed": None if params.seed is None else str(params.seed),
        "Size": f"{params.width}x{params.height}" if params.width and params.height else None,
        "Model hash": record.model_hash,
        "Model": record.model_name,
        "Denoising strength": _number(params.strength) if params.init_image is not None else None,
        "Clip skip": str(params.clip_skip + 1) if params.clip_skip > 0 else None,
        "RNG": "CPU" if record.device.startswith("cpu") else None,
        "Batch size": str(record.batch_size) if in_batch else None,
        "Batch pos": str(record.image_index % record.batch_size) if in_batch else None,
        "Version": f"sdtui {record.version}",
    }


def infotext(record: ImageRecord) -> str:
    """The record in A1111's grammar, as it stands under `parameters`."""
    lines = [_prompt_lines(record.params.prompt)]
    if negative := _prompt_lines(record.params.negative_prompt):
        lines.append(f"Negative prompt: {negative}")
    clean = ((key, safe_text(value).strip()) for key, value in _parameters(record).items() if value)
    lines.append(", ".join(f"{key}: {_quote(value)}" for key, value in clean if value))
    return "\n".join(lines)


def parse_infotext(text: str) -> dict[str, str]:
    """The keys and values of an infotext, as A1111's own parser reads it, with `Prompt` and `Negative prompt`.

    The last line holds parameters only when at least three are found in it, else it belongs to the prompt. `Size`
    becomes `Size-1` and `Size-2`.
    """
    *lines, last = text.strip().split("\n")
    pairs = _PARAMETER.findall(last) if len(last) <= _MAX_PARAMETER_LINE else []
    if len(pairs) < 3:
        lines.append(last)
        pairs = []
    found = {"Prompt": "", "Negative prompt": ""}
    target = "Prompt"
    for line in map(str.strip, lines):
        rest = line
        if line.startswith("Negative prompt:"):
            target, rest = "Negative prompt", line.removeprefix("Negative prompt:").strip()
        found[target] += f"\n{rest}" if found[target] else rest
    for key, value in pairs:
        if size := _SIZE.match(value):
            found[f"{key}-1"], found[f"{key}-2"] = size.groups()
        else:
            found[key] = _unquote(value)
    return found


def _unquote(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
