"""`python -m sdtui.worker.explainer`: requests come on stdin, replies go out on what was stdout, and stderr is the log.

It takes the device and the threads that a worker would take, and on a CPU stands back behind it by its priority.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback


def main() -> int:
    """Answer until the client closes stdin; then the exit code is 0, and 65 where it sent what is no message."""
    from sdtui.worker.__main__ import take_the_wire

    wire = take_the_wire()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl+c in the terminal is the client's to handle

    from sdtui.settings import SettingsError, load_settings
    from sdtui.worker.companion import Client
    from sdtui.worker.explainer.service import Service
    from sdtui.worker.quiet import prepare_environment, quieten_libraries
    from sdtui.worker.service import CPU_NICENESS, log_to_stderr

    log_to_stderr()
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    prepare_environment(settings.worker.threads, settings.worker.offline)
    with contextlib.suppress(OSError):
        os.nice(CPU_NICENESS)
    client = Client(sys.stdin.buffer, wire)
    service = Service(client, settings)
    client.start_reading(service.on_request)

    import torch

    torch.set_num_threads(settings.worker.threads or len(os.sched_getaffinity(0)))
    quieten_libraries()
    service.run()
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)
