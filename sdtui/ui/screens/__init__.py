"""The screens there are, in the order of their keys. The header's strip, the keys and the commands derive from this."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from textual.screen import Screen

    from sdtui.settings import Settings
    from sdtui.ui.feed import Feed


FIRST_KEYS_S: Final = 0.1
"""After the first frame a key is answered before anything else is begun: a tenth of a second is what people take as at once."""


class ScreenEntry(msgspec.Struct, frozen=True):
    """One screen: the number of its key, its name, its label, and how it is made."""

    number: int
    name: str
    label: str
    purpose: str
    make: Callable[[Settings, Feed], Screen[Any]]


def _make_create(settings: Settings, feed: Feed) -> Screen[Any]:
    from sdtui.ui.screens.create import CreateScreen

    return CreateScreen(settings, feed)


def _make_queue(settings: Settings, feed: Feed) -> Screen[Any]:  # noqa: ARG001  (all are made alike)
    from sdtui.ui.screens.queue import QueueScreen

    return QueueScreen(feed)


def _make_inspect(settings: Settings, feed: Feed) -> Screen[Any]:  # noqa: ARG001  (all are made alike)
    from sdtui.ui.screens.inspect import InspectScreen

    return InspectScreen(feed)


def _make_timeline(settings: Settings, feed: Feed) -> Screen[Any]:
    from sdtui.ui.screens.timeline import TimelineScreen

    return TimelineScreen(settings, feed)


SCREENS: Final[tuple[ScreenEntry, ...]] = (
    ScreenEntry(1, "create", "Create", "Write a prompt and see the picture form", _make_create),
    ScreenEntry(2, "inspect", "Inspect", "What a model is made of, module by module", _make_inspect),
    ScreenEntry(3, "timeline", "Timeline", "Every step of a picture, one by one", _make_timeline),
    ScreenEntry(5, "queue", "Queue", "What runs, what waits and what is done", _make_queue),
)
