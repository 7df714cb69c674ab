"""A worker that has its imports behind it: one process imports torch and diffusers once, and forks for each worker.

`warm_worker.py nest SOCKET` is that process. `warm_worker.py SOCKET` is what the server starts as its worker: it hands its
stdin, stdout and stderr to a fork, which runs the real worker from its first line, and dies of whatever that one dies of.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

_DIE_WITH_PARENT = 1


def stand_in(place: str) -> None:
    """What the server starts: it is there as long as the fork, and signals reach both."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    umask = os.umask(0)
    os.umask(umask)
    nest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nest.connect(place)
    orders = json.dumps({"environ": dict(os.environ), "umask": umask}).encode()
    socket.send_fds(nest, [orders], [0, 1, 2])
    child = int(nest.recv(64))
    for descriptor in (0, 1):  # so that only the fork holds the pipes
        os.close(descriptor)
    signal.signal(signal.SIGTERM, lambda *_: _kill(child, signal.SIGTERM))
    status = int(nest.recv(64) or 9)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def nest(place: str) -> None:
    """Import, then fork for whoever connects."""
    sys.path.insert(0, str(Path(__file__).parent / "site"))
    from sdtui.worker.quiet import prepare_environment

    prepare_environment(1, True)
    import diffusers
    import injected_faults  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    diffusers.StableDiffusionPipeline.__name__  # noqa: B018  # the import that costs
    from sdtui.worker import generate, journal, warm_up  # noqa: F401

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(place)
    listener.listen(16)
    os.write(1, b"ready\n")
    _Nest(listener).run()


class _Nest:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, socket.socket] = {}
        self._wake, wake = socket.socketpair()
        wake.setblocking(False)
        self._wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._kept = wake

    def run(self) -> None:
        for source in (self._listener, self._wake, 0):
            self._selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._hatch(self._listener.accept()[0])
                elif key.fileobj is self._wake:
                    with contextlib.suppress(BlockingIOError):
                        self._wake.recv(4096)
                    self._bury()
                elif key.fileobj == 0:  # the tests are over
                    for child in self._children:
                        _kill(child, signal.SIGKILL)
                    os._exit(0)  # the libraries' destructors take their time
                else:
                    self._left(key.fileobj)

    def _hatch(self, stand_in: socket.socket) -> None:
        orders, descriptors, _, _ = socket.recv_fds(stand_in, 1 << 20, 3)
        if len(descriptors) < 3:
            stand_in.close()
            return
        child = os.fork()
        if child == 0:
            _live(json.loads(orders), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[child] = stand_in
        with contextlib.suppress(OSError):
            stand_in.send(str(child).encode())
        self._selector.register(stand_in, selectors.EVENT_READ)

    def _bury(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            stand_in = self._children.pop(pid)
            with contextlib.suppress(KeyError):
                self._selector.unregister(stand_in)
            with contextlib.suppress(OSError):
                stand_in.send(str(status).encode())
            stand_in.close()

    def _left(self, stand_in: Any) -> None:
        """The stand-in was killed: the fork is what it stood for."""
        self._selector.unregister(stand_in)
        for child, other in self._children.items():
            if other is stand_in:
                _kill(child, signal.SIGKILL)


def _live(orders: dict[str, Any], descriptors: list[int]) -> None:
    """The fork: the real worker, from its first line."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(orders["environ"])
        os.umask(orders["umask"])
        import injected_faults

        from sdtui.worker.__main__ import main

        injected_faults.install("worker")
        code = main()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "nest":
        nest(sys.argv[2])
    else:
        stand_in(sys.argv[1])
