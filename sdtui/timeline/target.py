"""Where an export goes: its kind by its name, a temporary name beside it while it is made, and its own name at the end."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from sdtui.text import safe_text
from sdtui.timeline.wanted import ExportError

Kind = Literal["mp4", "webp", "gif", "safetensors", "png"]
"""`png` is a directory with a picture for each step."""
ENDINGS: Final[dict[str, Kind]] = {".mp4": "mp4", ".webp": "webp", ".gif": "gif", ".safetensors": "safetensors"}
_STEP_PICTURE: Final = re.compile(r"step_\d{4}_(t\d{4,}|initial)\.png")


class Target:
    """A file, or a directory of pictures, that is to be."""

    def __init__(self, name: str | Path, *, overwrite: bool = False) -> None:
        """Raises `ExportError` for a name of no known kind, and for what is there already unless it may be overwritten."""
        text = str(name)
        self.path = Path(text).expanduser().absolute()
        self._overwrite = overwrite
        self.shown = safe_text(text, limit=300)
        if not text.strip() or "\0" in text:
            raise ExportError("The name of the file is empty, or no file can have it.", "target")
        try:
            self.kind = self._kind(text)
            self._check_free()
        except OSError as error:
            raise self.unwritable(error) from error

    def _kind(self, text: str) -> Kind:
        if text.endswith(os.sep) or self.path.is_dir():
            return "png"
        suffix = self.path.suffix.lower()
        if suffix in ENDINGS or not suffix:
            return ENDINGS.get(suffix, "png")
        known = ", ".join(ENDINGS)
        message = f"{self.shown} must end in one of {known}, or be a directory, as in {self.path.stem}/, for PNG files."
        raise ExportError(message, "target")

    def _check_free(self) -> None:
        parent = self.path.parent
        if not parent.is_dir():
            raise ExportError(f"The directory {safe_text(str(parent), limit=300)} is not there; make it first.", "target")
        if self.kind == "png" and self.path.is_dir():
            self._check_room()
        elif self.path.exists() or self.path.is_symlink():
            if not self.path.is_file() or self.kind == "png":
                raise ExportError(f"{self.shown} is there already, and is no file that could be replaced.", "target")
            if not self._overwrite:
                raise self._taken()

    def _check_room(self) -> None:
        if not self._overwrite and _step_pictures(self.path):
            message = f"{self.shown} has pictures of steps already; choose another directory, or overwrite them."
            raise ExportError(message, "target")

    def _taken(self) -> ExportError:
        return ExportError(f"{self.shown} is there already; choose another name, or overwrite it.", "target")

    def unwritable(self, error: BaseException) -> ExportError:
        """What a failed write is for the user."""
        reason = getattr(error, "strerror", None) or safe_text(str(error), limit=200) or type(error).__name__
        return ExportError(f"{self.shown} cannot be written: {reason}.", "target")

    @contextmanager
    def made(self) -> Iterator[Path]:
        """A temporary name to write to, of a file or of a directory that is there. It gets its own name when the block ends well,
        and is removed when it does not. Raises `OSError`, and `ExportError` where somebody else took the name meanwhile."""
        into = self.path if self.kind == "png" and self.path.is_dir() else self.path.parent
        part = into / f".sdtui-{secrets.token_hex(6)}"
        try:
            if self.kind == "png":
                part.mkdir()
            else:
                os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))  # as the user's umask has it
            yield part
            if into == self.path:
                self._move_pictures(part)
            elif self.kind == "png":
                part.rename(self.path)
            else:
                _sync(part)
                self._give_name(part)
        finally:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)

    def _give_name(self, part: Path) -> None:
        if self._overwrite:
            part.replace(self.path)
            return
        try:
            os.link(part, self.path)
        except FileExistsError as error:
            raise self._taken() from error
        except OSError:  # file systems without hard links, as FAT and some network ones
            if self.path.exists():
                raise self._taken() from None
            part.rename(self.path)

    def _move_pictures(self, part: Path) -> None:
        """Into a directory that was there: pictures of steps that an earlier export left would be taken for this one's."""
        self._check_room()
        for old in _step_pictures(self.path):
            old.unlink()
        for picture in sorted(part.iterdir()):
            picture.replace(self.path / picture.name)


def _step_pictures(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if _STEP_PICTURE.fullmatch(path.name)]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
