"""The part of the page about a module's tensors: their histogram and figures, and on request their singular values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.getters import query_one

from sdtui.anatomy.structs import Weight
from sdtui.protocol import WeightMeasured
from sdtui.text import safe_text
from sdtui.ui.outline import Outline
from sdtui.ui.rows import Span
from sdtui.ui.widgets.pages.answers import ASK_AFTER_S, Answers
from sdtui.ui.widgets.pages.part import ASKING, Part
from sdtui.ui.widgets.pages.plots import Curve, Histogram, PlotView
from sdtui.ui.widgets.pages.span_view import SpanView
from sdtui.ui.widgets.pages.weight_text import figure_spans, spectrum_spans, title_spans, why_none, why_not_measured

if TYPE_CHECKING:
    from sdtui.server.inspector import Inspector


class WeightsPart(Part):
    """Asks when the selection has rested; what it was answered before is there at once."""

    view = query_one("#weight-text", SpanView)
    histogram = query_one("#weight-histogram", PlotView)
    spectrum = query_one("#weight-spectrum", PlotView)

    def __init__(self, *, id: str, inspector: Callable[[], Inspector]) -> None:
        super().__init__(id=id, inspector=inspector)
        self._answers: Answers | None = None
        self._number = 0
        self.found: WeightMeasured | None = None
        """The figures that are shown."""
        self._turned = False
        """Whether the key line knows of several tensors."""

    def compose(self) -> ComposeResult:
        """Figures beside or above the plots."""
        yield SpanView(id="weight-text")
        yield PlotView(id="weight-histogram")
        yield PlotView(id="weight-spectrum")

    # --- which tensor -----------------------------------------------------------------------------------------------

    @property
    def weight(self) -> Weight | None:
        """The tensor that is shown; None where the module has none."""
        weights = self.outline.modules[self.node].weights if self.outline is not None else ()
        return weights[self._number] if self._number < len(weights) else None

    @property
    def turns(self) -> bool:
        """Whether the module has several tensors."""
        return self.outline is not None and len(self.outline.modules[self.node].weights) > 1

    @property
    def can_decompose(self) -> bool:
        """Whether singular values may be asked for."""
        return self.found is not None and self.found.singular_values is None and not self.found.note

    @property
    def waits(self) -> bool:
        """Whether there are no figures yet."""
        return self.found is None

    def turn(self, by: int) -> None:
        """The module's next tensor, or the one before."""
        if self.outline is not None and self.turns:
            self._number = (self._number + by) % len(self.outline.modules[self.node].weights)
            self._begin(0.0)

    def show(self, outline: Outline) -> None:
        """Another module, from its first tensor on."""
        if self._answers is None or self._answers.outline is not outline:
            self._answers = Answers(outline, self._inspector)
        self._number = 0
        self._begin(ASK_AFTER_S)

    def again(self) -> None:
        """Ask once more where there was no answer."""
        if self.found is None and not self._stale:
            self._begin(ASK_AFTER_S)

    # --- asking -----------------------------------------------------------------------------------------------------

    def _begin(self, after_s: float, *, singular: bool = False) -> None:
        outline, weight = self.outline, self.weight
        self.workers.cancel_group(self, ASKING)
        if outline is None or self._answers is None:
            return
        component = outline.component(self.node)
        if weight is None or component is None:
            self.say(why_none(outline, self.node))
            return
        why = why_not_measured(component, weight)
        known = None if why else self._answers.known_weight(component.name, weight.key, singular=singular)
        if known is not None:
            self._show(known)
            return
        words = why or ("Computing its singular values …" if singular else self._waiting())
        self._tell([(f"{words}\n", "muted")], keep=singular)
        if not why:
            self.ask(partial(self._ask, self._answers, component.name, weight.key, after_s, singular=singular))

    def _waiting(self) -> str:
        starts = self._answers is not None and self._answers.is_starting
        return (
            "Reading its numbers in a process beside, which takes some seconds to start …" if starts else "Reading its numbers …"
        )

    async def _ask(self, answers: Answers, component: str, key: str, after_s: float, *, singular: bool) -> None:
        from sdtui.server.inspector import InspectorError

        await asyncio.sleep(after_s)
        try:
            found = await answers.weight(component, key, singular=singular)
        except InspectorError as error:
            self._tell([(f"{safe_text(str(error), limit=600)}\n", "error")], keep=singular)
        else:
            self._show(found)

    def decompose(self) -> None:
        """Ask for the singular values."""
        if self.can_decompose:
            self._begin(0.0, singular=True)

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _title(self) -> list[Span]:
        count = len(self.outline.modules[self.node].weights) if self.outline is not None else 0
        return title_spans(self.weight, self._number, count) if self.weight is not None else []

    def _show(self, found: WeightMeasured) -> None:
        self.found = found
        keys = [". the next tensor"] * self.turns + ["S singular values"] * (self.can_decompose and _is_matrix(found))
        hint = [(f"\n{', '.join(keys)}\n", "muted")] if keys else []
        self.view.set_spans([*self._title(), *spectrum_spans(found), *figure_spans(found), *hint], from_top=True)
        low, high = found.minimum, found.maximum
        self.histogram.plot(Histogram(found.histogram, low, high) if low is not None and high is not None else None)
        values = found.singular_values
        self.spectrum.plot(Curve(values) if values else None)
        self._turned = self.turns
        self.set_class(bool(values), "-spectrum")
        self.screen.refresh_bindings()

    def _tell(self, words: list[Span], *, keep: bool = False) -> None:
        """Say something below the tensor's name; `keep`: its figures stay."""
        if keep and self.found is not None:
            self.view.set_spans([*self._title(), *figure_spans(self.found), ("\n", "text"), *words], from_top=False)
            return
        had, self.found = self.found is not None, None
        self.view.set_spans([*self._title(), *words], from_top=True)
        if had:
            self.histogram.plot(None)
            self.spectrum.plot(None)
            self.set_class(False, "-spectrum")
        if had or self.turns != self._turned:
            self._turned = self.turns
            self.screen.refresh_bindings()

    def say(self, words: str, tone: str = "muted") -> None:
        """Show a sentence, and no figures."""
        self._tell([(f"{words}\n", tone)])


def _is_matrix(found: WeightMeasured) -> bool:
    return len(found.shape) > 1 and bool(found.count) and not found.nans and not found.infinities
