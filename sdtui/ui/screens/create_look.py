"""What the next jobs of the Create screen show of their networks while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from sdtui.protocol import InspectMode
from sdtui.settings import SettingsError, save_setting

if TYPE_CHECKING:
    from sdtui.ui.screens.create import CreateScreen

_LOOKS: Final[dict[str, tuple[InspectMode, bool, str]]] = {
    "off": ("off", False, "nothing: the fastest"),
    "words": ("off", True, "where the words act"),
    "blocks": ("blocks", False, "each block of the networks"),
    "blocks-words": ("blocks", True, "each block, and where the words act"),
    "modules": ("modules", False, "every module"),
    "modules-words": ("modules", True, "every module, and where the words act"),
}
_SHORT: Final[dict[InspectMode, str]] = {"off": "", "blocks": "blocks", "modules": "modules"}


def choose(screen: CreateScreen) -> None:
    """Choose what is looked at; it is kept in the settings."""
    from sdtui.ui.screens.chooser import Chooser

    chosen = screen.settings.inspect
    current = next(name for name, (mode, words, _) in _LOOKS.items() if (mode, words) == (chosen.look, chosen.words))
    choices = [(name, label) for name, (_, _, label) in _LOOKS.items()]

    def take(name: str | None) -> None:
        if name is not None:
            mode, words, _ = _LOOKS[name]
            _keep(screen, mode, words=words)

    screen.app.push_screen(Chooser("While a job runs, look at", choices, current), take)


def _keep(screen: CreateScreen, mode: InspectMode, *, words: bool) -> None:
    screen.settings = msgspec.structs.replace(
        screen.settings, inspect=msgspec.structs.replace(screen.settings.inspect, look=mode, words=words)
    )
    screen.estimate.show()
    try:
        save_setting("inspect", "look", mode)
        save_setting("inspect", "words", words)
    except SettingsError as error:
        screen.notify(str(error), title="Not kept", severity="warning", markup=False)


def words_of(screen: CreateScreen) -> str:
    """What is looked at, for the form's border; empty where nothing is."""
    look = screen.settings.inspect
    parts = [part for part in (_SHORT[look.look], "words" if look.words else "") if part]
    return " and ".join(parts)
