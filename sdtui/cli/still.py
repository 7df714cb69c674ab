"""Picture files of any origin: what they are, and their pixels. Nothing in a file is trusted."""

from __future__ import annotations

import logging
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from sdtui.metadata import MetadataError, read_png
from sdtui.terminal.picture import FORMATS, Frame

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION: Final = 0x0112
_LYING: Final = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


class PictureError(Exception):
    """A file that cannot be shown; the text names it and says why."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture file is. Its texts are untrusted: pass them through `safe_text` before they are shown."""

    path: str
    format: str
    width_px: int
    height_px: int
    seed: int | None = None
    prompt: str | None = None
    """Both only where the file says how it was made, as ours do."""


def read_facts(name: str) -> Facts:
    """What the file is, by its header; no pixel is unpacked. Raises `PictureError`."""
    with _opened(name) as image:
        width, height = image.size
        if image.format != "PNG" and image.getexif().get(_ORIENTATION) in _LYING:
            width, height = height, width
        seed, prompt = _made_by(Path(name)) if image.format == "PNG" else (None, None)
        # A name need not be UTF-8, JSON must be.
        path = name.encode(errors="surrogateescape").decode(errors="replace")
        return Facts(path=path, format=image.format or "", width_px=width, height_px=height, seed=seed, prompt=prompt)


def read_pixels(name: str, limit_px: int, background: tuple[int, int, int] = (0, 0, 0)) -> Frame:
    """The picture upright, its longer side at most `limit_px`, what is transparent on `background`. Raises `PictureError`."""
    from PIL import Image, ImageOps

    with _opened(name) as image:
        image.draft("RGB", (limit_px, limit_px))
        picture = _eight_bits(image)
        picture.thumbnail((limit_px, limit_px), Image.Resampling.LANCZOS)
        ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode == "RGBA":
            behind = Image.new("RGBA", picture.size, background)
            picture = Image.alpha_composite(behind, picture)
        return Frame.of(picture)


def _eight_bits(image: Image) -> Image:
    """RGB or RGBA; Pillow alone would cut 16 bits off at 255."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _made_by(path: Path) -> tuple[int | None, str | None]:
    """Seed and prompt: of our record, else of A1111's text."""
    try:
        found = read_png(path)
    except MetadataError:
        return None, None
    if found.record is not None:
        return found.record.params.seed, found.record.params.prompt
    seed = found.fields.get("Seed", "")
    return int(seed) if seed.isdecimal() and len(seed) < 20 else None, found.fields.get("Prompt")


@contextmanager
def _opened(name: str) -> Iterator[Image]:
    """The file as Pillow sees it, whose every complaint becomes a `PictureError`."""
    _check_kind(name)
    from PIL import Image, UnidentifiedImageError

    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it would print besides what is raised
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(name, formats=FORMATS) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = Image.MAX_IMAGE_PIXELS or 0
        raise PictureError(f"{name} has too many pixels: up to {most:,} are unpacked.") from None
    except UnidentifiedImageError:
        raise PictureError(f"{name} is no picture that can be read; {', '.join(FORMATS)} files are.") from None
    except MemoryError:
        raise PictureError(f"{name} has more pixels than there is memory for.") from None
    except Exception as error:  # a decoder that meets a damaged file raises whatever it stumbles over
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise PictureError(f"{name} is damaged or cannot be read: {why.rstrip('.')}.") from error


def _check_kind(name: str) -> None:
    """Raises `PictureError` for what is no regular file: opening it could wait for ever, or never end."""
    if not name:
        raise PictureError("The name of a file is empty.")
    try:
        mode = Path(name).stat().st_mode
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror}.") from error
    if stat.S_ISDIR(mode):
        raise PictureError(f"{name} is a directory; give the files in it, as in: sdtui view {name.rstrip('/')}/*.png")
    if not stat.S_ISREG(mode):
        raise PictureError(f"{name} is no regular file; save the picture first.")
