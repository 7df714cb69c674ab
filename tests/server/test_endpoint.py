"""The lock, the socket, and who may use them."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from sdtui.server.endpoint import AlreadyRunning, EndpointError, bind_socket, lock_path, peer_credentials, server_lock
from sdtui.server.logfile import MAX_LOG_BYTES, open_log


def test_the_lock_is_held_once_and_names_its_holder(home: Path) -> None:
    lock = lock_path(home / "server.sock")
    with server_lock(lock), pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}\)"), server_lock(lock):
        pass
    with server_lock(lock):
        assert lock.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_a_link_in_place_of_the_lock_is_not_followed(home: Path) -> None:
    lock = home / "server.lock"
    lock.symlink_to(home / "precious")
    with pytest.raises(OSError, match="Too many levels"), server_lock(lock):
        pass
    assert not (home / "precious").exists()


def test_the_socket_is_private(home: Path) -> None:
    with bind_socket(home / "server.sock"):
        assert stat.S_IMODE((home / "server.sock").stat().st_mode) == 0o600


def test_a_stale_socket_is_replaced(home: Path) -> None:
    bind_socket(home / "server.sock").close()
    with bind_socket(home / "server.sock") as listener, socket.socket(socket.AF_UNIX) as client:
        listener.listen()
        client.connect(str(home / "server.sock"))


def test_a_path_that_is_too_long_says_what_to_set(home: Path) -> None:
    with pytest.raises(EndpointError, match=r"has 1\d\d bytes; the system takes 107\. Set XDG_RUNTIME_DIR"):
        bind_socket(home / ("x" * 100) / "server.sock")


def test_a_directory_in_the_place_of_the_socket_is_named(home: Path) -> None:
    (home / "server.sock").mkdir()
    with pytest.raises(EndpointError, match=r"server\.sock cannot be made"):
        bind_socket(home / "server.sock")


def test_the_other_end_is_known_by_the_kernels_word() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_credentials(ours) == (os.getpid(), os.getuid())


def test_a_large_log_is_put_aside(home: Path) -> None:
    log = home / "logs" / "server.log"
    with open_log(log) as file:
        file.write(b"old\n")
    with open_log(log) as file:
        file.write(b"more\n")
    assert log.read_text() == "old\nmore\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    os.truncate(log, MAX_LOG_BYTES + 1)
    with open_log(log) as file:
        file.write(b"new\n")
    assert log.read_text() == "new\n"
    assert (home / "logs" / "server.log.1").stat().st_size == MAX_LOG_BYTES + 1
