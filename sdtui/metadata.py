"""What an image file says of how it was made: written into PNG text chunks, and read again.

`parameters` holds A1111's infotext (the grammar of its `modules/processing.py` and `modules/infotext_utils.py`), which
Civitai and most readers take; `sdtui` holds `ImageRecord` as ASCII JSON, with nothing left out. A file appears under
its final name complete or not at all, and never in the place of another.
"""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import re
import secrets
import shutil
import string
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NoReturn

import msgspec

from sdtui.params import GenerationParams
from sdtui.schedulers import BY_NAME, a1111_schedule, find_scheduler
from sdtui.settings import nearest
from sdtui.text import format_bytes, safe_text

if TYPE_CHECKING:
    from PIL import Image

OUR_KEY: Final = "sdtui"
A1111_KEY: Final = "parameters"
NAME_FIELDS: Final = ("date", "time", "job", "seed", "index", "model", "prompt")
_MAX_STEM_BYTES: Final = 180
"""With `-99999` and `.png` a name stays under 200 bytes, so temporary names and copies fit the usual limit of 255."""
_MAX_FIELD_BYTES: Final = 80
"""A long prompt must leave room for the seed and the job behind it."""
_MAX_TEXT_BYTES: Final = 1 << 20
"""Of one text chunk, unpacked; 10,000 characters of prompt and of negative prompt are at most 240 kB of our JSON."""
_MAX_CHUNKS: Final = 100_000
_MAX_PIXELS: Final = 178_956_970
"""Where Pillow refuses to open a picture as a decompression bomb."""
_MAX_PARAMETER_LINE: Final = 65_536
"""In characters; the grammar's regular expression takes time in the square of the line's length on hostile text."""


class OutputError(Exception):
    """A picture that could not be written; the text says what to do, `field` which setting to change."""

    def __init__(self, message: str, field: str = "output") -> None:
        super().__init__(message)
        self.field = field


class MetadataError(Exception):
    """A file from which no generation data can be read; the text names the file and why."""


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of how one picture was made."""

    params: GenerationParams
    """As resolved: real width and height, the scheduler's name, and the seed of this very picture."""
    model_name: str
    model_hash: str | None = None
    """AutoV2: the first ten hex digits of the file's SHA-256, where the model is a single file."""
    scheduler_class: str
    job: str = ""
    image_index: int = 0
    """Counts from 0 over the whole job."""
    batch_size: int = 1
    first_seed: int
    """Seed of the first picture of the batch; the same bits need the same batch."""
    version: str
    torch: str
    diffusers: str
    device: str
    dtype: str
    created_at: str
    """ISO 8601, UTC."""
    elapsed_s: float
    inexact: tuple[str, ...] = ()
    """Faster modes in use that change the picture's bits."""


class ImageMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from a file. All texts are untrusted: pass them through `safe_text` before they are shown."""

    path: str
    width_px: int
    height_px: int
    record: ImageRecord | None = None
    """None when the file was not made by sdtui, or says so unreadably; see `problem`."""
    infotext: str | None = None
    fields: dict[str, str] = {}
    """`infotext`, parsed."""
    problem: str = ""


# --- A1111's grammar ------------------------------------------------------------------------------------------------

_PARAMETER: Final = re.compile(r'\s*(\w[\w \-/]{1,100}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""A1111's `re_param`, with the key's length bounded so that long text without a colon stays cheap."""
_SIZE: Final = re.compile(r"^(\d+)x(\d+)$")
_KEYWORD_LINE: Final = re.compile(r"^([^\S\n]*)(Negative prompt|Steps):", re.MULTILINE)


def _prompt_lines(text: str) -> str:
    """A prompt that readers take as prompt text alone: no line of it can pass for a keyword of the grammar."""
    return _KEYWORD_LINE.sub(r"\1\2 :", safe_text(text, multiline=True)).strip()


def _quote(value: str) -> str:
    """A1111's quoting rule; a leading quote is quoted too, since its parser would take it off."""
    if value.startswith('"') or any(mark in value for mark in ",:\n"):
        return json.dumps(value, ensure_ascii=False)
    return value


def _sampler(record: ImageRecord) -> str:
    spec = BY_NAME.get(find_scheduler(record.params.scheduler) or "")
    if spec is None:
        return record.scheduler_class.removesuffix("Scheduler")
    return spec.a1111 or spec.label


def _parameters(record: ImageRecord) -> dict[str, str | None]:
    """The last line's keys and values in A1111's order; None is left out."""
    params = record.params
    scale = params.guidance_scale
    in_batch = record.batch_size > 1
    return {
        "Steps": str(params.num_inference_steps),
        "Sampler": _sampler(record),
        "Schedule type": a1111_schedule(params.sigmas),
        "CFG scale": str(int(scale)) if float(scale).is_integer() else str(scale),
        "Seed": None if params.seed is None else str(params.seed),
        "Size": f"{params.width}x{params.height}" if params.width and params.height else None,
        "Model hash": record.model_hash,
        "Model": record.model_name,
        "Clip skip": str(params.clip_skip + 1) if params.clip_skip > 0 else None,
        "RNG": "CPU" if record.device.startswith("cpu") else None,
        "Batch size": str(record.batch_size) if in_batch else None,
        "Batch pos": str(record.image_index % record.batch_size) if in_batch else None,
        "Version": f"sdtui {record.version}",
    }


def infotext(record: ImageRecord) -> str:
    """The record in A1111's grammar, as it stands under `parameters`."""
    lines = [_prompt_lines(record.params.prompt)]
    if negative := _prompt_lines(record.params.negative_prompt):
        lines.append(f"Negative prompt: {negative}")
    clean = ((key, safe_text(value).strip()) for key, value in _parameters(record).items() if value)
    lines.append(", ".join(f"{key}: {_quote(value)}" for key, value in clean if value))
    return "\n".join(lines)


def parse_infotext(text: str) -> dict[str, str]:
    """The keys and values of an infotext, as A1111's own parser reads it, with `Prompt` and `Negative prompt`.

    The last line holds parameters only when at least three are found in it, else it belongs to the prompt. `Size`
    becomes `Size-1` and `Size-2`.
    """
    *lines, last = text.strip().split("\n")
    pairs = _PARAMETER.findall(last) if len(last) <= _MAX_PARAMETER_LINE else []
    if len(pairs) < 3:
        lines.append(last)
        pairs = []
    found = {"Prompt": "", "Negative prompt": ""}
    target = "Prompt"
    for line in map(str.strip, lines):
        rest = line
        if line.startswith("Negative prompt:"):
            target, rest = "Negative prompt", line.removeprefix("Negative prompt:").strip()
        found[target] += f"\n{rest}" if found[target] else rest
    for key, value in pairs:
        if size := _SIZE.match(value):
            found[f"{key}-1"], found[f"{key}-2"] = size.groups()
        else:
            found[key] = _unquote(value)
    return found


def _unquote(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


# --- names ----------------------------------------------------------------------------------------------------------


def check_pattern(pattern: str) -> None:
    """Raises `OutputError` when a name pattern names an unknown field or a directory."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise OutputError(f"The name pattern {pattern!r} cannot be read: {error}.", "name_pattern") from error
    if "/" in pattern:
        raise OutputError(
            f"The name pattern {pattern!r} may not contain '/': all pictures go into one directory.", "name_pattern"
        )
    for _, name, layout, conversion in parts:
        if name is not None and name not in NAME_FIELDS:
            hint = nearest(name, NAME_FIELDS)
            raise OutputError(f"The name pattern {pattern!r} has the unknown field {{{name}}}; {hint}", "name_pattern")
        if layout or conversion:
            raise OutputError(f"The name pattern {pattern!r} may not format {{{name}}}: write the field alone.", "name_pattern")


def _cut_bytes(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")


def _name_part(text: str) -> str:
    """Text as part of a file name, portable to other systems: no separators, controls or spaces."""
    return re.sub(r'[\s/\\:*?"<>|]+', "_", safe_text(text))


def file_stem(pattern: str, record: ImageRecord) -> str:
    """The name without ending that a pattern gives a picture; it cannot leave its directory. Raises `OutputError`."""
    check_pattern(pattern)
    made = datetime.fromisoformat(record.created_at).astimezone()
    seed = record.first_seed if record.params.seed is None else record.params.seed
    values = {
        "date": f"{made:%Y-%m-%d}",
        "time": f"{made:%H%M%S}",
        "job": record.job or "job",
        "seed": str(seed),
        "index": f"{record.image_index:03d}",
        "model": record.model_name,
        "prompt": record.params.prompt,
    }
    parts = {name: _cut_bytes(_name_part(value), _MAX_FIELD_BYTES) for name, value in values.items()}
    stem = _name_part(pattern.format(**parts)).lstrip(".-_ ")
    return _cut_bytes(stem, _MAX_STEM_BYTES).rstrip(". ") or "image"


# --- writing --------------------------------------------------------------------------------------------------------


def prepare_output(directory: Path) -> None:
    """Make the directory and try a file in it, so that an unwritable one shows before the work. Raises `OutputError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        name, descriptor = _create_temporary(directory)
        os.close(descriptor)
        name.unlink()
    except OSError as error:
        _raise_output_error(directory, error, 0)


def save_png(image: Image.Image, directory: Path, pattern: str, record: ImageRecord) -> Path:
    """Write a picture with its record, and return its path.

    The directory is made if missing. A name that is taken gets `-2`, `-3` ...; two writers at once get two names.
    Raises `OutputError` and leaves nothing half-written.
    """
    stem = file_stem(pattern, record)
    data = _png_bytes(image, record)
    temporary: Path | None = None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary, descriptor = _create_temporary(directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return _give_name(temporary, directory, stem)
    except OSError as error:
        _discard(temporary)  # first, so that the free space is told as it is without it
        _raise_output_error(directory, error, len(data))
    finally:
        _discard(temporary)


def _png_bytes(image: Image.Image, record: ImageRecord) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(A1111_KEY, infotext(record))  # iTXt by itself where latin-1 does not do
    ours = msgspec.to_builtins(record, enc_hook=str)  # str, for versions that are of a class of their own (torch's)
    info.add_text(OUR_KEY, json.dumps(ours, separators=(",", ":")))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _discard(temporary: Path | None) -> None:
    if temporary is not None:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _create_temporary(directory: Path) -> tuple[Path, int]:
    """A new hidden file with the permissions that the user's umask gives, and its descriptor."""
    path = directory / f".sdtui-{secrets.token_hex(8)}.part"
    return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _give_name(temporary: Path, directory: Path, stem: str) -> Path:
    for path in _candidates(directory, stem):
        try:
            _move_without_overwriting(temporary, path)
        except FileExistsError:
            continue
        _sync_directory(directory)
        return path
    raise OutputError(f"{directory} has too many pictures named {stem!r}; put {{job}} or {{seed}} into the name pattern.")


def _candidates(directory: Path, stem: str) -> Iterator[Path]:
    yield directory / f"{stem}.png"
    for number in itertools.islice(itertools.count(2), 99_998):
        yield directory / f"{stem}-{number}.png"


def _move_without_overwriting(source: Path, target: Path) -> None:
    """Raises `FileExistsError` when the target is taken, by whomever and however late."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        # File systems without hard links (FAT, some network ones): reserve the name, then replace our own reservation.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            source.replace(target)
        except BaseException:
            target.unlink()
            raise


def _sync_directory(directory: Path) -> None:
    """Make the new name durable where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _raise_output_error(directory: Path, error: OSError, needed_bytes: int) -> NoReturn:
    instead = "choose another output directory (--output, or output_dir in the settings)"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            free = shutil.disk_usage(directory).free
            needs = f"the picture needs {format_bytes(needed_bytes)}, {format_bytes(free)} are free"
            raise OutputError(f"The disk of {directory} is full: {needs}. Free some space, or {instead}.") from error
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        raise OutputError(f"{directory} is not a directory: a file is in its place. Move it, or {instead}.") from error
    raise OutputError(f"{directory} cannot be written: {error.strerror}. Change that, or {instead}.") from error


# --- reading --------------------------------------------------------------------------------------------------------

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK_HEAD: Final = struct.Struct(">I4s")
_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")
_READ_KEYS: Final = (OUR_KEY, A1111_KEY)


def read_png(path: Path) -> ImageMetadata:
    """What a PNG says of how it was made: our record, else A1111's infotext. Raises `MetadataError`.

    Pixels are never unpacked, and no text of more than a mebibyte.
    """
    try:
        with path.open("rb") as file:
            width, height = _read_header(path, file)
            texts = _read_texts(path, file)
    except OSError as error:
        raise MetadataError(f"{path} cannot be read: {error.strerror}.") from error
    info = texts.get(A1111_KEY)
    ours = texts.get(OUR_KEY)
    if info is None and ours is None:
        others = ", ".join(sorted(safe_text(key) for key in texts))
        instead = f" (only {others})" if others else ""
        raise MetadataError(f"{path} says nothing of how it was made: no text `{OUR_KEY}` or `{A1111_KEY}`{instead}.")
    record, problem = _decode_record(ours)
    fields = parse_infotext(info) if info is not None else {}
    return ImageMetadata(
        path=str(path), width_px=width, height_px=height, record=record, infotext=info, fields=fields, problem=problem
    )


def _decode_record(text: str | None) -> tuple[ImageRecord | None, str]:
    if text is None:
        return None, ""
    try:
        return msgspec.json.decode(text, type=ImageRecord), ""
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return None, f"The text `{OUR_KEY}` cannot be read: {error}"


def _read_header(path: Path, file: IO[bytes]) -> tuple[int, int]:
    head = file.read(len(_SIGNATURE) + 25)  # the first chunk, IHDR, is 25 bytes long
    if not head.startswith(_SIGNATURE):
        raise MetadataError(f"{path} is not a PNG file.")
    if len(head) < len(_SIGNATURE) + 25 or head[12:16] != b"IHDR":
        raise MetadataError(f"{path} is a damaged PNG file: it has no header.")
    width, height = struct.unpack_from(">II", head, 16)
    if not 0 < width * height <= _MAX_PIXELS:
        raise MetadataError(f"{path} says it has {width:,} x {height:,} pixels; up to {_MAX_PIXELS:,} in all are read.")
    return width, height


def _read_texts(path: Path, file: IO[bytes]) -> dict[str, str]:
    """The text chunks by key; texts of keys that are none of ours are left empty."""
    texts: dict[str, str] = {}
    for _ in range(_MAX_CHUNKS):
        head = file.read(_CHUNK_HEAD.size)
        if len(head) < _CHUNK_HEAD.size:
            raise MetadataError(f"{path} is a damaged PNG file: it ends too early.")
        length, kind = _CHUNK_HEAD.unpack(head)
        if kind == b"IEND":
            return texts
        if kind not in _TEXT_CHUNKS:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        key, text = _read_text(path, file, kind, length)
        texts.setdefault(key, text)
    raise MetadataError(f"{path} has more than {_MAX_CHUNKS:,} chunks; that is no ordinary PNG file.")


def _read_text(path: Path, file: IO[bytes], kind: bytes, length: int) -> tuple[str, str]:
    start = file.read(min(length, 80))  # a key is at most 79 bytes and a zero
    key = start.split(b"\0", 1)[0].decode("latin-1")
    if key not in _READ_KEYS:
        file.seek(length - len(start) + 4, os.SEEK_CUR)
        return key, ""
    if length > _MAX_TEXT_BYTES:
        raise MetadataError(f"{path}: the text `{key}` has {length:,} bytes; up to {_MAX_TEXT_BYTES:,} are read.")
    data = start + file.read(length - len(start))
    check = file.read(4)
    if len(data) < length or check != struct.pack(">I", zlib.crc32(kind + data)):
        raise MetadataError(f"{path} is a damaged PNG file: the text `{key}` is cut off or changed.")
    try:
        return key, _decode_text(kind, data[len(key) + 1 :])
    except _TextTooLargeError:
        raise MetadataError(f"{path}: the text `{key}` unpacks to more than {_MAX_TEXT_BYTES:,} bytes.") from None
    except (ValueError, zlib.error, IndexError) as error:
        raise MetadataError(f"{path}: the text `{key}` cannot be unpacked: {error}.") from error


class _TextTooLargeError(Exception):
    pass


def _decode_text(kind: bytes, body: bytes) -> str:
    """The text of a chunk behind its key (PNG specification, 11.3.4: tEXt latin-1, zTXt packed, iTXt UTF-8)."""
    if kind == b"tEXt":
        return body.decode("latin-1")
    if kind == b"zTXt":
        return _inflate(body[1:]).decode("latin-1")
    packed = body[0] == 1
    _language, _translated, text = body[2:].split(b"\0", 2)
    return (_inflate(text) if packed else text).decode("utf-8")


def _inflate(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(data, _MAX_TEXT_BYTES)
    if unpacker.unconsumed_tail:
        raise _TextTooLargeError
    return text
