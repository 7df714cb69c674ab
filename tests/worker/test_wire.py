"""The worker's ends of the pipes."""

from __future__ import annotations

import io
import os
import threading
from typing import Any, BinaryIO

import pytest

from sdtui.protocol import (
    Cancel,
    Heartbeat,
    MalformedFrame,
    Message,
    PreviewReady,
    TruncatedFrame,
    encode,
    read_message_blocking,
)
from sdtui.worker.wire import Sender, read_commands

DEADLINE_S = 10


class Stalled(io.RawIOBase):
    """A pipe that nobody reads, until `opened`."""

    def __init__(self) -> None:
        self.opened, self.reached = threading.Event(), threading.Event()
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.reached.set()
        assert self.opened.wait(DEADLINE_S)
        self.written += data
        return len(data)


def a_preview(step: int) -> PreviewReady:
    return PreviewReady(
        job="j", batch_index=0, step_index=step, width_px=1, height_px=1, rgb=b"abc", method="linear", elapsed_s=0.0
    )


def read_all(data: bytes) -> list[Message]:
    stream = io.BytesIO(data)
    return list(iter(lambda: read_message_blocking(stream), None))


def test_a_stalled_server_blocks_nobody_and_gets_every_event_but_only_the_newest_preview() -> None:
    stream = Stalled()
    sender = Sender(stream, on_broken=lambda: None)  # type: ignore[arg-type]
    sender.send(Heartbeat(rss_bytes=0))
    assert stream.reached.wait(DEADLINE_S), "the sender's thread is in write now"
    for number in range(1, 200):
        sender.send(Heartbeat(rss_bytes=number))
        sender.send(a_preview(number))
    stream.opened.set()
    sender.close()
    sent = read_all(bytes(stream.written))
    assert [message.rss_bytes for message in sent if isinstance(message, Heartbeat)] == list(range(200))
    assert [message.step_index for message in sent if isinstance(message, PreviewReady)] == [199]


def test_a_preview_comes_after_the_events_that_were_before_it() -> None:
    stream = Stalled()
    sender = Sender(stream, on_broken=lambda: None)  # type: ignore[arg-type]
    sender.send(Heartbeat(rss_bytes=0))
    assert stream.reached.wait(DEADLINE_S)
    for message in (a_preview(1), Heartbeat(rss_bytes=1), a_preview(2), Heartbeat(rss_bytes=2)):
        sender.send(message)
    stream.opened.set()
    sender.close()
    kinds = [type(message).__name__ for message in read_all(bytes(stream.written))]
    assert kinds == ["Heartbeat", "Heartbeat", "PreviewReady", "Heartbeat"]


def test_a_reader_that_was_killed_is_told_and_blocks_nobody() -> None:
    reading, writing = os.pipe()
    broken = threading.Event()
    sender = Sender(os.fdopen(writing, "wb"), on_broken=broken.set)
    os.close(reading)
    sender.send(Heartbeat(rss_bytes=1))
    assert broken.wait(DEADLINE_S)
    sender.send(Heartbeat(rss_bytes=2))
    sender.close()


def test_an_event_that_cannot_be_sent_does_not_silence_the_rest() -> None:
    stream = Stalled()
    stream.opened.set()
    sender = Sender(stream, on_broken=lambda: None)  # type: ignore[arg-type]
    too_large = a_preview(1)
    sender.send(
        type(too_large)(**{name: getattr(too_large, name) for name in too_large.__struct_fields__} | {"rgb": b"x" * 5_000_000})
    )
    sender.send(Heartbeat(rss_bytes=1))
    sender.close()
    assert read_all(bytes(stream.written)) == [Heartbeat(rss_bytes=1)]


def run_reader(stream: BinaryIO) -> tuple[list[Message], list[Any]]:
    commands: list[Message] = []
    ends: list[Any] = []
    read_commands(stream, commands.append, ends.append)
    return commands, ends


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        (b"", None),
        (b"\x00\x00\x00\x05hello", MalformedFrame),
        (b"\x00\x00", TruncatedFrame),
        (b"\x00\x00\x00\x09abc", TruncatedFrame),
    ],
)
def test_the_reader_ends_once_with_the_reason(rest: bytes, error: type[Exception] | None) -> None:
    commands, ends = run_reader(io.BytesIO(encode(Cancel(job="a")) + rest))
    assert commands == [Cancel(job="a")]
    assert len(ends) == 1 and (ends[0] is None if error is None else isinstance(ends[0], error))
