"""The denoiser tape on disk: what the network said at every call of a job, so that the job can go on after a crash.

`<tapes>/<job>/` holds a `.tape` for each batch, and what `sdtui.ledger` keeps. A tape only grows: records of a magic number,
the payload's length (u64, little-endian), its BLAKE2b-128, and the payload. The first payload is the fingerprint, JSON: all
that decides the bits. Every other one is the image of a safetensors file
(https://github.com/huggingface/safetensors#format): what the denoiser said in one call.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sdtui.text import safe_text

FORMAT: Final = 1
"""Goes into every fingerprint; a tape of another format is not read."""
_MAGIC: Final = b"SDT\x01"
_HEAD: Final = struct.Struct("<4sQ16s")
_MAX_RECORD_BYTES: Final = 1 << 31
"""More than any denoiser says in one call; a damaged length must not make us ask for that much memory."""
_JOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class TapeError(Exception):
    """A tape or job directory that cannot be used, and why."""


def job_directory(tapes: Path, job: str) -> Path:
    """Where a job keeps its files. Raises `TapeError` for a name that could lead elsewhere."""
    if not _JOB.fullmatch(job):
        raise TapeError(f"The job's name {safe_text(job, limit=80)!r} cannot be a directory's name.")
    return tapes / job


# --- records --------------------------------------------------------------------------------------------------------


def record(payload: bytes) -> bytes:
    """A payload as it stands in the file."""
    return _HEAD.pack(_MAGIC, len(payload), digest_of(payload)) + payload


def digest_of(payload: bytes) -> bytes:
    """BLAKE2b-128: 16 bytes that tell these bytes from all others."""
    return hashlib.blake2b(payload, digest_size=16).digest()


def payloads_of(descriptor: int, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each whole payload from a record's beginning on; ends before the first that is torn or damaged."""
    while True:
        head = os.pread(descriptor, _HEAD.size, at)
        if len(head) < _HEAD.size:
            return
        magic, length, digest = _HEAD.unpack(head)
        if magic != _MAGIC or length > _MAX_RECORD_BYTES:
            return
        payload = read_at(descriptor, length, at + _HEAD.size)
        if len(payload) < length or digest_of(payload) != digest:
            return
        yield at + _HEAD.size, payload
        at += _HEAD.size + length


def read_at(descriptor: int, length: int, at: int) -> bytes:
    """So many bytes from there, or none where the file is shorter."""
    if os.fstat(descriptor).st_size < at + length:
        return b""
    parts: list[bytes] = []
    while length and (part := os.pread(descriptor, length, at)):
        parts.append(part)
        length, at = length - len(part), at + len(part)
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """`os.write`, again where it took only a part. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def append_at(descriptor: int, data: bytes, end: int) -> int:
    """Write at a file's end, and return where that is then. Raises `OSError`; then the file ends where it did."""
    try:
        os.lseek(descriptor, end, os.SEEK_SET)
        write_all(descriptor, data)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, end)
        raise
    return end + len(data)


@dataclass(frozen=True)
class Call:
    """One answer of the denoiser on a tape; a step has one, or two where the pipeline asks twice."""

    index: int
    step_index: int
    timestep: float
    elapsed_s: float
    """Since the answer before, so the step's time for the most part."""
    form: str
    """`tuple`, `tensor`, or the name of an output class of diffusers."""
    offset: int
    length: int


def _call(payload: bytes, offset: int) -> Call:
    """What a payload says of itself. Raises `TapeError` where it is no safetensors image that lies within its bounds."""
    try:
        header_bytes = int.from_bytes(payload[:8], "little")
        if header_bytes > len(payload) - 8:
            raise ValueError("the header is cut off")
        header = json.loads(payload[8 : 8 + header_bytes])
        facts = header.pop("__metadata__")
        for tensor in header.values():
            begin, end = tensor["data_offsets"]
            if not 0 <= begin <= end <= len(payload) - 8 - header_bytes:
                raise ValueError("a tensor is cut off")
        return Call(
            int(facts["call"]), int(facts["step"]), float(facts["timestep"]), float(facts["elapsed_s"]), str(facts["form"]),
            offset, len(payload),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TapeError(f"a record is no recorded call: {error}") from error


def steps_done(calls: list[Call]) -> int:
    """How many whole steps a tape holds; the last one counts when it has as many calls as the first."""
    if not calls:
        return 0
    last = calls[-1].step_index
    each = sum(call.step_index == calls[0].step_index for call in calls)
    here = sum(call.step_index == last for call in calls)
    return last + (here >= each)


# --- tapes ----------------------------------------------------------------------------------------------------------


class Tape:
    """A tape that is open: its calls can be read, and new ones appended. One process at a time, see `sdtui.ledger.JobLock`."""

    def __init__(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        """Open or make the tape. One that is damaged loses its end, one with another fingerprint all. Raises `OSError`."""
        self.path = path
        self.calls: list[Call] = []
        self.begun_anew = ""
        """Why what was there could not be used; empty where it could, or where there was nothing."""
        self._size = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.begun_anew = self._take_up(fingerprint)
            if not self._size:
                self.calls.clear()
                os.ftruncate(self._descriptor, 0)
                self._append(record(_as_json(fingerprint)))
            else:
                os.ftruncate(self._descriptor, self._size)
        except BaseException:
            self.close()
            raise

    def _take_up(self, fingerprint: Mapping[str, Any]) -> str:
        """Take over what is whole; returns why nothing is."""
        payloads = payloads_of(self._descriptor)
        first = next(payloads, None)
        if first is None:
            return "its beginning is damaged" if os.fstat(self._descriptor).st_size else ""
        why = mismatch(first[1], fingerprint)
        if why:
            return why
        self._size = first[0] + len(first[1])
        for offset, payload in payloads:
            try:
                call = _call(payload, offset)
            except TapeError:
                break
            if call.index != len(self.calls):
                break
            self.calls.append(call)
            self._size = offset + len(payload)
        return ""

    def read(self, call: Call) -> bytes:
        """The safetensors image of a call. Raises `TapeError` or `OSError` where it cannot be read any more."""
        payload = read_at(self._descriptor, call.length, call.offset)
        if _call(payload, call.offset) != call:
            raise TapeError(f"call {call.index} has changed on disk")
        return payload

    def append(self, payload: bytes) -> None:
        """Add a call, by one write. Raises `OSError`; then the tape ends with the call before."""
        call = _call(payload, self._size + _HEAD.size)
        self._append(record(payload))
        self.calls.append(call)

    def _append(self, data: bytes) -> None:
        self._size = append_at(self._descriptor, data, self._size)

    def cut(self, index: int) -> None:
        """Drop this call and those after it."""
        self._size = self.calls[index].offset - _HEAD.size
        del self.calls[index:]
        os.ftruncate(self._descriptor, self._size)

    def sync(self) -> None:
        """Make what was appended durable. Raises `OSError`."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _as_json(fingerprint: Mapping[str, Any]) -> bytes:
    return json.dumps(fingerprint, sort_keys=True, separators=(",", ":")).encode()


def read_tape(path: Path) -> tuple[dict[str, Any], list[Call]]:
    """A tape's fingerprint and its whole calls, without changing it. Raises `TapeError` or `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        payloads = payloads_of(descriptor)
        first = next(payloads, None)
        fingerprint = _fingerprint(first[1]) if first is not None else None
        if fingerprint is None:
            raise TapeError(f"{path} has no fingerprint that can be read")
        calls: list[Call] = []
        with suppress(TapeError):
            for offset, payload in payloads:
                calls.append(_call(payload, offset))
        return fingerprint, calls
    finally:
        os.close(descriptor)


def _fingerprint(payload: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def mismatch(payload: bytes, fingerprint: Mapping[str, Any]) -> str:
    """Why a tape with this first payload does not fit; empty when it does."""
    found, wanted = _fingerprint(payload), json.loads(_as_json(fingerprint))
    if found is None:
        return "its fingerprint cannot be read"
    if found.get("format") != wanted.get("format"):
        return f"the tape has format {found.get('format')!r}, and this version writes format {wanted.get('format')!r}"
    for name in sorted(found.keys() | wanted.keys()):
        if not _same(found.get(name), wanted.get(name)):
            return f"{name} was {_show(found.get(name), wanted.get(name))} and is {_show(wanted.get(name), found.get(name))}"
    return ""


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return one == other


def _show(value: Any, other: Any) -> str:
    """A value for a sentence; of two mappings only what differs."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {name: value.get(name) for name in sorted(value.keys() | other.keys()) if value.get(name) != other.get(name)}
    return safe_text(json.dumps(value), limit=120)
