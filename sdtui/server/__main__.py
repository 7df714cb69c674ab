"""`python -m sdtui.server`: the server of one user, until nobody needs it. Exit codes: 0 left in order, 1 could not start,
3 another one runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from sdtui import settings
from sdtui.server.endpoint import AlreadyRunning, Endpoint, EndpointError, Lock
from sdtui.server.logfile import output_is, redirect_output
from sdtui.server.schema import DatabaseError
from sdtui.server.server import Server
from sdtui.server.store import Store

EXIT_CANNOT_START: Final = 1
EXIT_ALREADY_RUNNING: Final = 3
log = logging.getLogger("sdtui.server")


def main() -> int:
    """Take the lock and the socket, then serve."""
    user_umask = os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        configured = settings.load_settings()
        path = settings.socket_path()
        Lock(settings.database_lock_path(), path)  # held to the end of the process
        if output_is(settings.server_log_path()):
            redirect_output(settings.server_log_path())
        endpoint = Endpoint(path)
        listener = endpoint.open()
        try:
            asyncio.run(_serve(configured, endpoint, listener, user_umask))
        finally:
            endpoint.close()
    except AlreadyRunning as error:
        log.error("%s", error)
        return EXIT_ALREADY_RUNNING
    except (EndpointError, DatabaseError, settings.SettingsError, OSError) as error:
        log.error("The server cannot start: %s", error)
        return EXIT_CANNOT_START
    return 0


async def _serve(configured: settings.Settings, endpoint: Endpoint, listener: socket.socket, user_umask: int) -> None:
    store = await Store.open(settings.database_path())
    os.chdir("/")  # a server that outlives its terminal must not keep a directory busy
    server = Server(
        configured,
        store,
        worker_command=worker_command(configured),
        worker_log=settings.worker_log_path(),
        server_log=settings.server_log_path(),
        worker_umask=user_umask,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop, signal.Signals(number).name)
    loop.add_signal_handler(signal.SIGHUP, log.info, "the terminal is gone; the work goes on")
    await server.serve(endpoint, listener)


def worker_command(configured: settings.Settings) -> list[str]:
    """How the worker is started: as the settings say, else with this Python."""
    try:
        given = shlex.split(configured.worker.command)
    except ValueError as error:
        raise settings.SettingsError(f"worker.command cannot be read as a command: {error}.") from error
    return [str(Path(given[0]).expanduser()), *given[1:]] if given else [sys.executable, "-m", "sdtui.worker"]


if __name__ == "__main__":
    sys.exit(main())
