"""Fetching a picture from an address that somebody else may have written: http and https, within limits, public hosts only.

A host's addresses are looked up once for each connection, judged, and the connection goes to the very address that was
judged; a second look-up, for which a hostile name server could have another answer (DNS rebinding), does not happen.
Redirects connect anew and are judged anew. Proxies of the environment are not used: behind one nobody could say where a
connection ends. Certificates are checked against those of the system and of certifi, and `SSL_CERT_FILE`; `.netrc` is not read.

Import late: httpx takes a fifth of a second.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import zip_longest
from typing import Any, Final

import httpcore
import httpx

from sdtui import __version__
from sdtui.image_files import InitialImageCancelled, InitialImageError, never, untold
from sdtui.text import format_bytes, safe_text

MAX_BYTES: Final = 20 * 1024 * 1024
MAX_REDIRECTS: Final = 5
_POLL_S: Final = 0.05
_MAX_TRIED: Final = 4
"""Of a host's addresses; each has an equal share of the time to connect."""
_HEADERS: Final = {
    "User-Agent": f"sdtui/{__version__}",
    "Accept": "image/png, image/jpeg, image/webp, image/gif, image/bmp, image/tiff, */*;q=0.1",
    "Accept-Encoding": "identity",  # pictures are compressed; and what is unpacked could be of any size
}
_PUBLIC_6: Final = IPv6Network("2000::/3")
"""Global unicast (RFC 4291, 2.4). What carries an IPv4 address is judged by that."""
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""NAT64 (RFC 6052): the last 32 bits are an IPv4 address."""
_PROTOCOLS_4: Final = IPv4Network("192.0.0.0/24")
"""Reserved by RFC 6890; Python before 3.11.10 takes most of it for public."""


def fetch(
    url: str,
    *,
    allow_private: bool,
    max_bytes: int = MAX_BYTES,
    answer_s: float = 10.0,
    total_s: float = 30.0,
    cancelled: Callable[[], bool] = never,
    progress: Callable[[int, int], None] = untold,
) -> bytes:
    """The body of the answer to a GET. Blocks; for a thread in which no event loop runs. Raises `InitialImageError`.

    `answer_s` is how long connecting, and each wait for something to read, may take; `total_s` is for all, redirects too.
    `progress` is told bytes and their total, 0 when that is unknown. `cancelled` is asked 20 times a second.
    """
    first = _checked(url)

    async def all_of_it() -> bytes:
        try:
            async with asyncio.timeout(total_s), _client(allow_private, answer_s) as client:
                return await _follow(client, first, max_bytes, progress)
        except TimeoutError as error:
            raise InitialImageError(f"{shown_url(url)} was not complete within {total_s:g} s.") from error

    return asyncio.run(_unless_cancelled(all_of_it(), cancelled, shown_url(url)))


def shown_url(url: str | httpx.URL) -> str:
    """An address for a sentence: safe, not too long, without what may be secret (user, password, query)."""
    try:
        parsed = httpx.URL(url)
        shown = str(parsed.copy_with(username=None, password=None, query=None, fragment=None))
    except (httpx.InvalidURL, ValueError):
        return safe_text(str(url).partition("?")[0].rpartition("@")[2], limit=120)
    return safe_text(shown + ("?…" if parsed.query else ""), limit=160)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: neither private, loopback, link-local, shared, multicast, reserved
    nor for documentation, also inside IPv6 (mapped, 6to4, NAT64). Raises `ValueError` when it is no address."""
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _TRANSLATED:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is None:
            return found in _PUBLIC_6 and found.is_global
        found = inner
    return found.is_global and not (found.is_multicast or found.is_reserved or found in _PROTOCOLS_4)


# --- one request after the other ------------------------------------------------------------------------------------


def _client(allow_private: bool, answer_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=_Transport(_Network(allow_private)), timeout=answer_s, headers=_HEADERS, trust_env=False)


def _checked(url: str | httpx.URL) -> httpx.URL:
    """An address that may be asked. Raises `InitialImageError`."""
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except (httpx.InvalidURL, ValueError) as error:  # ValueError: a name that IDNA cannot write or read
        raise InitialImageError(f"{shown_url(url)} is no valid address: {safe_text(str(error), limit=120)}.") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise InitialImageError(f"{shown_url(parsed)} cannot be fetched: only http:// and https:// with a host can.")
    if parsed.port is not None and not 0 < parsed.port < 1 << 16:
        raise InitialImageError(f"{shown_url(parsed)} names the port {parsed.port}: ports go from 1 to 65535.")
    if parsed.userinfo:
        raise InitialImageError(f"{shown_url(parsed)} was given with a user name or password; give the address without.")
    return parsed


async def _follow(client: httpx.AsyncClient, url: httpx.URL, max_bytes: int, progress: Callable[[int, int], None]) -> bytes:
    """The body at the end of the redirects."""
    request = client.build_request("GET", url)
    for _ in range(MAX_REDIRECTS + 1):
        parts: list[bytes] = []
        with _explaining(shown_url(request.url), parts, request.extensions["timeout"]["read"]):
            response = await client.send(request, stream=True)
            try:
                if response.next_request is None:
                    await _receive(response, parts, max_bytes, progress)
                    return b"".join(parts)
            finally:
                await response.aclose()
        request = response.next_request
        _checked(request.url)
    raise InitialImageError(f"{shown_url(url)} leads from one address to the next more than {MAX_REDIRECTS} times.")


async def _receive(response: httpx.Response, parts: list[bytes], max_bytes: int, progress: Callable[[int, int], None]) -> None:
    """Append to `parts` what a good answer holds; what it says of its type is judged later, by its content."""
    shown, status = shown_url(response.request.url), response.status_code
    if not response.is_success:
        phrase = httpx.codes.get_reason_phrase(status)  # not the server's own words
        raise InitialImageError(f"{shown} answered {f'{status} {phrase}'.strip()}.")
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise InitialImageError(f"{shown} sends its answer packed ({safe_text(encoding, limit=20)}), which was not asked for.")
    said = response.headers.get("Content-Length", "")  # h11 has seen to it that it is a number
    total, done = int(said or 0), 0
    _refuse_large(total, max_bytes, shown)
    async for part in response.aiter_raw():
        done += len(part)
        _refuse_large(done, max_bytes, shown)
        parts.append(part)
        progress(done, total)


def _refuse_large(count: int, max_bytes: int, shown: str) -> None:
    if count > max_bytes:
        raise InitialImageError(f"{shown} is larger than {format_bytes(max_bytes)}, the most that is fetched.")


@contextmanager
def _explaining(shown: str, parts: list[bytes], answer_s: float) -> Iterator[None]:
    """Failures of the network as one sentence; `parts` is what has come by then."""
    try:
        yield
    except _NotPublic as error:
        where = error.host if error.host == error.address else f"{error.host}, at {error.address},"
        raise InitialImageError(
            f"{shown} was not fetched: {where} is a private or local address; private_addresses in [network] allows these."
        ) from error
    except httpcore.TimeoutException as error:
        silence = f"sent {format_bytes(sum(map(len, parts)))} and then nothing" if parts else "did not answer"
        hint = _proxy_hint() if isinstance(error, httpcore.ConnectTimeout) else ""
        raise InitialImageError(f"{shown} {silence} within {answer_s:g} s{hint}.") from error
    except httpcore.ConnectError as error:
        raise InitialImageError(f"{shown} cannot be reached: {_reason(error)}{_proxy_hint()}.") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise InitialImageError(f"{shown} did not answer as it should: {_reason(error)}.") from error


def _proxy_hint() -> str:
    if not {"http", "https"} & set(urllib.request.getproxies()):
        return ""
    return "; proxies of the environment are not used, so save the picture as a file and give that"


def _reason(error: BaseException) -> str:
    """What was wrong at the bottom of a chain of exceptions."""
    while inner := error.__cause__ or error.__context__:  # httpcore's pool raises `from None`, which leaves the context
        error = inner
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    said = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        said = os.strerror(error.errno)
    elif isinstance(error, socket.gaierror):
        said = str(error.strerror)
    return safe_text(said, limit=160).rstrip(".")


async def _unless_cancelled(work: Coroutine[Any, Any, bytes], cancelled: Callable[[], bool], shown: str) -> bytes:
    """Wherever the work is, looking up, connecting, reading, it ends soon after `cancelled()` has become true."""
    task = asyncio.ensure_future(work)
    while not task.done():
        if cancelled():
            task.cancel()
            await asyncio.wait({task})
            raise InitialImageCancelled(f"Fetching {shown} was cancelled.")
        await asyncio.wait({task}, timeout=_POLL_S)
    return task.result()


# --- where a connection goes ----------------------------------------------------------------------------------------


class _NotPublic(Exception):
    def __init__(self, host: str, address: str) -> None:
        super().__init__(host, address)
        self.host, self.address = safe_text(host, limit=80), address


class _Network(httpcore.AsyncNetworkBackend):
    """Connects to an address that it has looked up and judged itself."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of the host's addresses that takes one; none at all when one of them is not public."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await _look_up(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("the look-up of the name") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError from error
        for address in addresses:
            if not (self._allow_private or is_public(address)):
                raise _NotPublic(host, address)
        tried = addresses[:_MAX_TRIED]
        for address in tried:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout and timeout / len(tried), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if address == tried[-1]:
                    raise
        raise httpcore.ConnectError(f"{host} has no address")


async def _look_up(host: str, port: int) -> list[str]:
    """A host's addresses, IPv4 and IPv6 in turn, so that one kind which leads nowhere does not take all the time.

    The system's resolver cannot be broken off, so it runs on a thread that nobody has to wait for.
    """
    outcome: Future[list[str]] = Future()

    def ask() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as error:
            outcome.set_exception(error)
        else:
            outcome.set_result([str(entry[4][0]) for entry in found])

    threading.Thread(target=ask, name="sdtui-resolver", daemon=True).start()
    found = await asyncio.wrap_future(outcome)
    addresses = list(dict.fromkeys(found))
    kind = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    other = [address for address in addresses if address not in kind]
    return [address for pair in zip_longest(kind, other) for address in pair if address]


class _Transport(httpx.AsyncBaseTransport):
    """httpx on a pool whose network backend is ours; its own transport cannot be given one."""

    def __init__(self, network: httpcore.AsyncNetworkBackend) -> None:
        self._pool = httpcore.AsyncConnectionPool(network_backend=network)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
        )
        answer = await self._pool.handle_async_request(
            httpcore.Request(request.method, url, headers=request.headers.raw, extensions=request.extensions)
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Stream(answer), extensions=answer.extensions)

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._answer.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._answer.aclose()
