"""What the page tells of a tensor's numbers, and why it tells nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Final

from sdtui.anatomy.structs import Component, Weight
from sdtui.protocol import WeightMeasured
from sdtui.text import count_noun, safe_text
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.rows import Span, shape_text
from sdtui.ui.widgets.module_page import fact_spans

NO_NUMBERS: Final = "not a finite number"
_NEGLIGIBLE: Final = 1e-12
"""Of the greatest singular value: less is nought but for rounding."""


def title_spans(weight: Weight, number: int, count: int) -> list[Span]:
    """Which tensor it is, and of how many."""
    of = f"  {number + 1} of {count}" if count > 1 else ""
    numbers = f"{count_noun(weight.count, 'number')} as {safe_text(weight.dtype, limit=10)}" if weight.dtype else "in no file"
    return [
        (safe_text(weight.name[:400], limit=100), "text"),
        (f" {shape_text(weight.shape)}", "secondary"),
        (f"{of}\n", "muted"),
        (f"{numbers}\n", "muted"),
    ]


def figure_spans(found: WeightMeasured) -> list[Span]:
    """The figures, with what is wrong first."""
    spans: list[Span] = []
    if found.nans or found.infinities:
        faults = [f"{found.nans:,} NaN"] * bool(found.nans)
        faults += [count_noun(found.infinities, "infinity").replace("infinitys", "infinities")] * bool(found.infinities)
        spans.append((f"! {' and '.join(faults)}, left out below\n", "warning"))
    if not found.count:
        return [*spans, ("It is empty: there is no number in it.\n", "muted")]
    spans += fact_spans(_figures(found))
    return spans


def _figures(found: WeightMeasured) -> Iterator[tuple[str, str]]:
    yield "min, max", f"{_figure(found.minimum)}, {_figure(found.maximum)}"
    yield "mean, std", f"{_figure(found.mean)}, {_figure(found.std)}"
    yield "norm", _figure(found.norm)
    yield "zeros", share_text(found.zeros)
    if not found.nans and not found.infinities:
        yield "NaN, inf", "none"


def _figure(value: float | None) -> str:
    return NO_NUMBERS if value is None else f"{value:.4g}"


def share_text(share: float) -> str:
    """A share of 0 to 1 that is not rounded to nothing."""
    return "none" if share == 0 else "all" if share == 1 else f"{share:.2%}".replace("%", " %") if share >= 5e-5 else "< 0.01 %"


def spectrum_spans(found: WeightMeasured) -> list[Span]:
    """What is told of the singular values; empty where nobody asked for them."""
    if found.note:
        return [(f"{safe_text(found.note, limit=300)}\n", "muted")]
    values = found.singular_values
    if values is None:
        return []
    return [("singular values\n", "muted"), *fact_spans(_spectrum(values)), ("its numbers\n", "muted")]


def _spectrum(values: Sequence[float]) -> Iterator[tuple[str, str]]:
    if not values:
        yield "count", "none"
        return
    yield "count", f"{len(values):,}"
    yield "largest", f"{values[0]:.4g}"
    smallest = values[-1]
    condition = f", 1/{values[0] / smallest:,.0f} of it" if smallest > values[0] * _NEGLIGIBLE and values[0] > smallest else ""
    yield "smallest", f"{smallest:.4g}{condition}"
    yield "eff. rank", f"{effective_rank(values):,.1f} of {len(values):,} (Roy & Vetterli)"


def effective_rank(values: Sequence[float]) -> float:
    """exp of the entropy of the singular values as shares of their sum; 0 where all are 0.

    Source: Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007, eq. 2 to 4.
    """
    total = math.fsum(values)
    if not total:
        return 0.0
    shares = (value / total for value in values if value > 0)
    return math.exp(-math.fsum(share * math.log(share) for share in shares))


def why_none(outline: Outline, node: int) -> str:
    """Why a module has no tensor to measure; empty where it has one."""
    component = outline.component(node)
    if outline.modules[node].weights:
        return ""
    below = sum(len(module.weights) for module in outline.modules[node + 1 : node + 1 + outline.count_below(node)])
    if node == MODEL:
        parts = count_noun(len(outline.anatomy.components), "component")
        return f"The model has {count_noun(below, 'tensor')} in {parts}; choose a module that has one itself."
    if below:
        modules = count_noun(outline.count_below(node), "module")
        return f"It has no tensor itself; the {modules} below {'has' if modules.startswith('1 ') else 'have'} {below:,}."
    if component is not None and not component.files:
        return "It has no tensors, and no file of them."
    return "It has no tensors."


def why_not_measured(component: Component, weight: Weight) -> str:
    """Why a tensor's numbers cannot be read; empty where they can."""
    if not weight.key or weight.file >= len(component.files):
        return "No file of the model has this tensor, so there are no numbers."
    file = PurePath(component.files[weight.file])
    if file.suffix.lower() != ".safetensors":
        return f"Numbers are read from safetensors files alone, and {safe_text(file.name, limit=80)} is none."
    return ""
