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
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from sdtui.ledger import Ledger, SavedPicture, file_digest
from sdtui.metadata.infotext import infotext
from sdtui.metadata.names import file_stem
from sdtui.metadata.record import A1111_KEY, OUR_KEY, ImageRecord, OutputError, StorageProblem
from sdtui.text import format_bytes

if TYPE_CHECKING:
    from PIL import Image

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
BROKEN: Final = frozenset({errno.EIO, errno.EROFS, errno.EFBIG, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV})
"""What disks and network file systems say that may be well again later."""


def prepare_output(directory: Path) -> None:
    """Make the directory and try a file in it, so that an unwritable one shows before the work. Raises `OutputError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        name = _random_name(directory)
        os.close(_create(name))
        name.unlink()
    except OSError as error:
        _raise_output_error(directory, error, 0)


def save_png(image: Image.Image, directory: Path, pattern: str, record: ImageRecord) -> Path:
    """Write a picture with its record, and return its path.

    The directory is made if missing. A name that is taken gets `-2`, `-3` ...; two writers at once get two names.
    Raises `OutputError` and leaves nothing half-written.
    """
    return Path(UnsavedPicture(image, directory, pattern, record).save().path)


class UnsavedPicture:
    """A finished picture on its way to disk: `save` can be called until it works, and gives it one name, once."""

    def __init__(self, image: Image.Image, directory: Path, pattern: str, record: ImageRecord) -> None:
        """Raises `OutputError` for a pattern that gives no name."""
        self._directory, self._record = directory, record
        self._stem = file_stem(pattern, record)
        self._size_px = image.size
        self._data = _png_bytes(image, record)

    def save(self, ledger: Ledger | None = None) -> SavedPicture:
        """Write the file and give it its name, and note that in the ledger. Raises `OutputError`, `StorageProblem` among them.

        With a ledger it is exactly once, whenever the process dies: the name and a digest of the bytes are noted before the
        name is given, so the next worker sees whether it was, also where the file system has no hard links.
        """
        try:
            found = ledger.find(self._record.image_index) if ledger is not None else None
            if found is None:
                return self._write(ledger)
            self._temporary(ledger).unlink(missing_ok=True)
            return found
        except OSError as error:
            _raise_output_error(_place_of(error, self._directory), error, len(self._data))

    def _write(self, ledger: Ledger | None) -> SavedPicture:
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary(ledger)
        if ledger is not None and temporary.exists():
            self._discard_reservation(ledger)
            temporary.unlink()
        descriptor = _create(temporary)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._data)
                file.flush()
                os.fsync(file.fileno())
            return self._give_name(temporary, ledger)
        finally:
            _discard(temporary)

    def _temporary(self, ledger: Ledger | None) -> Path:
        """A hidden name; with a ledger always the same, so that what a crash left behind is found."""
        if ledger is None:
            return _random_name(self._directory)
        return self._directory / f".sdtui-{self._record.job}-{self._record.image_index}.part"

    def _discard_reservation(self, ledger: Ledger) -> None:
        """Where there are no hard links a crash can leave an empty file under the name that was meant."""
        for line in ledger.saving:
            path = Path(line.picture.path)
            with suppress(OSError):
                if line.picture.image_index == self._record.image_index and path.stat().st_size == 0:
                    path.unlink()

    def _give_name(self, temporary: Path, ledger: Ledger | None) -> SavedPicture:
        for path in _candidates(self._directory, self._stem):
            if os.path.lexists(path):
                continue
            picture = self._picture(path)
            if ledger is not None:
                ledger.announce(picture, file_digest(self._data))
            try:
                _move_without_overwriting(temporary, path)
            except FileExistsError:
                continue
            _sync_directory(self._directory)
            if ledger is not None:
                ledger.add(picture)
            return picture
        raise OutputError(
            f"{self._directory} has too many pictures named {self._stem!r}; put {{job}} or {{seed}} into the name pattern."
        )

    def _picture(self, path: Path) -> SavedPicture:
        width_px, height_px = self._size_px
        return SavedPicture(
            image_index=self._record.image_index,
            path=str(path),
            seed=self._record.first_seed if self._record.params.seed is None else self._record.params.seed,
            width_px=width_px,
            height_px=height_px,
            size_bytes=len(self._data),
        )


def _png_bytes(image: Image.Image, record: ImageRecord) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(A1111_KEY, infotext(record))  # iTXt by itself where latin-1 does not do
    ours = msgspec.to_builtins(record, enc_hook=str)  # str, for versions that are of a class of their own (torch's)
    info.add_text(OUR_KEY, json.dumps(ours, separators=(",", ":")))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _discard(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def _random_name(directory: Path) -> Path:
    return directory / f".sdtui-{secrets.token_hex(8)}.part"


def _create(path: Path) -> int:
    """A new file with the permissions that the user's umask gives; its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


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


def _place_of(error: OSError, directory: Path) -> Path:
    """Which directory an error is about: the job's own, where the ledger says its file's name, else that of the pictures."""
    path = Path(error.filename) if isinstance(error.filename, str) else directory
    return path.parent if path.suffix == ".jsonl" else directory


def _raise_output_error(directory: Path, error: OSError, needed_bytes: int) -> NoReturn:
    instead = "choose another output directory (--output, or output_dir in the settings)"
    if error.errno in FULL:
        needs = f"the picture needs {format_bytes(needed_bytes)}"
        with suppress(OSError):
            needs += f", {format_bytes(shutil.disk_usage(directory).free)} are free"
        message = f"The disk of {directory} is full: {needs}. Free some space, or {instead}."
        raise StorageProblem(message, str(directory), needed_bytes) from error
    if error.errno in BROKEN:
        message = f"{directory} cannot be written: {error.strerror}. Change that, or {instead}."
        raise StorageProblem(message, str(directory), needed_bytes) from error
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        raise OutputError(f"{directory} is not a directory: a file is in its place. Move it, or {instead}.") from error
    raise OutputError(f"{directory} cannot be written: {error.strerror}. Change that, or {instead}.") from error
