"""Writing a picture with its record: complete under its final name or not at all, and never in the place of another."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from sdtui.metadata.infotext import infotext
from sdtui.metadata.names import file_stem
from sdtui.metadata.record import A1111_KEY, OUR_KEY, ImageRecord, OutputError
from sdtui.text import format_bytes

if TYPE_CHECKING:
    from PIL import Image


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
