"""What crosses a process boundary arrives as it was sent, or is an error with a name."""

from __future__ import annotations

import asyncio
import io
import json
import math
import struct
import types
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
