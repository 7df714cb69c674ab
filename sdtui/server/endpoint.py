"""The server's place in the file system: one lock a database, one socket with a lock of its own, and who may connect to it.

The two locks are for two cases. systemd removes `XDG_RUNTIME_DIR` when the user's last session ends, and makes an empty
one at the next login: the server works on, and only the lock beside the database says so. And two servers with
different databases may meet at one socket.
"""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import struct
from pathlib import Path
from typing import Final, Protocol

import msgspec

MAX_SOCKET_PATH_BYTES: Final = 107
"""`sun_path` has 108 bytes with its final zero (unix(7))."""
_UCRED: Final = struct.Struct("3i")
_MAX_HOLDER_BYTES: Final = 4096


class EndpointError(Exception):
    """The server cannot take its place; the text is for the user."""


class AlreadyRunning(EndpointError):
    """Another server of this user holds the lock."""


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock, as the lock file says."""

    pid: int
    host: str
    socket: str


class Socket(Protocol):
    """What `peer_credentials` needs of a socket; asyncio's `TransportSocket` has it too."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """The bytes of a socket option."""
        ...


class Lock:
    """A lock on a file, held until `release` or the end of the process, however that comes.

    The file stays: removing it would let two servers hold two different locks.
    """

    def __init__(self, path: Path, socket_path: Path) -> None:
        """Take the lock and write down who has it. Raises `AlreadyRunning`, `OSError`."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise AlreadyRunning(_who(read_holder(path))) from None
        holder = Holder(os.getpid(), platform.node(), str(socket_path))
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, msgspec.json.encode(holder), 0)

    def release(self) -> None:
        """Let go."""
        os.close(self._handle)


def _who(holder: Holder | None) -> str:
    if holder is None:
        return "A server is running already. `sdtui server stop` ends it."
    if holder.host != platform.node():
        return f"A server is running already on {holder.host} (pid {holder.pid}), with the same database; stop it there."
    return f"A server is running already (pid {holder.pid}). `sdtui server stop` ends it."


def read_holder(path: Path) -> Holder | None:
    """Who wrote the lock file last, alive or not; None when there is none that can be read."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_HOLDER_BYTES), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None


class Endpoint:
    """The server's socket: made, and made again when its directory was taken away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Lock | None = None
        self._inode = 0

    def open(self) -> socket.socket:
        """A bound socket, mode 0600, in the place of a dead server's. Raises `EndpointError`, `OSError`."""
        lock = Lock(self.path.with_suffix(".lock"), self.path)
        try:
            listener = bind_socket(self.path)
        except EndpointError:
            lock.release()
            raise
        if self._lock is not None:
            self._lock.release()
        self._lock = lock
        self._inode = self.path.stat().st_ino
        return listener

    def is_lost(self) -> bool:
        """Whether the socket is gone while its place is there for a new one."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return self.path.parent.parent.is_dir()

    def close(self) -> None:
        """Remove the socket, and let go of its lock."""
        if self._lock is None:
            return
        if not self.is_lost():
            self.path.unlink(missing_ok=True)
        self._lock.release()
        self._lock = None


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
