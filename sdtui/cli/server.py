"""`sdtui server`: start it, stop it, look at it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from sdtui.cli.connection import ask, connected
from sdtui.cli.output import EXIT_DONE, CommandError, note, result, result_json, table
from sdtui.protocol import ServerStatus, Status
from sdtui.server.client import ServerUnavailable, read_server_log, stop_server
from sdtui.settings import server_log_path
from sdtui.text import format_seconds

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    help="Start, stop or look at the server.",
    epilog="Example: sdtui server status --json",
)


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
    """Stop the server; the running job and those that wait go on with the next one."""
    try:
        pid = asyncio.run(stop_server())
    except ServerUnavailable as error:
        raise CommandError(str(error)) from error
    note(f"The server (process id {pid}) has stopped." if pid else "No server is running.")
    return EXIT_DONE


@app.command()
def log(lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 50) -> int:
    """Print the end of the server's log."""
    last = read_server_log(lines)
    if not last:
        note(f"Nothing is logged at {server_log_path()}; the server writes there from its start.")
    for line in last:
        result(line)
    return EXIT_DONE


async def _status(*, start: bool) -> ServerStatus:
    async with connected(start=start) as client:
        return await ask(client, Status(), ServerStatus)
