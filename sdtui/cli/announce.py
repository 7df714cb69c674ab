"""The notice outside the window when a job ends, if the settings ask for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sdtui.protocol import JobFailed, JobFinished, Message
from sdtui.settings import Terminal
from sdtui.text import count_noun, format_seconds

if TYPE_CHECKING:
    from sdtui.terminal.report import Report


def announce(end: Message | None, waited_s: float, settings: Terminal, descriptor: int = 2) -> None:
    """Tell the user of a job that was waited for, where `descriptor` leads to a terminal. Who cancelled it knows."""
    if settings.notify == "off" or waited_s < settings.notify_after_s or not os.isatty(descriptor):
        return
    if isinstance(end, JobFinished):
        text = f"{count_noun(len(end.images), 'picture')} in {format_seconds(end.elapsed_s)}"
    elif isinstance(end, JobFailed):
        text = f"The job failed: {end.message}"
    else:
        return
    from sdtui.terminal.notice import notice, notice_way

    report = None if settings.notify == "bell" else _report(descriptor)
    inside_tmux = report is not None and report.capabilities.multiplexer == "tmux"
    os.write(descriptor, notice(text, notice_way(settings.notify, report), inside_tmux=inside_tmux))


def _report(descriptor: int) -> Report:
    from sdtui.cli.picture import asked_terminal

    with asked_terminal(descriptor) as asked:
        return asked.report
