"""The initial image of a command: checked and taken into the store before the server is asked for anything."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from sdtui.cli.options import BadParams, option_name
from sdtui.cli.output import note
from sdtui.initial_image import InitialImageError, found_source, is_url, take_in
from sdtui.params import GenerationParams
from sdtui.settings import Settings, initial_dir
from sdtui.text import format_bytes

_SAY_S: Final = 2.0
"""Between two lines about a download."""


def with_initial_image(params: GenerationParams, settings: Settings) -> GenerationParams:
    """The same with the copy in the store for what was named. Raises `BadParams`; Ctrl-C leaves nothing half-written."""
    if params.init_image is None:
        return params
    source, told = found_source(params.init_image), _Told()
    try:
        if is_url(source):
            from sdtui.fetching import shown_url  # late: httpx takes a fifth of a second to import

            note(f"Fetching {shown_url(source)}; Ctrl-C leaves.")
        taken = take_in(source, initial_dir(), allow_private=settings.network.private_addresses, progress=told.progress)
    except InitialImageError as error:
        raise BadParams(f"{option_name('init_image')}: {error}", "init_image") from error
    except KeyboardInterrupt:
        note("Left; nothing was queued.")
        raise
    return msgspec.structs.replace(params, init_image=str(taken.path))


class _Told:
    """Says now and then how far a file is that takes long."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` bytes, which are 0 where nobody knows."""
        if time.monotonic() - self._last > _SAY_S:
            self._last = time.monotonic()
            note(f"{format_bytes(done)} of {format_bytes(total)}" if total else format_bytes(done))
