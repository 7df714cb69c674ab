"""What a run of `sdtui generate` shows, chosen from its options and from where stdout and stderr lead."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from sdtui.cli.announce import announce
from sdtui.cli.output import note, result
from sdtui.cli.picture import can_show, show_still
from sdtui.cli.progress import JsonReporter, LiveReporter, LogReporter, PlainReporter, Reporter
from sdtui.protocol import ImageSaved, JobFinished, Message, PreviewOptions
from sdtui.settings import Settings
from sdtui.text import count_noun, format_seconds

_PREVIEWS_PER_S: Final = 8.0
"""Rich draws whole frames; more of them are not seen and fill a slow link."""


class Screen:
    """The reporters of one run, and what is shown at its end."""

    def __init__(self, *, json: bool, verbose: bool, preview: bool | None, settings: Settings) -> None:
        self.json = json
        self._settings = settings
        self._began_at = time.monotonic()
        self._console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
        shares_terminal = self._console.is_terminal and sys.stdout.isatty()
        live = self._console.is_terminal and not self._console.is_dumb_terminal and not (json and shares_terminal)
        self.pictures = live and preview is not False and can_show(self._console)
        if preview and not self.pictures:
            note("--preview: no picture is shown, as stderr is no terminal with 256 colours and UTF-8.")
        self.reporters: list[Reporter] = []
        if live:
            self.reporters.append(LiveReporter(self._console, pictures=self.pictures, log=verbose))
        else:
            self.reporters.append(LogReporter() if verbose else PlainReporter())
        self.reporters.append(JsonReporter() if json else PathReporter(at_the_end=live and shares_terminal))

    def preview_options(self) -> PreviewOptions:
        """The previews this run can show."""
        wanted = self._settings.preview
        method = wanted.method if self.pictures else "off"
        return PreviewOptions(method=method, max_per_s=min(wanted.max_per_s, _PREVIEWS_PER_S), budget=wanted.budget)

    def close(self, end: Message | None) -> None:
        """Leave the terminal as it was; then the last picture, a line about the job, and the paths that waited for that."""
        bar, *_, results = self.reporters
        bar.close()
        if isinstance(end, JobFinished):
            if self.pictures and end.images:
                show_still(Path(end.images[-1]), self._console, self._settings.terminal.image_protocol)
            note(f"{count_noun(len(end.images), 'picture')} in {format_seconds(end.elapsed_s)}.")
            if end.advice:
                note(end.advice)
        results.close()
        announce(end, time.monotonic() - self._began_at, self._settings.terminal)


class PathReporter:
    """The path of each picture on stdout: at once, or at the end where a bar is drawn on the same terminal."""

    def __init__(self, *, at_the_end: bool) -> None:
        self._at_the_end = at_the_end
        self._waiting: list[str] = []

    def show(self, message: Message) -> None:
        """Take one message."""
        if isinstance(message, ImageSaved):
            self._waiting.append(message.path)
            if not self._at_the_end:
                self.close()

    def close(self) -> None:
        """Print the paths that wait."""
        while self._waiting:
            result(self._waiting.pop(0))
