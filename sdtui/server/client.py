"""A client of the server: all that the UI and the commands use of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from sdtui.protocol import Hello, Message, ProtocolError, Refused, Shutdown, Welcome, encode, read_message
from sdtui.server.launch import read_server_log, server_running, socket_paths, start_server
from sdtui.settings import SettingsError

__all__ = ["Client", "ServerUnavailable", "read_server_log", "server_running", "start_server", "stop_server"]

START_TIMEOUT_S: Final = 15.0
"""A server is up in well under a second; the rest is for a machine that is swamped."""
STOP_TIMEOUT_S: Final = 20.0
"""The server gives its worker seconds to end before it kills it, then leaves."""
_ANSWER_TIMEOUT_S: Final = 10.0
_POLL_S: Final = (0.01, 0.1)
"""First and longest pause between two tries to connect."""
_LOST_THE_RACE: Final = 3
"""Exit code of a server that found another one."""


class ServerUnavailable(ConnectionError):
    """There is no server to talk to; the text says why and what to do."""


class Client:
    """One connection to the server, past the handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, welcome: Welcome) -> None:
        self._reader = reader
        self._writer = writer
        self.welcome = welcome

    @classmethod
    async def connect(cls, *, name: str, subscribe: bool = True, previews: bool = False, start: bool = True) -> Client:
        """Connect, starting a detached server where none answers and `start` says so. Raises `ServerUnavailable`."""
        hello = Hello(client=name, subscribe=subscribe, previews=previews)
        process: subprocess.Popen[bytes] | None = None
        deadline = time.monotonic() + START_TIMEOUT_S
        pause = _POLL_S[0]
        while True:
            for path in _socket_paths():
                client = await _try_to_connect(path, hello)
                if client is not None:
                    return client
            if not start:
                raise ServerUnavailable("No server is running. `sdtui` and `sdtui generate` start one.")
            process = _running_or_new(process)
            if time.monotonic() > deadline:
                raise ServerUnavailable(_with_log(f"The server did not answer within {START_TIMEOUT_S:.0f} s."))
            await asyncio.sleep(pause)
            pause = min(_POLL_S[1], pause * 2)

    async def send(self, command: Message) -> None:
        """Send a command. Raises `ServerUnavailable` when the server has gone, `FrameTooLarge` for a huge one."""
        frame = encode(command)
        try:
            self._writer.write(frame)
            await self._writer.drain()
        except OSError as error:
            raise ServerUnavailable("The server has gone; its log may say why: `sdtui server log`.") from error

    async def events(self) -> AsyncIterator[Message]:
        """Everything the server sends from now on, until it goes."""
        with contextlib.suppress(OSError, ProtocolError):
            while (message := await read_message(self._reader)) is not None:
                yield message

    async def close(self) -> None:
        """Close the connection; a job that was submitted goes on."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def stop_server() -> int | None:
    """Ask the server to stop and wait until its process is gone; its pid, or None when none ran. Raises `ServerUnavailable`."""
    try:
        pid = server_running()
        if pid is None:
            return None
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except SettingsError as error:
        raise ServerUnavailable(str(error)) from error
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(handle, gone.set)
    try:
        async with _asked_to_stop(pid):
            await asyncio.wait_for(gone.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        message = f"The server (pid {pid}) did not stop within {STOP_TIMEOUT_S:.0f} s; `kill -9 {pid}` ends it."
        raise ServerUnavailable(message) from None
    finally:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
    return pid


@contextlib.asynccontextmanager
async def _asked_to_stop(pid: int) -> AsyncIterator[None]:
    """Send `Shutdown`; SIGTERM where the server does not talk to us, as one of another version."""
    try:
        client = await Client.connect(name="stop", subscribe=False, start=False)
    except ServerUnavailable:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        yield
        return
    try:
        await client.send(Shutdown())
        yield
    finally:
        await client.close()


def _socket_paths() -> list[Path]:
    try:
        return socket_paths()
    except SettingsError as error:
        raise ServerUnavailable(str(error)) from error


async def _try_to_connect(path: Path, hello: Hello) -> Client | None:
    """A client past the handshake; None when no server listens, or when it left just now."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except (FileNotFoundError, ConnectionError):
        return None
    except OSError as error:
        raise ServerUnavailable(f"The socket {path} cannot be used: {error.strerror or error}.") from error
    answer: Message | None = None
    try:
        writer.write(encode(hello))
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            answer = await read_message(reader)
    except TimeoutError:
        raise ServerUnavailable(_with_log("The server took the connection but does not answer.")) from None
    except ConnectionError:
        return None
    except ProtocolError as error:
        raise ServerUnavailable(f"What answers on {path} is no sdtui server: {error}") from error
    finally:
        if not isinstance(answer, Welcome):
            writer.close()
    if isinstance(answer, Refused):
        raise ServerUnavailable(answer.message)
    return Client(reader, writer, answer) if isinstance(answer, Welcome) else None


def _running_or_new(process: subprocess.Popen[bytes] | None) -> subprocess.Popen[bytes]:
    """The server being started; a new one when the last found another, which is leaving. Raises `ServerUnavailable`."""
    code = None if process is None else process.poll()
    if process is not None and code is None:
        return process
    if code not in (None, 0, _LOST_THE_RACE):
        raise ServerUnavailable(_with_log(f"The server could not start (exit code {code})."))
    try:
        return start_server()
    except OSError as error:
        raise ServerUnavailable(f"The server could not be started: {error}") from error


def _with_log(message: str) -> str:
    lines = read_server_log(8)
    return "\n".join([message, "The end of its log:", *(f"  {line}" for line in lines)]) if lines else message
