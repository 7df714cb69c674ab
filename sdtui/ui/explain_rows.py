"""What a line of the sampling function made, as rows of text: tensors in columns, words of tokens, plain values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from rich.cells import cell_len, set_cell_size

from sdtui.protocol import LineRan, MadeTensor
from sdtui.text import count_noun, safe_text
from sdtui.ui.explain_run import Thing
from sdtui.ui.rows import Span, figure, joined_words, shape_text

_NAME: Final = 20
"""`scheduler.timesteps` is 19 cells."""
_SHAPE, _DTYPE, _DEVICE = 17, 9, 7
_FIGURE, _DIGITS = 9, 4
_FIGURES: Final = ("min", "mean", "max", "std")
_INDENT: Final = 9
"""Cells before the figures where these have a row of their own: the device."""
ONE_ROW: Final = _NAME + _SHAPE + _DTYPE + _DEVICE + _FIGURE * len(_FIGURES)
"""Cells from which a tensor's figures stand beside its shape, else below."""
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_WORDS = 60, 400, 4000


def made_spans(ran: LineRan, others: Mapping[str, Thing], room: int) -> list[Span]:
    """What a line made, and below it, quietly, what else exists; `room` in cells. Every line ends with a newline."""
    spans: list[Span] = []
    if ran.made:
        spans += _head(room)
        for tensor in ran.made:
            spans += _tensor(tensor, room)
    for name, value in ran.values.items():
        spans += _value(name, value, "accent", "text", room)
    if not ran.made and not ran.values:
        spans.append(("No name means anything else than before.\n", "muted"))
    return spans + _others(others, room)


def _others(others: Mapping[str, Thing], room: int) -> list[Span]:
    spans: list[Span] = []
    for name, thing in others.items():
        if isinstance(thing.what, MadeTensor):
            spans += _brief(thing.what, room)
        else:
            spans += _value(name, thing.what, "muted", "muted", room)
    return [("\nAlso there\n", "muted"), *spans] if spans else []


def _head(room: int) -> Iterator[Span]:
    left = f"{'tensor':<{_NAME}}{'shape':<{_SHAPE}}{'dtype':<{_DTYPE}}"
    figures = "".join(f"{title:>{_FIGURE}}" for title in _FIGURES)
    yield (
        (f"{left}{'device':<{_DEVICE}}{figures}\n" if room >= ONE_ROW else f"{left.rstrip()}\n{'':<{_INDENT}}{figures}\n"),
        "muted",
    )


def _tensor(tensor: MadeTensor, room: int) -> Iterator[Span]:
    """One row, or two where there is little room; then what is wrong with it, and the words of tokens."""
    yield _cell(tensor.name, _NAME), "accent"
    shape, dtype, device = (safe_text(text) for text in (shape_text(tensor.shape), tensor.dtype, tensor.device))
    left = f"{_cell(shape, _SHAPE)}{_cell(dtype, _DTYPE)}"
    if room >= ONE_ROW:
        yield f"{left}{_cell(device, _DEVICE)}{_figures(tensor)}\n", "text"
    else:
        yield f"{left.rstrip()}\n", "text"
        yield f"  {_cell(device, _INDENT - 2)}", "muted"
        yield f"{_figures(tensor)}\n", "text"
    if tensor.faults:
        are = "is" if tensor.faults == 1 else "are"
        yield f"  {count_noun(tensor.faults, 'number')} {are} NaN or infinite\n", "error"
    for row, words in enumerate(tensor.words):
        yield f"  {row}  ", "muted"
        yield f"{safe_text(joined_words(words), limit=_LONGEST_WORDS)}\n", "text"


def _figures(tensor: MadeTensor) -> str:
    """A tensor of one number has that alone."""
    if math.prod(tensor.shape) == 1:
        return f"{'':>{_FIGURE}}{_number(tensor.mean, tensor.dtype)}"
    low, high = (_number(value, tensor.dtype) for value in (tensor.low, tensor.high))
    mean, std = (figure(value, _FIGURE, _DIGITS) for value in (tensor.mean, tensor.std))
    return low + mean + high + std


def _number(value: float | None, dtype: str) -> str:
    whole = value is not None and not dtype.startswith(("float", "bfloat", "complex")) and value == int(value)
    return figure(value, _FIGURE, 0 if whole else _DIGITS)


def _brief(tensor: MadeTensor, room: int) -> Iterator[Span]:
    """One row in few words."""
    spread = f"std {tensor.std:.3g}" if tensor.std is not None and len(tensor.shape) else ""
    text = f"{shape_text(tensor.shape):<{_SHAPE}} {spread}".rstrip()
    yield f"{_cell(tensor.name, _NAME)}{_cut(safe_text(text), max(8, room - _NAME))}\n", "muted"


def _value(name: str, value: str, name_tone: str, tone: str, room: int) -> Iterable[Span]:
    limit = _LONGEST_VALUE if tone == "text" else max(8, room - _NAME)
    text = safe_text(value, limit=_LONGEST_VALUE)
    return (_cell(name, _NAME), name_tone), (f"{text if tone == 'text' else _cut(text, limit)}\n", tone)


def _cell(name: str, width: int) -> str:
    """A name in its column, and a gap behind it however long it is."""
    text = safe_text(name, limit=_LONGEST_NAME)
    return text + " " * max(1, width - cell_len(text))


def _cut(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else f"{set_cell_size(text, max(0, cells - 1))}…"
