"""`python -m sdtui.worker`: commands come on stdin, events go out on what was stdout, and stderr is the log."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from typing import BinaryIO, Final

_PR_SET_PDEATHSIG: Final = 1
"""prctl(2)"""


def take_the_wire() -> BinaryIO:
    """Keep stdout for the protocol, and point fd 1 at stderr: whatever a library prints cannot corrupt a message."""
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return wire


def die_with_the_server() -> None:
    """Ask Linux for SIGTERM when the server dies; elsewhere the end of stdin is enough."""
    if sys.platform != "linux":
        return
    server = os.getppid()
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        return
    if os.getppid() != server:  # it died before we asked
        os._exit(1)


def main() -> int:
    """Run the worker; returns the exit code: 0 when the server closed stdin, 65 when it sent what is no message."""
    wire = take_the_wire()
    die_with_the_server()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl+c in the server's terminal is the server's to handle

    from sdtui.settings import SettingsError, load_settings
    from sdtui.worker.quiet import prepare_environment
    from sdtui.worker.service import Worker, log_to_stderr

    log_to_stderr()
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    prepare_environment(settings.worker.threads, settings.worker.offline)
    return Worker(sys.stdin.buffer, wire, settings).run()


if __name__ == "__main__":
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # the libraries' threads and destructors have nothing left to say, and some take seconds
