"""What a measurement says, and how a list of them is printed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured quantity; with a `target` it should be at most that."""

    bench: str
    name: str
    value: float
    unit: str
    """`x` for a ratio, `ms` or `s` for a time, empty for a count."""
    target: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        return None if self.target is None else self.value <= self.target


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(
    bench: str, name: str, ours: Sequence[float], base: Sequence[float], *, target: float | None = None, note: str = ""
) -> list[Figure]:
    """Our times over those of the base: the ratio of the medians, which has the target, and of the fastest tenths."""
    medians = statistics.median(ours) / statistics.median(base)
    fastest = percentile(ours, 0.1) / percentile(base, 0.1)
    return [
        Figure(bench=bench, name=f"{name}, medians", value=medians, unit="x", target=target, note=note),
        Figure(bench=bench, name=f"{name}, fastest tenths", value=fastest, unit="x", note="least disturbed by other programs"),
    ]


def milliseconds(bench: str, name: str, seconds: float, target_ms: float | None = None, note: str = "") -> Figure:
    """A time."""
    return Figure(bench=bench, name=name, value=seconds * 1000, unit="ms", target=target_ms, note=note)


def as_table(figures: Sequence[Figure]) -> str:
    """The figures as aligned lines."""
    rows = [("bench", "figure", "value", "target", "", "")]
    for figure in figures:
        digits = {"x": 3, "": 0}.get(figure.unit, 1)
        value = f"{figure.value:.{digits}f} {figure.unit}"
        target = "" if figure.target is None else f"<= {figure.target:g}"
        met = {None: "", True: "met", False: "MISSED"}[figure.met]
        rows.append((figure.bench, figure.name, value, target, met, figure.note))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
