"""A picture's file name from a pattern of fields, which cannot leave its directory; and the names of initial images."""

from __future__ import annotations

import re
import string
from datetime import datetime
from pathlib import PurePath
from typing import Final

from sdtui.metadata.record import ImageRecord, OutputError
from sdtui.settings import nearest
from sdtui.text import safe_text

NAME_FIELDS: Final = ("date", "time", "job", "seed", "index", "model", "prompt")
_MAX_STEM_BYTES: Final = 180
"""With `-99999` and `.png` a name stays under 200 bytes, so temporary names and copies fit the usual limit of 255."""
_MAX_FIELD_BYTES: Final = 80
"""A long prompt must leave room for the seed and the job behind it."""
_RESERVED: Final = frozenset(
    ("CON", "PRN", "AUX", "NUL", *(f"{device}{number}" for device in ("COM", "LPT") for number in "123456789"))
)
"""Devices of Windows, with any ending: a picture of this name cannot be copied there."""
_KEPT_NAME: Final = re.compile(r"[0-9a-f]{16}-(?=.)")
"""What the store of initial images puts before a file's own name."""


def check_pattern(pattern: str) -> None:
    """Raises `OutputError` when a name pattern names an unknown field or a directory."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise OutputError(f"The name pattern {pattern!r} cannot be read: {error}.", "name_pattern") from error
    if "/" in pattern:
        raise OutputError(
            f"The name pattern {pattern!r} may not contain '/': all pictures go into one directory.", "name_pattern"
        )
    for _, name, layout, conversion in parts:
        if name is not None and name not in NAME_FIELDS:
            hint = nearest(name, NAME_FIELDS)
            raise OutputError(f"The name pattern {pattern!r} has the unknown field {{{name}}}; {hint}", "name_pattern")
        if layout or conversion:
            raise OutputError(f"The name pattern {pattern!r} may not format {{{name}}}: write the field alone.", "name_pattern")


def _cut_bytes(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")


def _name_part(text: str) -> str:
    """Text as part of a file name, portable to other systems: no separators, controls or spaces."""
    return re.sub(r'[\s/\\:*?"<>|]+', "_", safe_text(text))


def file_stem(pattern: str, record: ImageRecord) -> str:
    """The name without ending that a pattern gives a picture; it cannot leave its directory. Raises `OutputError`."""
    check_pattern(pattern)
    made = datetime.fromisoformat(record.created_at).astimezone()
    seed = record.first_seed if record.params.seed is None else record.params.seed
    values = {
        "date": f"{made:%Y-%m-%d}",
        "time": f"{made:%H%M%S}",
        "job": record.job or "job",
        "seed": str(seed),
        "index": f"{record.image_index:03d}",
        "model": record.model_name,
        "prompt": record.params.prompt,
    }
    parts = {name: _cut_bytes(_name_part(value), _MAX_FIELD_BYTES) for name, value in values.items()}
    stem = _name_part(pattern.format(**parts)).lstrip(".-_ ")
    stem = _cut_bytes(stem, _MAX_STEM_BYTES).rstrip(". ") or "image"
    return f"{stem}_" if stem.split(".", 1)[0].upper() in _RESERVED else stem


def initial_name(path: str) -> str:
    """What the initial image at a path was called before a copy of it was kept; safe to show, on one line."""
    return safe_text(_KEPT_NAME.sub("", PurePath(path).name, count=1) or path, limit=80)
