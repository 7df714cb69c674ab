"""Fetching initial images: from a real server on this computer, and from hosts that are not what they seem."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdtui import __version__, settings
from sdtui.fetching import MAX_REDIRECTS, fetch, is_public, shown_url
from sdtui.initial_image import InitialImageCancelled, InitialImageError, take_in
from tests.unit.picture_server import (
    Answer,
    Handler,
    Server,
    body,
    endless,
    picture,
    silence,
    stall,
    to,
    trickle,
    trickling_headers,
)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What the name server says of a host, look-up by look-up; the last answer stays. Hosts that are not there are asked for."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *options: Any, **more: Any) -> Any:
        if host not in known:
            return real(host, port, *options, **more)
        answers = known[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [entry for address in found for entry in real(address, port, *options, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that are connected to. Those of the internet end at this computer."""
    tried: list[str] = []
    real = httpcore.AnyIOBackend.connect_tcp

    async def connect(self: httpcore.AnyIOBackend, host: str, *rest: Any) -> Any:
        tried.append(host)
        return await real(self, "127.0.0.1" if is_public(host) else host, *rest)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    return tried


# --- what is asked and what comes -----------------------------------------------------------------------------------


def test_the_body_comes_as_it_is(server: Server) -> None:
    server.answers["/cat.png"] = body(picture())
    told: list[tuple[int, int]] = []
    got = fetch(server.url("/cat.png?size=1#top"), allow_private=True, progress=lambda done, total: told.append((done, total)))
    assert got == picture()
    assert told[-1] == (len(got), len(got))
    headers = server.asked[0][1]
    assert (headers["User-Agent"], headers["Accept-Encoding"]) == (f"sdtui/{__version__}", "identity")


def test_a_body_of_unknown_length_is_read_to_its_end(server: Server) -> None:
    def answer(handler: Handler) -> None:
        handler.start()
        handler.wfile.write(picture())

    server.answers["/cat.png"] = answer
    told: list[tuple[int, int]] = []
    assert fetch(server.url(), allow_private=True, progress=lambda *both: told.append(both)) == picture()
    assert told[-1] == (len(picture()), 0)


def test_neither_proxies_nor_passwords_of_the_environment_are_used(
    server: Server, home: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (home / ".netrc").chmod(0o600)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    server.answers["/cat.png"] = body(picture())
    assert fetch(server.url(), allow_private=True) == picture()
    assert "Authorization" not in server.asked[0][1]
    with pytest.raises(
        InitialImageError, match=r"cannot be reached: Connection refused; proxies of the environment are not used"
    ):
        fetch(f"http://127.0.0.1:{closed_port}/cat.png", allow_private=True)


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "404 Not Found"), (403, "403 Forbidden"), (500, "500 Internal Server Error"), (304, "304 Not Modified"), (599, "599")],
)
def test_an_answer_that_is_an_error_is_told_with_its_status(server: Server, status: int, words: str) -> None:
    server.answers["/cat.png"] = body(picture(), status)
    with pytest.raises(InitialImageError) as caught:
        fetch(server.url(), allow_private=True)
    assert str(caught.value) == f"{server.url()} answered {words}."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (silence, "did not answer within 0.3 s"),
        (stall, "sent 10 B and then nothing within 0.3 s"),
        (trickle, "was not complete within 0.9 s"),
        (trickling_headers, "was not complete within 0.9 s"),
        (body(b"short", Content_Length=100), "did not answer as it should: peer closed connection"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n"), "did not answer as it should"),
        (lambda handler: None, "did not answer as it should: Server disconnected"),
        (body(b"x", Content_Length="many"), "did not answer as it should"),
        (body(b"x", Content_Length=-1), "did not answer as it should"),
        (body(b"packed", Content_Encoding="gzip"), r"sends its answer packed \(gzip\), which was not asked for"),
        (to("http://xn--/"), "did not answer as it should"),
    ],
)
def test_a_server_that_does_not_behave_is_one_sentence(server: Server, answer: Answer, words: str) -> None:
    server.answers["/cat.png"] = answer
    with pytest.raises(InitialImageError, match=words) as caught:
        fetch(server.url(), allow_private=True, answer_s=0.3, total_s=0.9)
    said = str(caught.value)
    assert said.startswith(server.url()) and said.endswith(".") and said.isprintable()


def test_the_limits_are_ten_and_thirty_seconds(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    given = fetch.__kwdefaults__ or {}
    assert (given["answer_s"], given["total_s"], given["max_bytes"]) == (10.0, 30.0, 20 * 1024 * 1024)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_server_that_is_not_there_is_named(closed_port: int) -> None:
    with pytest.raises(InitialImageError, match=r"/cat\.png cannot be reached: Connection refused\.$"):
        fetch(f"http://127.0.0.1:{closed_port}/cat.png", allow_private=True)


def test_a_name_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(InitialImageError, match=r"^http://nowhere\.test/a cannot be reached: Name or service not known\.$"):
        fetch("http://nowhere.test/a", allow_private=False)


def test_the_next_address_is_tried_when_the_first_leads_nowhere(
    server: Server, names: dict[str, list[list[str]]], connected: list[str]
) -> None:
    names["two.test"] = [["127.0.0.2", "127.0.0.1"]]
    server.answers["/cat.png"] = body(picture())
    assert fetch(server.url(host="two.test"), allow_private=True) == picture()
    assert connected == ["127.0.0.2", "127.0.0.1"]
    assert server.asked[0][1]["Host"] == f"two.test:{server.server_port}"


def test_both_kinds_of_addresses_are_tried_in_turn_and_four_in_all(
    names: dict[str, list[list[str]]], connected: list[str], closed_port: int
) -> None:
    names["many.test"] = [["2606:4700::1", "2606:4700::2", "2606:4700::3", "8.8.8.8", "8.8.4.4"]]
    with pytest.raises(InitialImageError, match="cannot be reached: Connection refused"):
        fetch(f"http://many.test:{closed_port}/", allow_private=False)
    assert connected == ["2606:4700::1", "8.8.8.8", "2606:4700::2", "8.8.4.4"]


# --- how much -------------------------------------------------------------------------------------------------------


def test_what_says_that_it_is_too_large_is_not_read(server: Server) -> None:
    server.answers["/cat.png"] = body(b"", Content_Length=20 * 1024 * 1024 + 1)
    with pytest.raises(InitialImageError, match="is larger than 20 MiB, the most that is fetched"):
        fetch(server.url(), allow_private=True)


def test_what_turns_out_to_be_too_large_is_broken_off(server: Server) -> None:
    server.answers["/cat.png"] = endless
    told: list[int] = []
    with pytest.raises(InitialImageError, match="is larger than 1 MiB"):
        fetch(server.url(), allow_private=True, max_bytes=1 << 20, progress=lambda done, _: told.append(done))
    assert max(told) <= 1 << 20


def test_a_body_of_just_the_limit_is_taken(server: Server) -> None:
    server.answers["/cat.png"] = body(bytes(1000))
    assert len(fetch(server.url(), allow_private=True, max_bytes=1000)) == 1000
    with pytest.raises(InitialImageError, match="is larger than"):
        fetch(server.url(), allow_private=True, max_bytes=999)


# --- which addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "localhost",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[2002:7f00:1::]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::1]",
        "[2001:db8::1]",
        "[2001::1]",
        "[fe80::1]",
        "[fc00::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[4000::1]",
    ],
)
def test_an_address_that_is_not_public_is_refused_before_anything_connects(connected: list[str], host: str) -> None:
    with pytest.raises(
        InitialImageError,
        match=r"was not fetched: .* is a private or local address; private_addresses in \[network\] allows these\.$",
    ):
        fetch(f"http://{host}/cat.png", allow_private=False)
    assert not connected


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4).map(IPv4Address))
def test_an_address_inside_another_is_judged_alike(address: IPv4Address) -> None:
    high, low = int(address) >> 16, int(address) & 0xFFFF
    forms = (f"::ffff:{address}", f"64:ff9b::{address}", f"2002:{high:x}:{low:x}::1")
    assert {is_public(form) for form in forms} == {is_public(str(address))}


@pytest.mark.parametrize("found", [["10.0.0.7"], ["93.184.215.14", "10.0.0.7"], ["2606:4700::1111", "::1"]])
def test_a_name_with_a_private_address_is_refused(
    names: dict[str, list[list[str]]], connected: list[str], found: list[str]
) -> None:
    names["intranet.test"] = [found]
    with pytest.raises(InitialImageError, match=f"intranet.test, at {found[-1]}, is a private or local"):
        fetch("https://intranet.test/", allow_private=False)
    assert not connected


def test_the_address_that_was_judged_is_the_one_connected_to(
    server: Server, names: dict[str, list[list[str]]], connected: list[str]
) -> None:
    """DNS rebinding: the name is public when it is first asked for, and this computer from then on."""
    names["rebind.test"] = [["93.184.215.14"], ["127.0.0.1"]]
    server.answers["/cat.png"] = body(picture())
    assert fetch(server.url(host="rebind.test"), allow_private=False) == picture()
    assert connected == ["93.184.215.14"]
    assert names["rebind.test"] == [["127.0.0.1"]], "looked up just once"
    with pytest.raises(InitialImageError, match=r"rebind\.test, at 127\.0\.0\.1, is a private"):
        fetch(server.url(host="rebind.test"), allow_private=False)
    assert len(connected) == 1


# --- redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(server: Server, status: int) -> None:
    server.answers |= {"/cat.png": to("/b/", status), "/b/": to("../c?x", status), "/c?x": body(picture())}
    assert fetch(server.url(), allow_private=True) == picture()
    assert server.paths == ["/cat.png", "/b/", "/c?x"]


def test_five_redirects_are_followed_and_no_more(server: Server) -> None:
    server.answers |= {f"/{step}": to(f"/{step + 1}") for step in range(10)}
    with pytest.raises(InitialImageError, match="/0 leads from one address to the next more than 5 times"):
        fetch(server.url("/0"), allow_private=True)
    assert server.paths == [f"/{step}" for step in range(MAX_REDIRECTS + 1)]
    server.answers["/5"] = body(picture())
    assert fetch(server.url("/0"), allow_private=True) == picture()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("file:///etc/passwd", r"^file://.*/etc/passwd cannot be fetched: only http:// and https://"),
        ("ftp://127.0.0.1/a", "only http:// and https://"),
        ("http://127.0.0.1:99999/", "names the port 99999"),
        ("http://me:secret@127.0.0.1/a", r"http://127\.0\.0\.1/a was given with a user name or password"),
        ("//me@127.0.0.1/a", "was given with a user name or password"),
    ],
)
def test_a_redirect_is_judged_as_the_first_address_is(server: Server, address: str, words: str) -> None:
    server.answers["/cat.png"] = to(address)
    with pytest.raises(InitialImageError, match=words) as caught:
        fetch(server.url(), allow_private=True)
    assert "secret" not in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize("address", ["http://169.254.169.254/latest/meta-data", "http://localhost/", "http://inner.test/"])
def test_a_redirect_to_a_private_address_is_refused(
    server: Server, names: dict[str, list[list[str]]], connected: list[str], address: str
) -> None:
    names |= {"outer.test": [["93.184.215.14"]], "inner.test": [["10.1.2.3"]]}
    server.answers["/cat.png"] = to(address)
    with pytest.raises(InitialImageError, match=f"^{address} was not fetched: .*a private or local address"):
        fetch(server.url(host="outer.test"), allow_private=False)
    assert connected == ["93.184.215.14"]


# --- what a user writes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "http://me:secret@example.org/a",
            "^http://example.org/a was given with a user name or password; give the address without",
        ),
        ("http://me@example.org/a", "user name or password"),
        ("ftp://example.org/a", "only http:// and https:// with a host can"),
        ("https:///a", "only http:// and https:// with a host can"),
        ("http://example.org:99999/", "names the port 99999: ports go from 1 to 65535"),
        ("http://example.org:0/", "names the port 0"),
        ("http://0177.0.0.1/", "is no valid address"),
        ("http://exa\x1b[31mmple.org/", "is no valid address"),
        ("http://xn--/", "is no valid address"),
        ("http://[::1", "is no valid address"),
        ("http://" + "a" * 70 + ".test/", "is no valid address|cannot be reached"),
        ("http://a..b/", "is no valid address|cannot be reached"),
    ],
)
def test_an_address_that_cannot_be_asked_is_one_sentence(connected: list[str], url: str, words: str) -> None:
    with pytest.raises(InitialImageError, match=words) as caught:
        fetch(url, allow_private=False)
    said = str(caught.value)
    assert said.isprintable() and said.endswith(".") and "secret" not in said and len(said) < 400
    assert not connected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@example.org/a.png?token=secret#x", "https://example.org/a.png?…"),
        ("https://example.org/\u202egnp.cat", "https://example.org/%E2%80%AEgnp.cat"),
        ("http://me:secret@[::1/a\x1b[2J", "[::1/a"),
    ],
)
def test_an_address_is_shown_without_secrets_and_controls(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_a_long_address_is_cut() -> None:
    assert len(shown_url("https://example.org/" + "a" * 5000)) == 160


# --- cancelling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [silence, trickle, trickling_headers, stall])
def test_a_fetch_is_cancelled_wherever_it_is(server: Server, answer: Answer) -> None:
    server.answers["/cat.png"] = answer
    with pytest.raises(InitialImageCancelled, match=r"^Fetching .*/cat\.png was cancelled"):
        fetch(server.url(), allow_private=True, cancelled=lambda: bool(server.asked))


@pytest.mark.parametrize("cancels", [True, False])
def test_a_look_up_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, cancels: bool) -> None:
    asked, over = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        asked.set()
        over.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    kind, words = (InitialImageCancelled, "was cancelled") if cancels else (InitialImageError, r"did not answer within 0\.2 s")
    with pytest.raises(kind, match=words):
        fetch(
            "http://slow.test/", allow_private=True, answer_s=60 if cancels else 0.2, cancelled=lambda: cancels and asked.is_set()
        )
    assert not over.is_set()
    over.set()


# --- certificates ---------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(server: Server, tmp_path: Path) -> Path:
    """The server speaks TLS, with a certificate of its own for `localhost`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    request += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(request, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answers["/cat.png"] = body(picture())
    return certificate


def test_a_certificate_is_checked_against_the_name_and_not_the_address(
    server: Server, certificate: Path, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names |= {"localhost": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]}
    address = server.url(host="localhost").replace("http:", "https:")
    with pytest.raises(InitialImageError, match=r"cannot be reached: its certificate is not trusted \(self.signed certificate"):
        fetch(address, allow_private=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(address, allow_private=True) == picture()
    with pytest.raises(InitialImageError, match=r"its certificate is not trusted \(Hostname mismatch"):
        fetch(address.replace("localhost", "other.test"), allow_private=True)


# --- into the store -------------------------------------------------------------------------------------------------


def test_a_picture_at_an_address_is_kept_and_asked_for_once(server: Server) -> None:
    server.answers["/a/My%20cat.php?id=1"] = body(picture("WEBP"), Content_Type="text/plain")
    store = settings.initial_dir()
    taken = take_in(f" '{server.url('/a/My%20cat.php?id=1')}'\n", store, allow_private=True)
    assert taken.path == store / f"{taken.digest[:16]}-My_cat.webp"
    assert (taken.width_px, taken.height_px) == (24, 16)
    assert taken.path.read_bytes() == picture("WEBP")
    assert take_in(str(taken.path), store) == taken
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (body(b"<!doctype html><html></html>", Content_Type="image/png"), r"/cat\.png is a web page \(HTML\), no picture"),
        (body(picture()[:50], Content_Type="image/png"), r"/cat\.png is .*damaged or cut short"),
        (body(b"", Content_Type="image/png"), r"/cat\.png is empty"),
        (body(b"", 404), r"/cat\.png answered 404 Not Found"),
    ],
)
def test_what_is_no_picture_is_not_kept_whatever_its_type_says(server: Server, answer: Answer, words: str) -> None:
    server.answers["/cat.png"] = answer
    with pytest.raises(InitialImageError, match=words) as caught:
        take_in(server.url(), settings.initial_dir(), allow_private=True)
    assert server.url() in str(caught.value)
    assert not settings.initial_dir().exists()


def test_private_addresses_are_refused_unless_they_are_allowed(server: Server) -> None:
    with pytest.raises(InitialImageError, match="a private or local address"):
        take_in(server.url(), settings.initial_dir())
    assert not server.asked


@pytest.mark.parametrize(("path", "stem"), [("/", "image"), ("/..%2F..%2Fetc%2Fpasswd", "passwd"), ("/%1b%5b31m.png", "image")])
def test_an_address_cannot_choose_where_its_picture_is_kept(server: Server, path: str, stem: str) -> None:
    server.answers[path] = body(picture())
    taken = take_in(server.url(path), settings.initial_dir(), allow_private=True)
    assert taken.path.parent == settings.initial_dir()
    assert taken.path.name == f"{taken.digest[:16]}-{stem}.png"


async def test_taking_in_works_on_a_thread_beside_an_event_loop(server: Server) -> None:
    server.answers["/cat.png"] = body(picture())
    taken = await asyncio.to_thread(take_in, server.url(), settings.initial_dir(), allow_private=True)
    assert taken.path.read_bytes() == picture()


def test_taking_in_from_an_address_can_be_cancelled(server: Server) -> None:
    server.answers["/cat.png"] = stall
    with pytest.raises(InitialImageCancelled):
        take_in(server.url(), settings.initial_dir(), allow_private=True, cancelled=lambda: bool(server.asked))
    assert not os.path.lexists(settings.initial_dir())
