"""The app as it is, with a ticker on its event loop and a witness on its connection; a child of `bench stall` and `first-step`.

Writes one JSON object a line to the file descriptor given as its argument: `{"at": monotonic seconds, "type": event}`, and
for each job that ended `{"type": "ticks", "gaps": [[wall_s, busy_s], ...]}`, what lay between two ticks while it ran.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from sdtui.bench.ticker import Gap, tick
from sdtui.protocol import JOB_ENDS, JobStarted, Message, ModelLoaded, PreviewReady, StageStarted, StepFinished, Welcome
from sdtui.server.client import Client
from sdtui.settings import load_settings
from sdtui.ui.app import SdtuiApp

_TOLD: Final = (ModelLoaded, JobStarted, StageStarted, StepFinished, PreviewReady, *JOB_ENDS)


class Witness:
    """A client that notes when each event reached the UI's event loop."""

    def __init__(self, client: Client, descriptor: int) -> None:
        self._client = client
        self._descriptor = descriptor
        self._gaps: list[Gap] | None = None
        self._ticker = asyncio.create_task(tick(self._keep))

    @property
    def welcome(self) -> Welcome:
        """The client's."""
        return self._client.welcome

    async def send(self, command: Message) -> None:
        """Pass a command on."""
        await self._client.send(command)

    async def close(self) -> None:
        """Close the client, stop the ticker."""
        self._ticker.cancel()
        await self._client.close()

    async def events(self) -> AsyncIterator[Message]:
        """The client's events, each noted."""
        if self.welcome.model is not None:
            self._tell("ModelLoaded")
        async for message in self._client.events():
            self._note(message)
            yield message

    def _note(self, message: Message) -> None:
        if isinstance(message, _TOLD):
            stage = message.stage if isinstance(message, StageStarted) else ""
            self._tell(stage or type(message).__name__)
        if isinstance(message, JobStarted):
            self._gaps = []
        elif isinstance(message, JOB_ENDS) and self._gaps is not None:
            self._tell("ticks", gaps=self._gaps)
            self._gaps = None

    def _tell(self, kind: str, **more: Any) -> None:
        line = json.dumps({"at": time.monotonic(), "type": kind, **more}) + "\n"
        os.write(self._descriptor, line.encode())

    def _keep(self, gap: Gap) -> None:
        if self._gaps is not None:
            self._gaps.append(gap)


def main() -> None:
    """Run the app; the descriptor is the first argument."""
    descriptor = int(sys.argv[1])

    async def connect(*, name: str, subscribe: bool = True, previews: bool = False) -> Any:
        return Witness(await Client.connect(name=name, subscribe=subscribe, previews=previews), descriptor)

    SdtuiApp(load_settings(), connect=connect).run()


if __name__ == "__main__":
    main()
