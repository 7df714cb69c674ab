"""Where the words of the prompt act: heat over the picture."""

from __future__ import annotations

from textual.containers import Horizontal


class WordsView(Horizontal, can_focus=True):
    """Shows the word maps of an inspected job."""
