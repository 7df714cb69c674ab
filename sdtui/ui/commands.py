"""The commands of the palette: what the keys do, and what needs no key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand
from textual.screen import Screen

from sdtui.protocol import Status
from sdtui.settings import Settings, output_dir, settings_path
from sdtui.ui.bindings import key_text, own_bindings
from sdtui.ui.screens import SCREENS
from sdtui.ui.screens.create import CreateScreen

if TYPE_CHECKING:
    from sdtui.ui.app import SdtuiApp


def commands(app: SdtuiApp, screen: Screen[Any], settings: Settings) -> Iterable[SystemCommand]:
    """Everything that can be done now."""
    if isinstance(screen, CreateScreen):
        yield from _create_commands(app, screen)
    else:
        yield from _possible_actions(app, screen)
    for entry in SCREENS:
        yield SystemCommand(f"Go to {entry.label}", entry.purpose, _later(app, f"app.show_screen('{entry.name}')"))
    yield SystemCommand("Change theme", "Choose the colours", _later(app, "app.choose_theme"))
    yield SystemCommand("Help", "Every key", _later(app, "app.show_help"))
    folder = str(output_dir(settings))
    yield SystemCommand("Copy output folder", folder, lambda: _copy(app, folder))
    yield SystemCommand("Copy settings path", str(settings_path()), lambda: _copy(app, str(settings_path())))
    yield SystemCommand("Quit", "Leave; jobs go on", _later(app, "app.quit"))


def _create_commands(app: SdtuiApp, screen: CreateScreen) -> Iterable[SystemCommand]:
    yield SystemCommand("Generate", "Make the picture", _later(app, "screen.generate"))
    yield SystemCommand("Explain", "Run the sampling function line by line", screen.action_explain)
    if screen.following.can_cancel:
        yield SystemCommand("Cancel", "Stop the job within the current step", screen.action_cancel)
        yield SystemCommand("Stop when …", "Stop now, after this picture, or after this step", screen.action_choose_stop)
        pause = ("Resume", "Let the job go on") if screen.following.paused else ("Pause", "Take the job off the device")
        yield SystemCommand(*pause, screen.action_pause_job)
    yield SystemCommand("Choose initial image …", "Begin with a finished picture (^O)", screen.action_choose_initial)
    if screen.picture.saved is not None:
        yield SystemCommand("Use this picture as initial image", "Begin the next one with it", screen.action_use_picture)
    if screen.shown_params is not None:
        yield SystemCommand(
            "Take over settings", "Write those of the job that is shown into the form", screen.action_take_settings
        )
    yield SystemCommand("Random seed", "Draw a seed and keep it", screen.action_randomise_seed)
    yield SystemCommand("Lock seed", "Keep the last seed, or draw one for each job", screen.action_lock_seed)
    yield SystemCommand("Reset form", "Put every field back to its default", screen.action_reset_form)
    yield SystemCommand("Load model", "Load the model that the form names", screen.action_load_model)
    yield SystemCommand("Copy log", "Put every row of the step log on the clipboard", screen.steps.action_copy_all)
    yield SystemCommand("Server status", "Ask the server how it is", lambda: screen.send(Status()))
    yield SystemCommand("Reconnect", "Try to reach the server now", screen.action_retry)


def _possible_actions(app: SdtuiApp, screen: Screen[Any]) -> Iterable[SystemCommand]:
    """What the keys of a screen do, as far as it is possible now."""
    possible = {entry.binding.id for entry in screen.active_bindings.values() if entry.enabled}
    for binding in own_bindings(type(screen)):
        if binding.id in possible:
            title = binding.description or binding.tooltip
            yield SystemCommand(title, f"{binding.tooltip} ({key_text(binding.key)})", _later(app, f"screen.{binding.action}"))


def _later(app: SdtuiApp, action: str) -> Callable[[], Any]:
    async def run() -> None:
        await app.run_action(action)

    return run


def _copy(app: SdtuiApp, text: str) -> None:
    app.copy_to_clipboard(text)
    app.notify(text, title="Copied", markup=False)
