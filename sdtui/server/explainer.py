"""A client's end of the explainer, the process that runs a sampling function line by line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, overload

from sdtui.protocol import (
    Advance,
    ExplainedSaved,
    ExplainerReply,
    ExplainerRequest,
    ExplainingFailed,
    ExplainingStarted,
    LinesRan,
    Message,
    SaveExplained,
    StartExplaining,
)
from sdtui.server.companion import Companion, CompanionError

COMMAND: Final = (sys.executable, "-m", "sdtui.worker.explainer")
IDLE_S: Final = 3600.0
"""A line may be thought about for long, and the end of the process ends the run; a model that nobody came back to is let go."""
PATIENCE_S: Final = 3600.0
"""The first answer may wait for a model to be fetched; then a line takes at most minutes, as one U-Net call on a slow CPU."""


class ExplainerError(CompanionError):
    """A request that got no answer; one sentence for the user."""

    def __init__(self, message: str, *, field: str | None = None, line: int | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.field = field
        """The parameter to change, where it is one."""
        self.line = line
        """Of the function, that failed."""
        self.detail = detail
        """A traceback, for `--debug`."""


class Explainer(Companion[ExplainerReply]):
    """One explainer process at a time, whichever that is just now; belongs to one event loop.

        explainer = Explainer()
        started = await explainer.request(StartExplaining(request=0, params=params))
        ran = await explainer.request(Advance(request=0, to="stage"))
        await explainer.close()

    The process lives until `close`, or an hour without a request. One that ended has lost its run: the next `Advance` starts
    another process, and is told that nothing is explained.
    """

    name = "explainer"
    replies = ExplainerReply
    error = ExplainerError

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        *,
        log_path: Path | None = None,
        idle_s: float | None = IDLE_S,
        patience_s: float | None = PATIENCE_S,
        on_message: Callable[[Message], None] = lambda _: None,
    ) -> None:
        """`on_message` is given each `DownloadProgress` of a hub model that is fetched."""
        super().__init__(command, log_path=log_path, idle_s=idle_s, patience_s=patience_s, on_message=on_message)

    @overload
    async def request(self, message: StartExplaining) -> ExplainingStarted: ...
    @overload
    async def request(self, message: Advance) -> LinesRan: ...
    @overload
    async def request(self, message: SaveExplained) -> ExplainedSaved: ...
    async def request(self, message: ExplainerRequest) -> ExplainerReply:
        """The reply to a message, whose number is chosen here. Raises `ExplainerError` where there is none."""
        reply = await self.ask(message)
        if isinstance(reply, ExplainingFailed):
            raise ExplainerError(reply.message, field=reply.field, line=reply.line, detail=reply.detail)
        return reply
