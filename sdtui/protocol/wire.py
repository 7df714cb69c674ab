"""Framing: messages to bytes and back."""

from __future__ import annotations

import asyncio
import functools
import struct
from typing import Any, BinaryIO, Final, cast

import msgspec

from sdtui.protocol.base import Message
from sdtui.protocol.commands import Command
from sdtui.protocol.events import Event, JobEvent, ServerEvent, WorkerEvent
from sdtui.protocol.explaining import ExplainerReply, ExplainerRequest
from sdtui.protocol.inspection import InspectorReply, InspectorRequest

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
"""The largest message is a 1024x1024 RGB preview (3 MiB); more than this is a mistake or an attack."""
_LENGTH: Final = struct.Struct(">I")
HEADER_BYTES: Final = _LENGTH.size


class ProtocolError(Exception):
    """Bytes on the wire that are no message."""


class FrameTooLarge(ProtocolError):
    """A frame's length is above `MAX_FRAME_BYTES`."""


class TruncatedFrame(ProtocolError):
    """The other side closed in the middle of a frame."""


class MalformedFrame(ProtocolError):
    """A whole frame whose bytes are no known message, or a message that has no bytes."""


MESSAGES: Final[tuple[type[Message], ...]] = (
    *Command.__args__,
    *JobEvent.__args__,
    *WorkerEvent.__args__,
    *ServerEvent.__args__,
    *InspectorRequest.__args__,
    *InspectorReply.__args__,
    *ExplainerRequest.__args__,
    *ExplainerReply.__args__,
)

AnyMessage = Command | Event | InspectorRequest | InspectorReply | ExplainerRequest | ExplainerReply
_encoder: Final = msgspec.msgpack.Encoder()


@functools.cache
def _decoder() -> msgspec.msgpack.Decoder[Any]:
    """Made for the first message: to look at all their types takes 10 ms, which would come before the app's first frame."""
    return msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """The frame of a message. Raises `FrameTooLarge`, and `MalformedFrame` for text that is no Unicode (lone surrogates)."""
    try:
        body = _encoder.encode(message)
    except (UnicodeEncodeError, OverflowError) as error:
        raise MalformedFrame(f"A {type(message).__name__} cannot be sent: {error}.") from error
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"A {type(message).__name__} of {len(body):,} bytes is above the limit of {MAX_FRAME_BYTES:,}.")
    return frame(body)


def frame(body: bytes) -> bytes:
    """A frame around a message that is encoded already."""
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """The message in a frame's body. Raises `MalformedFrame`."""
    try:
        message = _decoder().decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFrame(f"A frame of {len(body):,} bytes is no known message: {error}") from error
    return cast(Message, message)


def _body_length(header: bytes) -> int:
    length: int = _LENGTH.unpack(header)[0]
    if length > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"A frame says it has {length:,} bytes; the limit is {MAX_FRAME_BYTES:,}.")
    return length


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message of a stream; None when the other side closed between frames. Raises `ProtocolError`."""
    try:
        header = await reader.readexactly(_LENGTH.size)
        body = await reader.readexactly(_body_length(header))
    except asyncio.IncompleteReadError as error:
        if not error.partial and error.expected == _LENGTH.size:
            return None
        raise TruncatedFrame(
            f"The stream ended {(error.expected or 0) - len(error.partial)} bytes before the end of a frame."
        ) from error
    return decode(body)


def read_message_blocking(stream: BinaryIO) -> Message | None:
    """As `read_message`, from a buffered binary file; for the worker's reading thread."""
    header = stream.read(_LENGTH.size)
    if not header:
        return None
    if len(header) < _LENGTH.size:
        raise TruncatedFrame("The stream ended within a frame's length.")
    length = _body_length(header)
    body = stream.read(length)
    if len(body) < length:
        raise TruncatedFrame(f"The stream ended {length - len(body)} bytes before the end of a frame.")
    return decode(body)


def as_json(message: Message) -> bytes:
    """A message as one line of JSON without the newline; bytes fields are base64."""
    return msgspec.json.encode(message)
