"""Picture files of any origin, decoded with care: what is too large is refused by its header, before anything is unpacked.

The content decides the format, never the name's ending.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sdtui.terminal.picture import FORMATS, MAX_PIXELS
from sdtui.text import safe_text

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILE_BYTES: Final = 200_000_000
"""A camera's largest TIFF fits; the file is held in memory."""
TAKEN: Final = "PNG, JPEG, WebP, GIF, BMP or TIFF"
ENDINGS: Final = {
    "PNG": "png",
    "JPEG": "jpg",
    "MPO": "jpg",  # what many cameras write: a JPEG with further pictures behind the first
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "PPM": "ppm",
}
"""A file's ending by Pillow's name of the format."""
_CHUNK_BYTES: Final = 1 << 20
_SIGNATURES: Final = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM", "BMP"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"II\*\x00|MM\x00\*", "TIFF"),
)
_SIZES: Final = (
    (rb"\x89PNG\r\n\x1a\n", ">II", 16),
    (rb"GIF8[79]a", "<HH", 6),
    (rb"BM.{12}[\x28-\x7c]\x00{3}", "<ii", 18),  # not OS/2's header of 12 bytes
)
_OTHERS: Final = (
    (rb"%PDF", "a PDF document"),
    (rb"....ftyp(avif|avis)", "an AVIF picture"),
    (rb"....ftyp(heic|heix|hevc|mif1|msf1)", "a HEIC picture"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (rb"8BPS", "a Photoshop document"),
)
_MARKUP: Final = re.compile(rb"<(?:!doctype\s+)?(svg|html|head|body)\b", re.IGNORECASE)


class InitialImageError(Exception):
    """An initial image that cannot be used: one sentence that names the file or address."""


class InitialImageCancelled(InitialImageError):
    """Taking an initial image in was broken off because the caller wanted it so."""


def shown_path(path: Path) -> str:
    """A path for a sentence: safe, on one line; of a long one the end, where the file's name is."""
    text = safe_text(str(path))
    return text if len(text) <= 200 else f"…{text[-199:]}"


def never() -> bool:
    """For callers that do not cancel."""
    return False


def untold(_done: int, _total: int) -> None:
    """For callers that show no progress."""


def bytes_of(path: Path, *, cancelled: Callable[[], bool] = never, progress: Callable[[int, int], None] = untold) -> bytes:
    """A regular file's bytes, at most `MAX_FILE_BYTES`. Raises `InitialImageError`.

    Never waits for a pipe or a device: those are refused, also one that takes the file's place meanwhile.
    """
    name = shown_path(path)
    try:
        _refuse_special(path.stat().st_mode, name)
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            _refuse_special(found.st_mode, name)
            parts, done = [], 0
            while part := file.read(_CHUNK_BYTES):
                parts.append(part)
                done += len(part)
                if max(done, found.st_size) > MAX_FILE_BYTES:
                    raise InitialImageError(f"The initial image {name} is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
                if cancelled():
                    raise InitialImageCancelled(f"Reading {name} was cancelled.")
                progress(done, found.st_size)
    except FileNotFoundError as error:
        raise InitialImageError(f"The initial image {name} does not exist.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InitialImageError(f"The initial image {name} cannot be read: {getattr(error, 'strerror', error)}.") from error
    return b"".join(parts)


def _refuse_special(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise InitialImageError(f"The initial image {name} is a directory; give a picture file in it.")
    if not stat.S_ISREG(mode):
        raise InitialImageError(f"The initial image {name} is a pipe, socket or device; give a picture file.")


def decoded(data: bytes, name: str) -> tuple[Image, str]:
    """A file's bytes as an upright RGB picture, and the ending of its format. Raises `InitialImageError`.

    Transparency lies on white; of an animation it is the first frame. `name` is for the error's sentence.
    """
    from PIL import Image, UnidentifiedImageError

    # Pillow warns on stderr of many pixels, which are refused here with a sentence, and of damaged EXIF, which is passed over
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    if not data:
        raise InitialImageError(f"The initial image {name} is empty: the file has 0 bytes.")
    _refuse_large(_said_size(data), name)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_large(image.size, name)
            image.load()
            return _on_white(_upright(image), name), ENDINGS[str(image.format)]
    except InitialImageError:
        raise
    except UnidentifiedImageError as error:
        raise InitialImageError(f"The initial image {name} {_instead(data)}") from error
    except Image.DecompressionBombError as error:
        raise InitialImageError(f"The initial image {name} has too many pixels: at most {MAX_PIXELS:,} are taken.") from error
    except MemoryError as error:
        raise InitialImageError(f"The initial image {name} needs more memory than there is.") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise whatever they come upon
        said = safe_text(str(error) or type(error).__name__, limit=120)
        raise InitialImageError(f"The initial image {name} is damaged or cut short: {said}.") from error


def _said_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the headers of PNG, GIF and BMP say them at a fixed place."""
    for signature, layout, at in _SIZES:
        if re.match(signature, data, re.DOTALL) and len(data) >= at + struct.calcsize(layout):
            width, height = struct.unpack_from(layout, data, at)
            return width, abs(height)  # a BMP from top to bottom has a negative height
    return None


def _refuse_large(size: tuple[int, int] | None, name: str) -> None:
    if size and size[0] * size[1] > MAX_PIXELS:
        raise InitialImageError(
            f"The initial image {name} has {size[0]:,}x{size[1]:,} pixels; at most {MAX_PIXELS:,} in all are taken."
        )


def _instead(data: bytes) -> str:
    """What bytes are that no decoder takes, as the rest of a sentence."""
    size = _said_size(data)
    if size and 0 in size:
        return f"says that it has {size[0]}x{size[1]} pixels: there is no picture in it."
    for signature, kind in _SIGNATURES:
        if re.match(signature, data, re.DOTALL):
            return f"is a {kind} file, but damaged or cut short."
    for signature, kind in _OTHERS:
        if re.match(signature, data, re.DOTALL):
            return f"is {kind}; give one in {TAKEN}."
    markup = _MARKUP.search(data[:4096]) if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else None
    if markup:
        kind = "an SVG drawing" if markup[1].lower() == b"svg" else "a web page (HTML), no picture"
        return f"is {kind}; give a picture in {TAKEN}."
    return f"is no picture that can be read; give one in {TAKEN}."


def _upright(image: Image) -> Image:
    """Turned as its EXIF orientation says."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF raises whatever comes up, and says nothing about the pixels, which are decoded
        return image


def _on_white(image: Image, name: str) -> Image:
    """Any mode as RGB."""
    from PIL import Image

    if image.mode.startswith("I"):
        return _from_16_bits(image, name).convert("RGB")
    if image.mode == "F":
        raise InitialImageError(f"The initial image {name} has floating-point samples; save it with 8 or 16 bits a channel.")
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _from_16_bits(image: Image, name: str) -> Image:
    """Greyscale of 16 bits, 0 to 65535, as 8 bits: divided by 257 and rounded, so that white stays white."""
    import numpy as np
    from PIL import Image

    values: Any = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise InitialImageError(f"The initial image {name} has samples of 32 bits; save it with 8 or 16 bits a channel.")
    grey = ((values + 128) // 257).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)
