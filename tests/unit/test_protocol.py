"""What crosses a process boundary arrives as it was sent, or is an error with a name."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import math
import random
import struct
import tracemalloc
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdtui.params import GenerationParams
from sdtui.protocol import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    MESSAGES,
    Cancel,
    FrameTooLarge,
    MalformedFrame,
    Message,
    PreviewReady,
    ProtocolError,
    Submit,
    TruncatedFrame,
    as_json,
    decode,
    encode,
    frame,
    new_job_id,
    read_message,
    read_message_blocking,
)

SMALL = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False),  # a NaN is not equal to itself; it has a test of its own
    bool: st.booleans(),
    bytes: st.binary(max_size=64),
    type(None): st.none(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """A strategy for any type that a message uses."""
    origin, args = get_origin(kind), get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if origin is Annotated:
        return values(args[0])
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of([values(arg) for arg in args])
    if origin is tuple:
        assert args[1] is Ellipsis
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=3)
    assert issubclass(kind, msgspec.Struct)
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})


ANY_MESSAGE = st.sampled_from(MESSAGES).flatmap(values)


def reader_of(data: bytes) -> asyncio.StreamReader:
    """A stream that holds these bytes and then ends. Needs a running loop."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def read_all(data: bytes) -> list[Message]:
    reader = reader_of(data)
    messages = []
    while (message := await asyncio.wait_for(read_message(reader), 5)) is not None:
        messages.append(message)
    return messages


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@SMALL
@given(data=st.data())
def test_every_message_arrives_as_it_was_sent(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(values(kind))
    frame = encode(message)
    assert int.from_bytes(frame[:HEADER_BYTES]) == len(frame) - HEADER_BYTES
    assert decode(frame[HEADER_BYTES:]) == message
    assert read_message_blocking(io.BytesIO(frame)) == message


@settings(max_examples=50, deadline=None)
@given(st.lists(ANY_MESSAGE, max_size=5))
def test_messages_in_a_row_arrive_in_order(messages: list[Message]) -> None:
    assert asyncio.run(read_all(b"".join(map(encode, messages)))) == messages


@settings(max_examples=100, deadline=None)
@given(ANY_MESSAGE)
def test_json_is_one_line_that_names_its_type(message: Message) -> None:
    line = as_json(message)
    assert b"\n" not in line
    assert json.loads(line)["type"] == message.__struct_config__.tag


def test_no_two_messages_share_a_name() -> None:
    tags = [kind.__struct_config__.tag for kind in MESSAGES]
    assert len(set(tags)) == len(tags)
    assert "step_finished" in tags


def test_every_message_class_is_listed() -> None:
    assert set(Message.__subclasses__()) == set(MESSAGES)


def test_a_nan_survives() -> None:
    submit = Submit(job="a", params=GenerationParams(guidance_scale=math.nan), output_dir="/tmp")
    arrived = decode(encode(submit)[HEADER_BYTES:])
    assert isinstance(arrived, Submit)
    assert math.isnan(arrived.params.guidance_scale)


def test_the_largest_preview_fits_into_a_frame() -> None:
    side = 1024
    preview = PreviewReady(
        job="a",
        batch_index=0,
        step_index=0,
        width_px=side,
        height_px=side,
        rgb=bytes(3 * side * side),
        method="vae",
        elapsed_s=0.0,
    )
    assert len(encode(preview)) < MAX_FRAME_BYTES


def test_a_message_above_the_limit_is_not_sent() -> None:
    with pytest.raises(FrameTooLarge, match="Cancel of 4,194,3"):
        encode(Cancel(job="x" * MAX_FRAME_BYTES))


def test_text_that_is_no_unicode_is_not_sent() -> None:
    with pytest.raises(MalformedFrame, match="Cancel cannot be sent"):
        encode(Cancel(job="\udc80"))


async def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(struct.pack(">I", MAX_FRAME_BYTES + 1))  # the body never comes: reading it would hang
    with pytest.raises(FrameTooLarge, match="4,194,305"):
        await asyncio.wait_for(read_message(reader), 5)
    with pytest.raises(FrameTooLarge):
        read_message_blocking(io.BytesIO(struct.pack(">I", 2**32 - 1)))


@settings(max_examples=50, deadline=None)
@given(message=ANY_MESSAGE, data=st.data())
def test_a_truncated_frame_is_an_error(message: Message, data: st.DataObject) -> None:
    frame = encode(message)
    cut = frame[: data.draw(st.integers(1, len(frame) - 1))]
    with pytest.raises(TruncatedFrame, match="ended"):
        asyncio.run(read_all(cut))
    with pytest.raises(TruncatedFrame, match="ended"):
        read_message_blocking(io.BytesIO(cut))


# --- frames that are torn, out of order, too large or nonsense ---------------------------------------------------------


def outcome(read: Callable[[], list[Message]]) -> list[Message] | type[ProtocolError]:
    """What was read, or the error that ended it."""
    try:
        return read()
    except ProtocolError as error:
        assert str(error)
        return type(error)


def read_in_pieces(pieces: Sequence[bytes]) -> list[Message]:
    """By the stream reader, which gets one piece after the other, as from a socket."""

    async def read() -> list[Message]:
        reader = asyncio.StreamReader()

        async def feed() -> None:
            for piece in pieces:
                reader.feed_data(piece)
                await asyncio.sleep(0)
            reader.feed_eof()

        feeding = asyncio.create_task(feed())
        messages: list[Message] = []
        try:
            while (message := await asyncio.wait_for(read_message(reader), 5)) is not None:
                messages.append(message)
        finally:
            await feeding
        return messages

    return asyncio.run(read())


class Pieces(io.RawIOBase):
    """A pipe from which each read brings one piece, as the kernel gives them."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._pieces:
            return 0
        count = min(len(buffer), len(self._pieces[0]))
        buffer[:count] = self._pieces[0][:count]
        self._pieces[0] = self._pieces[0][count:]
        if not self._pieces[0]:
            self._pieces.pop(0)
        return count


def read_blocking(pieces: Sequence[bytes]) -> list[Message]:
    """By the blocking reader, from a buffered pipe."""
    stream = io.BufferedReader(Pieces(pieces), 16)
    messages: list[Message] = []
    while (message := read_message_blocking(stream)) is not None:
        messages.append(message)
    return messages


READERS = pytest.mark.parametrize("read", [read_in_pieces, read_blocking], ids=["stream", "blocking"])
SOME = (
    Cancel(job="a", when="after_step"),
    Submit(job="b", params=GenerationParams(prompt="x" * 300), output_dir="/p"),
    Cancel(job="c"),
)


@READERS
def test_messages_arrive_whole_wherever_the_stream_is_torn(read: Callable[[Sequence[bytes]], list[Message]]) -> None:
    data = b"".join(map(encode, SOME))
    for cut in range(len(data) + 1):
        assert read([data[:cut], data[cut:]]) == list(SOME), cut
    assert read([data[at : at + 1] for at in range(len(data))]) == list(SOME)


@READERS
def test_a_stream_that_ends_at_any_byte_gives_what_was_whole_and_then_an_error(
    read: Callable[[Sequence[bytes]], list[Message]],
) -> None:
    frames = [encode(message) for message in SOME]
    data = b"".join(frames)
    ends = {sum(map(len, frames[:count])): count for count in range(len(frames) + 1)}
    for cut in range(len(data) + 1):
        expected = list(SOME[: ends[cut]]) if cut in ends else TruncatedFrame
        assert outcome(lambda cut=cut: read([data[:cut]])) == expected, cut  # type: ignore[misc]


@settings(max_examples=100, deadline=None)
@given(
    messages=st.lists(ANY_MESSAGE, min_size=1, max_size=4), cuts=st.lists(st.integers(0, 5000), max_size=12), order=st.randoms()
)
def test_pieces_in_another_order_are_messages_or_an_error_and_both_readers_agree(
    messages: list[Message], cuts: list[int], order: random.Random
) -> None:
    data = b"".join(map(encode, messages))
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    order.shuffle(pieces)
    found = outcome(lambda: read_in_pieces(pieces))
    assert repr(found) == repr(outcome(lambda: read_blocking(pieces)))  # repr: a NaN is not equal to itself
    if b"".join(pieces) == data:
        assert found == messages


@settings(max_examples=100, deadline=None)
@given(message=ANY_MESSAGE, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_flipped_byte_is_another_message_or_an_error(message: Message, at: int, byte: int) -> None:
    data = bytearray(encode(message))
    data[at % len(data)] = byte
    found = outcome(lambda: read_blocking([bytes(data)]))
    assert repr(found) == repr(outcome(lambda: read_in_pieces([bytes(data)])))
    assert isinstance(found, type) or all(isinstance(entry, MESSAGES) for entry in found)


@READERS
@settings(max_examples=100, deadline=None)
@given(length=st.integers(MAX_FRAME_BYTES + 1, 2**32 - 1), rest=st.binary(max_size=50))
def test_a_frame_that_says_it_is_huge_is_refused_and_no_room_is_made_for_it(
    read: Callable[[Sequence[bytes]], list[Message]], length: int, rest: bytes
) -> None:
    assert outcome(lambda: read([struct.pack(">I", length), rest])) is FrameTooLarge


@READERS
@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=300))
def test_a_frame_of_garbage_is_malformed_and_never_a_crash(read: Callable[[Sequence[bytes]], list[Message]], body: bytes) -> None:
    found = outcome(lambda: read([frame(body)]))
    assert found is MalformedFrame or isinstance(found, list)


NESTS = {"lists": b"\x91", "maps": b"\x81\xa1a", "long lists": b"\xdd\x00\x00\x00\x01", "ext": b"\xc7\x01\x01"}


@READERS
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("depth", [10, 1000, 100_000])
def test_a_frame_that_is_nested_deeply_is_malformed(
    read: Callable[[Sequence[bytes]], list[Message]], nest: str, depth: int
) -> None:
    nested = NESTS[nest] * depth + b"\xc0"
    for body in (nested, b"\x82\xa4type\xa6cancel\xa3job" + nested, b"\x83\xa4type\xa6cancel\xa3job\xa1a\xa1x" + nested):
        found = outcome(lambda body=body: read([frame(body)]))  # type: ignore[misc]
        assert found is MalformedFrame or found == [Cancel(job="a")]


@pytest.mark.parametrize(
    "head", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
def test_a_value_that_says_it_is_huge_takes_no_memory(head: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFrame):
            decode(b"\x82\xa4type\xa6cancel\xa3job" + head + b"x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


async def test_a_stream_that_ends_between_frames_just_ends() -> None:
    assert await read_all(b"") == []
    assert read_message_blocking(io.BytesIO(b"")) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_an_error_with_a_name_and_never_a_hang(data: bytes) -> None:
    try:
        messages = asyncio.run(read_all(data))
    except ProtocolError as error:
        assert str(error)
    else:
        assert all(isinstance(message, MESSAGES) for message in messages)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_a_garbage_body_is_malformed(body: bytes) -> None:
    try:
        message = decode(body)
    except MalformedFrame as error:
        assert f"{len(body):,} bytes" in str(error)
    else:
        assert isinstance(message, MESSAGES)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (msgspec.msgpack.encode({"type": "format_disk"}), "format_disk"),
        (msgspec.msgpack.encode({"job": "a"}), "type"),
        (msgspec.msgpack.encode({"type": "cancel", "job": 7}), "Expected `str`"),
        (msgspec.msgpack.encode({"type": "cancel"}), "missing required field `job`"),
        (msgspec.msgpack.encode(["cancel"]), "Expected `object`"),
        (b"\x91" * 100_000, "no known message"),
        (b"\xdd\xff\xff\xff\xff", "no known message"),
        (b"\x81\xa4type\xa2\xff\xfe", "no known message"),
    ],
)
def test_a_malformed_frame_says_what_is_wrong(body: bytes, why: str) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode(body)
    assert why in str(caught.value)


def test_fields_of_a_newer_version_are_passed_over() -> None:
    assert decode(msgspec.msgpack.encode({"type": "cancel", "job": "a", "gently": True})) == Cancel(job="a")


def test_job_names_sort_by_age_and_differ() -> None:
    assert new_job_id(0) < new_job_id(1) < new_job_id(1e9)
    assert new_job_id(0).startswith("19700101-000000-")
    assert len({new_job_id(0) for _ in range(20)}) > 1
