"""The page of the selected module, in parts: facts, weights, activations, code, place."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.getters import query_one

from sdtui.ui.live_figures import Told
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.widgets.module_page import ModulePage


class ModulePages(Vertical):
    """One part is shown at a time."""

    facts = query_one("#facts", ModulePage)

    def compose(self) -> ComposeResult:
        """The parts."""
        yield ModulePage(id="facts")

    @property
    def text(self) -> str:
        """The facts, not wrapped."""
        return self.facts.text

    def show(
        self,
        outline: Outline,
        node: int,
        differences: Sequence[str] = (),
        runs: Sequence[tuple[str, str]] = (),
        live: Told | None = None,
    ) -> None:
        """Another node, or newer figures of it."""
        title = "Model" if node == MODEL else "Component" if outline.is_component(node) else "Module"
        if title != self.border_title:
            self.border_title = title
        self.facts.show(outline, node, differences, runs, live)

    def turn(self, by: int) -> None:
        """The next part, or the one before."""
