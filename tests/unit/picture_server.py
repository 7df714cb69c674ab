"""A web server on this computer, and answers of all kinds for it to give."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        answers, short = self.server.answers, self.path.partition("?")[0]
        answers.get(self.path, answers.get(short, missing))(self)

    def log_message(self, format: str, *_: Any) -> None:
        """Nothing on stderr."""

    def start(self, status: int = 200, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def url(self, path: str = "/cat.png", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"

    def handle_error(self, *_: Any) -> None:
        """A client that goes away in the middle is what some of these tests are about."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers while this lasts."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def missing(handler: Handler) -> None:
    handler.start(404, Content_Length=0)


def picture(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(buffer, kind)
    return buffer.getvalue()


def body(data: bytes, status: int = 200, **headers: Any) -> Answer:
    def answer(handler: Handler) -> None:
        handler.start(status, **{"Content_Length": len(data), **headers})
        handler.wfile.write(data)

    return answer


def to(address: str, status: int = 302) -> Answer:
    return lambda handler: handler.start(status, Location=address, Content_Length=0)


def silence(handler: Handler) -> None:
    handler.server.over.wait(60)


def trickle(handler: Handler) -> None:
    """A body of which a byte comes now and then, for ever."""
    handler.start()
    while not handler.server.over.wait(0.02):
        handler.wfile.write(b"x")


def trickling_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.over.wait(0.02):
        handler.wfile.write(b"X-Wait: longer\r\n")


def stall(handler: Handler) -> None:
    handler.start(Content_Length=1000)
    handler.wfile.write(b"0123456789")
    silence(handler)


def endless(handler: Handler) -> None:
    handler.start()
    while not handler.server.over.is_set():
        handler.wfile.write(bytes(65536))
