"""`python -m sdtui.worker.inspector`: requests come on stdin, replies go out on what was stdout, and stderr is the log.

It stands back behind the generating worker: it sees no GPU, uses one core, and that one politely.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import traceback
from typing import Final

_NICE: Final = 5
_MEMORY_BYTES: Final = 8 << 30
"""Shapes need next to none; a configuration that asks for more is stopped here, and not by the kernel at the worker's cost."""
_NO_GPU: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


def main() -> None:
    """Answer until the client closes stdin; then the exit code is 0, and 65 where it sent what is no message."""
    from sdtui.worker.__main__ import take_the_wire

    wire = take_the_wire()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl+c in the terminal is the client's to handle
    for name in _NO_GPU:
        os.environ[name] = ""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    _limit_memory()

    from sdtui.worker.companion import Client
    from sdtui.worker.inspector.service import Service
    from sdtui.worker.quiet import prepare_environment, quieten_libraries
    from sdtui.worker.service import log_to_stderr

    log_to_stderr()
    prepare_environment(threads=1, offline=True)
    client = Client(sys.stdin.buffer, wire)
    service = Service(client)
    client.start_reading(service.on_request)
    quieten_libraries()
    service.run()


def _limit_memory() -> None:
    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        lowest = min([_MEMORY_BYTES, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)])
        resource.setrlimit(resource.RLIMIT_DATA, (lowest, hard))


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
