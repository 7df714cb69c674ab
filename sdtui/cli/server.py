"""`sdtui server`: start it, stop it, look at it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Annotated, Final

import msgspec
import psutil
import typer

from sdtui.cli.connection import ask, connected
from sdtui.cli.output import EXIT_DONE, EXIT_FAILED, CommandError, note, result, result_json, table
from sdtui.protocol import ServerStatus, Shutdown, Status
from sdtui.settings import server_log_path
from sdtui.text import format_seconds

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True, help="Start, stop or look at the server.")
_STOP_S: Final = 15.0
"""The worker is given some seconds to end; the server leaves after it."""


@app.command()
def start() -> int:
    """Start the server, if none runs. Every other command does that by itself."""
    status = asyncio.run(_status(start=True))
    result(f"The server runs with process id {status.pid}.")
    return EXIT_DONE


@app.command()
def status(json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False) -> int:
    """Show the server's state; exit code 3 when none runs.

    Example: sdtui server status --json
    """
    found = asyncio.run(_status(start=False))
    if json:
        result_json(msgspec.json.encode(found))
        return EXIT_DONE
    worker = f"{found.worker}, process id {found.worker_pid}" if found.worker_pid else found.worker
    rows = [
        ("version", found.version),
        ("process id", str(found.pid)),
        ("runs for", format_seconds(found.uptime_s)),
        ("idle for", f"{format_seconds(found.idle_s)}; it leaves after {format_seconds(found.idle_timeout_s)}"),
        ("clients", str(found.clients)),
        ("jobs", f"{found.queued} waiting, {found.running or 'none'} running"),
        ("worker", worker),
        ("socket", found.socket),
        ("database", found.database),
        ("log", found.log),
    ]
    for line in table(rows):
        result(line)
    return EXIT_DONE


@app.command()
def stop() -> int:
    """Stop the server; a running job is cancelled, queued jobs stay queued."""
    try:
        pid = asyncio.run(_shut_down())
    except CommandError as error:
        note(f"{error}")
        return EXIT_DONE
    deadline = time.monotonic() + _STOP_S
    while _runs(pid):
        if time.monotonic() > deadline:
            raise CommandError(f"The server (process id {pid}) still runs after {_STOP_S:.0f} s; end it with: kill {pid}")
        time.sleep(0.02)
    note(f"The server (process id {pid}) has stopped.")
    return EXIT_DONE


@app.command()
def log(lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 50) -> int:
    """Print the end of the server's log."""
    path = server_log_path()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            last = deque(file, maxlen=lines)
    except FileNotFoundError:
        raise CommandError(f"There is no log yet at {path}; the server writes it when it starts.", EXIT_FAILED) from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    for line in last:
        result(line.rstrip("\n"))
    return EXIT_DONE


async def _status(*, start: bool) -> ServerStatus:
    async with connected(start=start) as client:
        return await ask(client, Status(), ServerStatus)


async def _shut_down() -> int:
    """Ask the server to leave and wait until the connection ends; its process id."""
    async with connected(start=False) as client:
        await client.send(Shutdown())
        async for _ in client.events():
            continue
        return client.welcome.pid


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
