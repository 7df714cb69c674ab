"""The lock, the socket, and who may use them."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import stat
from pathlib import Path

import pytest

from sdtui.server.endpoint import (
    AlreadyRunning,
    Endpoint,
    EndpointError,
    Holder,
    Lock,
    bind_socket,
    peer_credentials,
    read_holder,
)
from sdtui.server.logfile import MAX_LOG_BYTES, open_log

SOCKET = Path("/run/server.sock")


def test_the_lock_is_held_once_and_names_its_holder(home: Path) -> None:
    path = home / "data" / "server.lock"
    lock = Lock(path, SOCKET)
    with pytest.raises(AlreadyRunning, match=rf"running already \(pid {os.getpid()}\)"):
        Lock(path, SOCKET)
    lock.release()
    Lock(path, SOCKET).release()
    assert read_holder(path) == Holder(os.getpid(), platform.node(), str(SOCKET))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_holder_on_another_machine_with_the_same_home_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "gpu-box")
    lock = Lock(home / "server.lock", SOCKET)
    monkeypatch.setattr(platform, "node", lambda: "laptop")
    with pytest.raises(AlreadyRunning, match=r"on gpu-box \(pid \d+\), with the same database; stop it there"):
        Lock(home / "server.lock", SOCKET)
    lock.release()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"pid": "one"}'])
def test_a_lock_file_that_says_nothing_of_use_is_passed_over(home: Path, content: bytes) -> None:
    (home / "server.lock").write_bytes(content)
    assert read_holder(home / "server.lock") is None
    Lock(home / "server.lock", SOCKET).release()


def test_a_link_in_place_of_the_lock_is_not_followed(home: Path) -> None:
    lock = home / "server.lock"
    lock.symlink_to(home / "precious")
    with pytest.raises(OSError, match="Too many levels"):
        Lock(lock, SOCKET)
    assert not (home / "precious").exists()


def test_an_endpoint_knows_when_its_socket_is_gone_and_makes_it_again(home: Path) -> None:
    runtime = home / "run" / "sdtui"
    runtime.mkdir(mode=0o700)
    place = Endpoint(runtime / "server.sock")
    place.open().close()
    assert not place.is_lost()
    shutil.rmtree(home / "run")
    assert not place.is_lost(), "as long as there is no place for it, there is nothing to make again"
    (home / "run").mkdir(mode=0o700)
    assert place.is_lost()
    runtime.mkdir(mode=0o700)
    place.open().close()
    assert not place.is_lost()
    place.close()
    assert not place.path.exists()


def test_an_endpoint_does_not_take_the_place_of_a_living_server(home: Path) -> None:
    first = Endpoint(home / "server.sock")
    listener = first.open()
    with pytest.raises(AlreadyRunning):
        Endpoint(home / "server.sock").open()
    assert not first.is_lost()
    listener.close()
    first.close()


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
