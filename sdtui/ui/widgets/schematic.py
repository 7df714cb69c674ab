"""The schematic of a network: its blocks with resolutions and channels, and the skip connections."""

from __future__ import annotations

from textual.scroll_view import ScrollView

from sdtui.ui.live_figures import LiveFigures
from sdtui.ui.outline import Outline


class Schematic(ScrollView, can_focus=True):
    """Shows the blocks of the component in which a node lies."""

    def show(self, outline: Outline, node: int) -> None:
        """Another node is selected."""

    def take(self, live: LiveFigures | None, dry_run: object) -> None:
        """Figures."""

    def live_changed(self) -> None:
        """Time has passed."""
