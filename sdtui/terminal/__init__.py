"""What this terminal can show. Knows no Textual, and asks the terminal nothing."""

from __future__ import annotations

from sdtui.terminal.capabilities import Capabilities, capabilities

__all__ = ["Capabilities", "capabilities"]
