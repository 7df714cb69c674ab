"""The words view on the Inspect screen: what happens around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sdtui.protocol import JobInspected, Message
from sdtui.ui.screens import inspect_page

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect import InspectScreen

OF_A_MODEL: Final = frozenset(
    {
        "find", "next_hit", "open", "reopen", "choose_class", "sort", "compare", "compare_weights", "lora", "read_pickle",
        "look_closer", "copy_path", "toggle_live", "show_log", *inspect_page.ACTIONS,
    }
)  # fmt: skip
"""Actions on the model that is open; the words view shows a job, of whatever model."""


def take_event(screen: InspectScreen, event: Message) -> None:
    """A job was inspected: its words are shown, unless an older one was chosen."""
    if isinstance(event, JobInspected) and event.words:
        resumed(screen)


def resumed(screen: InspectScreen) -> None:
    """The screen is shown again: there may be a newer job."""
    if screen.view == "words" and screen.is_current:
        screen.words.look_again()
