"""What the boxes of a schematic tell: sizes, and the value that colours each of them. No Textual here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from sdtui.text import format_bytes
from sdtui.ui.live_figures import LiveFigures, ms_text
from sdtui.ui.module_rows import count_text
from sdtui.ui.outline import Outline
from sdtui.ui.schematic_layout import Words
from sdtui.ui.schematic_plan import Block, Plan

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect_dry import DryRun

Measure = Literal["parameters", "time", "activations"]
MEASURES: Final[dict[Measure, tuple[str, Callable[[float], str]]]] = {
    "parameters": ("parameters", lambda value: count_text(round(value))),
    "time": ("time of a forward", ms_text),
    "activations": ("activations", lambda value: format_bytes(round(value))),
}
"""What each is called, and how its values are written."""


class Heat:
    """The values of all boxes and cells of a plan for one measure; `live` and `dry` are None where nothing is known."""

    def __init__(
        self, outline: Outline, plan: Plan, measure: Measure, live: LiveFigures | None = None, dry: DryRun | None = None
    ) -> None:
        self._outline, self._plan, self._measure, self._live, self._dry = outline, plan, measure, live, dry
        self.parts = tuple(tuple(self._value(part.node) for part in block.parts) for block in plan.blocks)
        self.blocks = tuple(self._of(block, own) for block, own in zip(plan.blocks, self.parts, strict=True))
        self.most = max((value for value in self.blocks if value), default=0.0)
        """The greatest of a box; 0 where nothing is known."""
        self.most_part = max((value for own in self.parts for value in own if value), default=0.0)

    def _of(self, block: Block, parts: tuple[float | None, ...]) -> float | None:
        """A box's value: what was measured of it, else the sum of its cells; activations are always theirs."""
        known = [value for value in parts if value is not None]
        if known and (self._measure == "activations" or not block.whole):
            return sum(known)
        return self._value(block.node)

    def _value(self, node: int) -> float | None:
        if self._measure == "parameters":
            return float(self._outline.modules[node].total_parameters)
        if self._measure == "time":
            figures = self._live.of(node) if self._live is not None else None
            return figures.elapsed_s if figures is not None else None
        told = self._live.output_bytes(node) if self._live is not None else None
        if told is None and self._dry is not None:
            module = self._dry.modules.get(self._outline.key(node))
            return float(module.output_bytes) if module is not None else None
        return told

    def text(self, value: float | None) -> str:
        """A value with its unit."""
        return MEASURES[self._measure][1](value) if value is not None else "–"

    def words(self, number: int) -> Words:
        """What a box tells."""
        block = self._plan.blocks[number]
        size = " · ".join(part for part in (self.resolution(block), str(block.channels or "")) if part)
        about = self._outline.modules[block.node].class_name if block.whole else ""
        return Words(size, self.text(self.blocks[number]), about)

    def resolution(self, block: Block) -> str:
        """Rows and columns in a block: of the last inspected job, of a dry run, by the configuration; else a fraction."""
        if block.halvings is None:
            return ""
        shape = self._shape(block.parts[0].node if block.parts else block.node)
        if shape:
            return f"{shape[-2]}×{shape[-1]}"
        if self._plan.size_px:
            side = max(1, self._plan.size_px >> block.halvings)
            return f"{side}×{side}"
        return f"1/{1 << block.halvings}"

    def _shape(self, node: int) -> tuple[int, ...]:
        """(B, C, h, w) of what comes out of a module; empty where that is not known, or no picture."""
        figures = self._live.of(node) if self._live is not None else None
        shape = figures.run.shape if figures is not None and figures.run is not None else ()
        if not shape and self._dry is not None:
            module = self._dry.modules.get(self._outline.key(node))
            shape = module.outputs[0].shape if module is not None and module.outputs else ()
        return shape if len(shape) == 4 else ()
