"""A client's end of the inspector, the process that looks into models."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, overload

from sdtui.protocol import (
    CompareWeights,
    DryRunDone,
    InspectionFailed,
    InspectorReply,
    InspectorRequest,
    MeasureWeight,
    ModulesRead,
    PickleRead,
    ReadModules,
    ReadPickle,
    ReadSource,
    RunDry,
    SourceRead,
    WeightMeasured,
    WeightsCompared,
)
from sdtui.server.companion import Companion, CompanionError

COMMAND: Final = (sys.executable, "-m", "sdtui.worker.inspector")
IDLE_S: Final = 60.0
"""torch takes some 400 MB of memory, which nobody should miss for longer."""
PATIENCE_S: Final = 180.0
"""The first answer waits for the imports, 10 s on a busy machine; the largest dry run takes as long again."""


class InspectorError(CompanionError):
    """A request that got no answer; one sentence for the user."""


class Inspector(Companion[InspectorReply]):
    """One inspector process at a time, whichever that is just now; belongs to one event loop."""

    name = "inspector"
    replies = InspectorReply
    error = InspectorError

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        *,
        log_path: Path | None = None,
        idle_s: float = IDLE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(command, log_path=log_path, idle_s=idle_s, patience_s=patience_s)

    @overload
    async def request(self, message: ReadModules) -> ModulesRead: ...
    @overload
    async def request(self, message: ReadPickle) -> PickleRead: ...
    @overload
    async def request(self, message: RunDry) -> DryRunDone: ...
    @overload
    async def request(self, message: MeasureWeight) -> WeightMeasured: ...
    @overload
    async def request(self, message: CompareWeights) -> WeightsCompared: ...
    @overload
    async def request(self, message: ReadSource) -> SourceRead: ...
    async def request(self, message: InspectorRequest) -> InspectorReply:
        """The reply to a message, whose number is chosen here. Raises `InspectorError` where there is none."""
        reply = await self.ask(message)
        if isinstance(reply, InspectionFailed):
            raise InspectorError(reply.message)
        return reply
