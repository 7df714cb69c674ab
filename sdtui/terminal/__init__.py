"""What this terminal can show, found out by asking it. Knows no Textual."""

from __future__ import annotations

from sdtui.terminal.capabilities import Capabilities, capabilities
from sdtui.terminal.probe import Probe, start_probe
from sdtui.terminal.report import Report
from sdtui.terminal.verdict import Verdict, choose, judge, settle_colorterm

__all__ = ["Capabilities", "Probe", "Report", "Verdict", "capabilities", "choose", "judge", "settle_colorterm", "start_probe"]
