"""`sdtui` alone: the app."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, get_args

import msgspec

from sdtui.cli.output import EXIT_BAD_INPUT, CommandError, complain
from sdtui.settings import ImageProtocol, Settings, SettingsError, load_settings, nearest
from sdtui.terminal.probe import start_probe

if TYPE_CHECKING:
    from sdtui.ui.app import SdtuiApp

PROTOCOLS: Final[tuple[str, ...]] = get_args(ImageProtocol)


def settings_or_error() -> Settings:
    """The settings in force. Raises `CommandError`."""
    try:
        return load_settings()
    except SettingsError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error


def start_app(image_protocol: str | None = None, *, opening: Callable[[SdtuiApp], Awaitable[None]] | None = None) -> int:
    """Run the app until it is left; its return code. What is wrong with the settings is said before the screen is taken.

    The terminal is asked first, and answers while the app is imported. `opening` shows what is to be seen first.
    """
    settings = settings_or_error()
    if image_protocol is not None:
        settings = with_image_protocol(settings, image_protocol)
    probe = start_probe()
    try:
        from sdtui.ui.app import SdtuiApp

        probe.wait()
        if "COLORTERM" not in os.environ:
            from sdtui.terminal.verdict import settle_colorterm

            settle_colorterm(probe.report(), os.environ)
        app = SdtuiApp(settings, probe=probe, opening=opening)
        app.run()
    finally:
        probe.restore()
    return app.return_code or 0


def with_image_protocol(settings: Settings, name: str) -> Settings:
    """The settings with this way to draw pictures. Raises `CommandError` for an unknown one."""
    check_protocol(name)
    terminal = msgspec.structs.replace(settings.terminal, image_protocol=name)
    return msgspec.structs.replace(settings, terminal=terminal)


def check_protocol(name: str | None) -> None:
    """Raises `CommandError` for a `--image-protocol` that there is not; None is none given."""
    if name is not None and name not in PROTOCOLS:
        raise CommandError(f"--image-protocol: {name!r} is not known; {nearest(name, PROTOCOLS)}", EXIT_BAD_INPUT)


def start() -> int:
    """`start_app`, with its errors told."""
    try:
        return start_app()
    except CommandError as error:
        complain(str(error))
        return error.code
