"""Runs a program in xterm.js in Chromium: `bridge.py MODULES TOLD COLUMNS ROWS PROFILE PROGRAM...`.

A web server for the page, and a WebSocket (RFC 6455) between the page and a pseudo-terminal. TOLD gets the size of a cell
when the page is there. Ends with the program.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import os
import pty
import signal
import struct
import sys
import termios
from pathlib import Path

FONT = "DejaVu Sans Mono"
FONT_PX = 13
HERE = Path(__file__).parent
ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, TEXT, CLOSE = 2, 1, 8
PAGE = """<!doctype html><meta charset="utf-8">
<link rel="stylesheet" href="/xterm/css/xterm.css"><style>body{margin:0;overflow:hidden;background:#000}</style>
<div id="t"></div><script src="/xterm/lib/xterm.js"></script><script src="/addon-image/lib/addon-image.js"></script>
<script>
document.fonts.load("FONT_PXpx 'FONT'").then(() => {
  const term = new Terminal({fontFamily: "'FONT'", fontSize: FONT_PX, allowProposedApi: true, cursorBlink: false, scrollback: 0,
                             windowOptions: {getWinSizePixels: true, getCellSizePixels: true}});
  term.loadAddon(new ImageAddon.ImageAddon());
  term.open(document.getElementById("t"));
  const socket = new WebSocket("ws://" + location.host + "/pty");
  socket.binaryType = "arraybuffer";
  const fit = () => {
    const cell = term._core._renderService.dimensions.css.cell;
    term.resize(Math.floor(innerWidth / cell.width), Math.floor(innerHeight / cell.height));
    socket.send(JSON.stringify({columns: term.cols, rows: term.rows, cell: [cell.width, cell.height]}));
  };
  socket.onopen = () => { fit(); term.focus(); };
  socket.onmessage = event => term.write(new Uint8Array(event.data));
  term.onData(data => socket.send(new TextEncoder().encode(data)));
  term.onBinary(data => socket.send(Uint8Array.from(data, c => c.charCodeAt(0))));
  addEventListener("resize", fit);
});
</script>"""
CHROMIUM = (
    "--no-sandbox",
    "--test-type",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--window-position=0,0",
)


class Bridge:
    """One page, one program."""

    def __init__(self, modules: Path, told: Path, program: list[str]) -> None:
        self._modules = modules
        self._told = told
        self._program = program
        self._page = PAGE.replace("FONT_PX", str(FONT_PX)).replace("FONT", FONT).encode()
        self._master = -1
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of the page."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ", 2)[1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:])}
        if path == "/pty":
            accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + ACCEPT).encode()).digest()).decode()
            writer.write(
                f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            await self._connect(reader, writer)
        else:
            body, kind = self._find(path)
            status = "200 OK" if body else "404 Not Found"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    def _find(self, path: str) -> tuple[bytes, str]:
        if path == "/":
            return self._page, "text/html"
        file = self._modules / path.lstrip("/")
        kind = "text/css" if path.endswith(".css") else "text/javascript"
        return (file.read_bytes() if file.is_file() else b""), kind

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                kind, data = await _receive(reader)
                if kind == CLOSE:
                    return
                if kind == TEXT:
                    self._take_size(json.loads(data), writer)
                elif self._master >= 0:
                    os.write(self._master, data)
        except asyncio.IncompleteReadError:
            return
        finally:
            self.ended.set()

    def _take_size(self, size: dict[str, list[float]], writer: asyncio.StreamWriter) -> None:
        if self._master < 0:
            child, self._master = pty.fork()
            if child == 0:
                os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", TERM_PROGRAM="vscode")
                os.execvp(self._program[0], self._program)
            asyncio.get_running_loop().add_reader(self._master, self._pass_on, writer)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", size["rows"], size["columns"], 0, 0))
        self._told.write_text(json.dumps(size["cell"]))

    def _pass_on(self, writer: asyncio.StreamWriter) -> None:
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            data = b""
        if data:
            writer.write(_frame(data))
        else:
            asyncio.get_running_loop().remove_reader(self._master)
            self.ended.set()


async def _receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One message from the page; it never cuts one in pieces that are this short."""
    first, second = await reader.readexactly(2)
    length = second & 127
    if length > 125:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    mask = await reader.readexactly(4)
    data = await reader.readexactly(length)
    return first & 15, bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


def _frame(data: bytes) -> bytes:
    length = len(data)
    size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big") if length < 1 << 16 else b""
    return bytes([128 | BINARY]) + (size or b"\x7f" + length.to_bytes(8, "big")) + data


async def main() -> None:
    """Serve until the program or the page ends."""
    modules, told, columns, rows, profile, *program = sys.argv[1:]
    bridge = Bridge(Path(modules), Path(told), program)
    server = await asyncio.start_server(bridge.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    size = f"--window-size={int(columns) * 8},{int(rows) * 17}"
    browser = await asyncio.create_subprocess_exec(
        "chromium", *CHROMIUM, size, f"--user-data-dir={profile}", f"--app={address}", stderr=asyncio.subprocess.DEVNULL
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, bridge.ended.set)
    await bridge.ended.wait()
    browser.terminate()
    await browser.wait()


if __name__ == "__main__":
    asyncio.run(main())
