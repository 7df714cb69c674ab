"""The server's place in the file system: one lock a user, one socket, and who may connect to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

MAX_SOCKET_PATH_BYTES: Final = 107
"""`sun_path` has 108 bytes with its final zero (unix(7))."""
_UCRED: Final = struct.Struct("3i")


class EndpointError(Exception):
    """The server cannot take its place; the text is for the user."""


class AlreadyRunning(EndpointError):
    """Another server of this user holds the lock."""


class Socket(Protocol):
    """What `peer_credentials` needs of a socket; asyncio's `TransportSocket` has it too."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """The bytes of a socket option."""
        ...


def lock_path(socket_path: Path) -> Path:
    """The lock file beside a socket."""
    return socket_path.with_suffix(".lock")


@contextlib.contextmanager
def server_lock(path: Path) -> Iterator[None]:
    """Hold the lock of the one server, with our pid written into it. Raises `AlreadyRunning`.

    The kernel drops the lock with the process, however that ends. The file stays: removing it would let two servers
    hold two different locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise AlreadyRunning(f"A server is running already (pid {pid}). `sdtui server stop` ends it.") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def bind_socket(path: Path) -> socket.socket:
    """A socket bound to `path`, mode 0600, in the place of a dead server's; for who holds the lock. Raises `EndpointError`."""
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise EndpointError(
            f"The socket path {path} has {size} bytes; the system takes {MAX_SOCKET_PATH_BYTES}. "
            "Set XDG_RUNTIME_DIR to a shorter directory."
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)  # the mode must be right from the first moment on, chmod would come too late
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise EndpointError(f"The socket {path} cannot be made: {error.strerror}.") from error
    finally:
        os.umask(umask)
    return listener


def peer_credentials(connected: Socket) -> tuple[int, int]:
    """Process and user id of the other end, as the kernel noted them (SO_PEERCRED, unix(7))."""
    pid, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid
