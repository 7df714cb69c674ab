"""What is said of a step: titles, its facts as rows, and the charts over all steps. No Textual here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sdtui.schedulers import BY_NAME
from sdtui.text import safe_text
from sdtui.trajectory import INITIAL
from sdtui.ui.screens.create_jobs import short_name
from sdtui.ui.timeline_record import Record
from sdtui.ui.widgets.curves import Chart, Curve, figure_text

if TYPE_CHECKING:
    from sdtui.timeline.views import Figures, View

TABS: Final[tuple[tuple[View, str], ...]] = (
    ("denoised", "x0"),
    ("latents", "x_t"),
    ("channel", "channel"),
    ("rgb", "RGB"),
    ("noise_pred", "noise"),
    ("guidance", "guidance"),
    ("difference", "change"),
    ("vae", "full VAE"),
)
"""The views in the order of their key, and what the line of tabs calls them."""
_CURVES: Final = (
    ("σ/α", "sigma", True),
    ("x_t std", "x_std", False),
    ("x0 std", "x0_std", False),
    ("|Δ x_t|", "change", True),
    ("guidance", "guidance", False),
    ("ms per step", "elapsed_s", False),
    ("|x_t|", "x_norm", False),
    ("|x0|", "x0_norm", False),
    ("x_t mean", "x_mean", False),
    ("x0 mean", "x0_mean", False),
)
"""Name, field of `Figures`, and whether its scale is logarithmic."""


class Side(NamedTuple):
    """One of the jobs in view, at one of its steps."""

    record: Record
    step: int
    figures: Figures | None


def charts(sides: list[Side]) -> list[Chart]:
    """Every quantity that any of the jobs has."""
    found = []
    for name, field, is_log in _CURVES:
        curves = tuple(Curve(_values(side.figures, field), side.record.total) for side in sides)
        if any(value is not None for curve in curves for value in curve.values):
            found.append(Chart(name, curves, is_log))
    return found


def _values(figures: Figures | None, field: str) -> tuple[float | None, ...]:
    values = getattr(figures, field) if figures is not None else ()
    return tuple(value * 1000 if field == "elapsed_s" else value for value in values)


# --- facts ----------------------------------------------------------------------------------------------------------


def fact_rows(side: Side) -> list[tuple[str, str]]:
    """What is known of a step, as names and values."""
    record, step = side.record, side.step
    facts = record.facts_of(step)
    begins = step == INITIAL
    rows = [
        ("t", "–" if facts is None or begins else f"{facts.timestep:g}"),
        ("σ/α", "–" if facts is None or begins else figure_text(facts.ratio)),
        ("x_t", _moments(side, "x")),
        ("x0", _moments(side, "x0")),
        ("|Δ x_t|", figure_text(_figure(side, "change"))),
        ("guidance", figure_text(_figure(side, "guidance"))),
        ("ms", "–" if facts is None or begins else f"{facts.elapsed_s * 1000:.1f}"),
        ("latents", f"{'×'.join(str(size) for size in record.shape)} {record.dtype}".strip() or "–"),
    ]
    params = record.params
    rows += [("seed", str(record.seed)), ("scheduler", scheduler_name(record))]
    if params.batch_size * params.batch_count > 1:
        places = []
        if params.batch_size > 1:
            places.append(f"{record.picture_in_batch + 1}/{params.batch_size}")
        if params.batch_count > 1:
            places.append(f"batch {record.facts.batch_index + 1}/{params.batch_count}")
        rows.append(("picture", " of ".join(places)))
    return rows


def _moments(side: Side, name: str) -> str:
    mean, std = (_figure(side, f"{name}_{moment}") for moment in ("mean", "std"))
    return "–" if mean is None or std is None else f"{mean:+.3f} ± {std:.3f}"


def _figure(side: Side, name: str) -> float | None:
    values = getattr(side.figures, name) if side.figures is not None else ()
    value: float | None = values[side.step] if 0 <= side.step < len(values) else None
    return value


def scheduler_name(record: Record) -> str:
    """As the form calls it; its class where the form does not know it."""
    spec = BY_NAME.get(record.params.scheduler)
    return spec.label if spec is not None else safe_text(record.facts.scheduler.removesuffix("Scheduler"), limit=40)


# --- titles ---------------------------------------------------------------------------------------------------------


def view_title(view: View, channel: int, channels: int) -> str:
    """What a picture shows."""
    from sdtui.timeline.views import VIEWS

    return f"channel {channel + 1} of {channels} of x_t" if view == "channel" else VIEWS[view]


def side_title(side: Side, sides: list[Side]) -> str:
    """The job of a picture; where two are compared, also its step, and how that was found."""
    if len(sides) == 1:
        return f"{short_name(side.record.job)} · {safe_text(side.record.params.prompt[:400], limit=200)}"
    step = f"{side.step + 1}/{side.record.total}"
    if side is sides[1] and sides[0].record.total != side.record.total:
        step = f"{step}, nearest σ"
    return f"{short_name(side.record.job)} · {step} · {safe_text(side.record.params.prompt[:400], limit=200)}"


def compared_words(sides: list[Side]) -> str:
    """How the steps of two jobs that are compared belong together."""
    one, other = (side.record.total for side in sides)
    if one == other:
        return ""
    return f"{one} and {other} steps: beside each one is that of the nearest noise level."
