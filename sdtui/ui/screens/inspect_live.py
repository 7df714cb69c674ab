"""What a running or ended inspected job tells of the modules, in the tree, on the page and in the schematic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect import InspectScreen


def toggle(screen: InspectScreen) -> None:
    """Show or hide what the modules did."""
    screen.show_notice("No job was inspected.")
