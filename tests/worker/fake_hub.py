"""A Hugging Face hub on this machine: just enough of its HTTP for models to be found and fetched."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves folders as models; `gated` ones answer as a model does whose terms were not accepted."""

    def __init__(self, models: dict[str, Path], gated: tuple[str, ...] = ()) -> None:
        hub = self
        self.models, self.gated = models, gated
        self.fetched: list[str] = []
        self.stopped = False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, with_body=False)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        """Answer nobody any more, over connections that are open neither."""
        self.stopped = True
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        if self.stopped:
            request.close_connection = True
            return
        parts = [unquote(part) for part in urlsplit(request.path).path.strip("/").split("/")]
        is_api = parts[0] == "api"
        name = "/".join(parts[2:4] if is_api else parts[:2])
        if name in self.gated:
            self.send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body=with_body)
        elif name not in self.models:
            self.send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)
        elif is_api and "tree" in parts:
            self.send(request, 200, json.dumps(self.tree(name)).encode(), {}, with_body=with_body)
        elif is_api:
            siblings = [{"rfilename": file["path"]} for file in self.tree(name)]
            info = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self.send(request, 200, json.dumps(info).encode(), {}, with_body=with_body)
        else:
            self.send_file(request, name, "/".join(parts[4:]), with_body=with_body)

    def tree(self, name: str) -> list[dict[str, Any]]:
        folder = self.models[name]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [
            {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": self.etag(path)}
            for path in files
        ]

    def etag(self, path: Path) -> str:
        return hashlib.sha1(path.read_bytes()).hexdigest()

    def send_file(self, request: BaseHTTPRequestHandler, name: str, file: str, *, with_body: bool) -> None:
        path = self.models[name] / file
        if not path.is_file():
            self.send(request, 404, b"", {"X-Error-Code": "EntryNotFound"}, with_body=with_body)
            return
        if with_body:
            self.fetched.append(f"{name}/{file}")
        headers = {"ETag": f'"{self.etag(path)}"', "X-Repo-Commit": COMMIT}
        self.send(request, 200, path.read_bytes(), headers, with_body=with_body)

    def send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], *, with_body: bool
    ) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Content-Type", "application/json")
        for key, value in headers.items():
            request.send_header(key, value)
        request.end_headers()
        if with_body:
            request.wfile.write(body)
