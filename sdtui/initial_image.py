"""The initial image of image-to-image: where it comes from, how it is kept, and how it gets the size of the picture.

A copy is kept in a store whose names are hashes of the content, so a job that waits does not depend on a file which its
owner moves or changes, and an address is asked once.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from sdtui.image_files import InitialImageCancelled, InitialImageError, bytes_of, decoded, never, shown_path, untold
from sdtui.ledger import file_digest
from sdtui.settings import write_atomically
from sdtui.text import safe_text

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "InitialImageCancelled",
    "InitialImageError",
    "Resize",
    "TakenIn",
    "clean_source",
    "digest_of_file",
    "found_source",
    "is_url",
    "read_initial_image",
    "resized",
    "take_in",
    "target_size",
]

Resize = Literal["exact", "fit", "fill", "crop"]
"""How a picture of other proportions gets the size that is asked for; `resized` says what each does."""
_DIGEST_IN_NAME: Final = 16
"""Hexadecimal digits: 64 bits tell a user's pictures apart, and the name stays readable."""
_MAX_STEM: Final = 40
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://|data:[\w/+.-]*[;,]", re.IGNORECASE)
_LOCAL_URI: Final = re.compile(r"file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)


class TakenIn(msgspec.Struct, frozen=True):
    """An initial image that lies in the store."""

    path: Path
    width_px: int
    """Upright, as the EXIF orientation says."""
    height_px: int
    digest: str
    """BLAKE2b-128 of the file, hexadecimal."""


# --- where it comes from --------------------------------------------------------------------------------------------


def clean_source(text: str) -> str:
    """The path or URL in what a user pastes or a terminal drops; no disk is asked.

    Of several lines the first that is not empty. Quotes around it, backslashes before spaces and the like, and `file:`
    before a local path are taken off; `~` becomes the home directory.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if line[:1] in ("'", '"'):
        with suppress(ValueError):  # no closing quote: the quote belongs to the name
            line = (shlex.split(line) or [""])[0].strip()
    else:
        line = re.sub(r"\\(.)", r"\1", line)
    local = _LOCAL_URI.match(line)
    if local:
        return unquote(line[local.end() :], errors="surrogateescape")
    if line.startswith("~"):
        with suppress(RuntimeError):  # nobody has this name
            return str(Path(line).expanduser())
    return line


def found_source(text: str) -> str:
    """`clean_source`, but for a file of exactly this name, in which nothing must be taken off. Asks the disk."""
    return text if _is_file(text) else clean_source(text)


def _is_file(source: str) -> bool:
    """Whether there is a file of exactly this name."""
    try:
        return Path(source).is_file()
    except OSError:  # a name that is too long, or a directory that may not be entered
        return False


def is_url(source: str) -> bool:
    """Whether a source is to be fetched. Raises `InitialImageError` for an address that is neither http nor https."""
    found = _SCHEME.match(source)
    if found is None:
        return False
    if (found[1] or "").lower() in ("http", "https"):
        return True
    kind = "data:" if found[1] is None else f"{found[1]}://"
    raise InitialImageError(
        f"The initial image {safe_text(source, limit=60)} cannot be fetched: addresses with http:// and https:// are taken, "
        f"and files of this computer, not {kind}."
    )


# --- what is in it --------------------------------------------------------------------------------------------------


def read_initial_image(path: Path) -> Image:
    """A picture file as an upright RGB image; transparency lies on white. Raises `InitialImageError`.

    At most 200 MB and `MAX_PIXELS` pixels; of an animation it is the first frame.
    """
    return decoded(bytes_of(path), shown_path(path))[0]


def digest_of_file(path: Path) -> str:
    """BLAKE2b-128 of a file's bytes, hexadecimal, as in `TakenIn`. Raises `InitialImageError`."""
    return file_digest(bytes_of(path))


# --- how large it will be -------------------------------------------------------------------------------------------


def target_size(own: tuple[int, int], width: int, height: int, resize: Resize, multiple: int = 8) -> tuple[int, int]:
    """Width and height in pixels that a picture of the size `own` will have.

    They are `width` and `height`, except with `fit`: the largest inside these with the proportions of `own`, each side
    rounded down to a multiple of `multiple` px, at least one.
    """
    if resize != "fit":
        return width, height
    own_width, own_height = own
    if own_width * height >= own_height * width:
        height = width * own_height // own_width
    else:
        width = height * own_width // own_height
    return max(multiple, width // multiple * multiple), max(multiple, height // multiple * multiple)


def resized(image: Image, width: int, height: int, resize: Resize, multiple: int = 8) -> Image:
    """The image in its `target_size`, by Lanczos.

    `exact` and `fit` scale each side by itself, `fill` scales until the size is covered and cuts around the middle, `crop`
    cuts the middle out as it is; only a picture that is smaller than the size is first scaled up until it covers it.
    """
    from PIL import Image, ImageOps

    lanczos = Image.Resampling.LANCZOS
    size = target_size(image.size, width, height, resize, multiple)
    if resize == "crop" and image.width >= width and image.height >= height:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    if resize in ("fill", "crop"):
        return ImageOps.fit(image, size, lanczos)
    return image.resize(size, lanczos)


def take_in(
    source: str,
    directory: Path,
    *,
    allow_private: bool = False,
    cancelled: Callable[[], bool] = never,
    progress: Callable[[int, int], None] = untold,
) -> TakenIn:
    """Put a copy of the picture at a path or URL into the store `directory`, once it has been decoded as a whole.

    Its name is the beginning of the hash, the source's stem and the ending of its real format. A file that lies there under
    its hash is only checked. `progress` is told bytes and their total, 0 when that is unknown. Blocks: meant for a thread.
    Raises `InitialImageError`, and `InitialImageCancelled` soon after `cancelled()` has become true.
    """
    source = source if _is_file(source) else clean_source(source)  # a file's name may look like something to be cleaned
    if not source:
        raise InitialImageError("There is no initial image: give the path or the address of a picture.")
    path = None if is_url(source) else Path(source)
    if path:
        name, stem = shown_path(path), path.stem
        data = bytes_of(path, cancelled=cancelled, progress=progress)
    else:
        from sdtui.fetching import fetch, shown_url  # late: httpx takes a fifth of a second to import

        name, stem = shown_url(source), PurePosixPath(unquote(urlsplit(source).path)).stem
        data = fetch(source, allow_private=allow_private, cancelled=cancelled, progress=progress)
    image, ending = decoded(data, name)
    if cancelled():
        raise InitialImageCancelled(f"Taking {name} in was cancelled.")
    digest = file_digest(data)
    if path and _is_kept(path, directory, digest):
        kept = path.absolute()
    else:
        kept = directory.absolute() / f"{digest[:_DIGEST_IN_NAME]}-{_safe_stem(stem)}.{ending}"
    _keep(data, kept, name)
    return TakenIn(kept, image.width, image.height, digest)


def _safe_stem(stem: str) -> str:
    return re.sub(r"[^\w.-]+", "_", safe_text(stem)).strip("._-")[:_MAX_STEM].rstrip("._-") or "image"


def _is_kept(path: Path, directory: Path, digest: str) -> bool:
    return path.parent.resolve() == directory.resolve() and path.name.startswith(f"{digest[:_DIGEST_IN_NAME]}-")


def _keep(data: bytes, path: Path, name: str) -> None:
    """Write a copy that only the user can read; one that is there is touched, as the server removes old ones of no job."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size == len(data):
            os.utime(path)
        else:
            write_atomically(path, data)
    except OSError as error:
        raise InitialImageError(
            f"The initial image {name} cannot be kept in {shown_path(path.parent)}: {error.strerror}."
        ) from error
