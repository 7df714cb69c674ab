"""The app at a job's steps, with a ticker on its event loop and without a server; a child of `bench timeline`.

Arguments: the job, and a file descriptor. When it is left it writes one JSON list there: of each gap between two ticks when it
ended, in monotonic seconds, and [wall_s, busy_s].
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any, NoReturn

from sdtui.bench.ticker import Gap, tick
from sdtui.settings import load_settings
from sdtui.terminal.probe import start_probe
from sdtui.ui.app import SdtuiApp


async def _nobody(**_: Any) -> NoReturn:
    raise OSError("there is no server for this measurement")


def main() -> None:
    """Run the app until it is left."""
    job, descriptor = sys.argv[1], int(sys.argv[2])
    gaps: list[tuple[float, Gap]] = []
    kept: list[asyncio.Task[None]] = []  # so that it is not collected

    async def opening(app: SdtuiApp) -> None:
        await app.show_timeline(job)
        kept.append(asyncio.create_task(tick(lambda gap: gaps.append((time.monotonic(), gap)))))

    probe = start_probe()
    probe.wait()
    SdtuiApp(load_settings(), connect=_nobody, probe=probe, opening=opening).run()
    probe.restore()
    os.write(descriptor, json.dumps(gaps).encode())


if __name__ == "__main__":
    main()
