"""`sdtui` alone: the app."""

from __future__ import annotations

from sdtui.cli.output import EXIT_BAD_INPUT, CommandError, complain
from sdtui.settings import Settings, SettingsError, load_settings


def settings_or_error() -> Settings:
    """The settings in force. Raises `CommandError`."""
    try:
        return load_settings()
    except SettingsError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error


def start_app() -> int:
    """Run the app until it is left; its return code. What is wrong with the settings is said before the screen is taken."""
    settings = settings_or_error()
    from sdtui.ui.app import SdtuiApp

    app = SdtuiApp(settings)
    app.run()
    return app.return_code or 0


def start() -> int:
    """`start_app`, with its errors told."""
    try:
        return start_app()
    except CommandError as error:
        complain(str(error))
        return error.code
