"""An inspected job as the words view shows it: its maps, its pictures and its guidance, read and painted in threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sdtui.inspected import PATTERN, InspectedError, InspectedFile, newest, tape_of
from sdtui.ledger import Ledger
from sdtui.settings import load_settings, output_dir
from sdtui.terminal.picture import MAX_PIXELS, Frame, read_picture
from sdtui.text import safe_text

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

Resolution = tuple[int, int]
_KEPT_MAPS: Final = 256
"""Every word of a long prompt at two resolutions; 16 kB each at 512 px."""
_GREY: Final = (96, 96, 96)
"""Behind the heat where the picture is gone."""
_LONGEST_NAME: Final = 40
_MOST_NUMBERED: Final = 10_000


class Look(NamedTuple):
    """What is to be seen."""

    image: int
    """Of the batch."""
    words: tuple[int, ...] = ()
    """One, or two to compare."""
    resolutions: tuple[Resolution, ...] = ()
    """Those that are summed; none means all."""
    strength: float = 0.6
    """Of the heat over the picture; 1 is the heat alone."""
    step: int | None = None
    """The guidance of this step instead of the words."""


@dataclass(frozen=True)
class Painted:
    """A picture with heat, and what is to be said about it."""

    frame: Frame
    gone: str
    """Why the picture itself is not there; empty where it is, or is not asked for."""
    figures: tuple[float, ...]
    """Of each word, or of each step where the guidance is seen."""


class InspectedWords:
    """One file of an inspected job. Its methods take up to tenths of a second: call them in a thread."""

    def __init__(self, path: Path) -> None:
        """Raises `InspectedError`."""
        from sdtui.words import HUES, words_of  # late, as numpy and Pillow come with it

        self.hues = tuple("#" + bytes(hue).hex() for hue in HUES)
        self.file = InspectedFile(path)
        self.path = path
        self.stamp = stamp_of(path)
        self.facts = self.file.facts
        self.words = words_of(self.facts.words) if self.facts.words is not None else []
        self._maps: dict[tuple[int, int, tuple[Resolution, ...]], np.ndarray[Any, Any]] = {}
        self._picture: tuple[tuple[object, ...], Frame] | None = None
        self._guidance: list[np.ndarray[Any, Any]] | None = None

    @property
    def images(self) -> int:
        """How many pictures the batch has."""
        return max(1, len(self.facts.seeds))

    @property
    def resolutions(self) -> tuple[Resolution, ...]:
        """Heights and widths of the maps, the finest first."""
        return self.facts.words.resolutions if self.facts.words is not None else ()

    def find(self, text: str) -> int | None:
        """The first word that reads so."""
        return next((index for index, word in enumerate(self.words) if word.text == text), None)

    # --- figures ----------------------------------------------------------------------------------------------------

    def shares(self, image: int, resolutions: tuple[Resolution, ...]) -> list[float]:
        """Of the attention that the words get together, how much each gets. Raises `InspectedError`."""
        from sdtui.words import shares

        return shares(self.file, image, resolutions or None) if self.words else []

    def strongest(self) -> int:
        """The word that gets most of the attention in the first picture. Raises `InspectedError`."""
        shares = self.shares(0, ())
        return max(range(len(shares)), key=shares.__getitem__, default=0)

    def guidance(self, image: int) -> list[float]:
        """How far the prompt pulls at each step, mean over the picture. Raises `InspectedError`, `OSError`."""
        return [float(step[image].mean()) for step in self._guidance_maps()]

    # --- pictures ---------------------------------------------------------------------------------------------------

    def paint(self, look: Look, px: int = 1024) -> Painted:
        """The picture with its heat, its longer side at most `px`. Raises `InspectedError`, `OSError`, `ValueError`."""
        image, gone = self._paint(look, px)
        figures = self.shares(look.image, look.resolutions) if look.step is None else self.guidance(look.image)
        return Painted(Frame.of(image), gone, tuple(figures))

    def save(self, look: Look) -> tuple[Path, str]:
        """Save what is seen at the picture's full resolution, beside it, under a new name.

        Returns where, and why the picture is not below the heat. Raises `InspectedError`, `OSError`, `ValueError`.
        """
        from sdtui.words import save_png

        image, gone = self._paint(look, MAX_PIXELS)
        picture = self.picture_path(look.image)
        if picture is None or not picture.parent.is_dir():
            picture = output_dir(load_settings()) / f"{self.facts.job}-{look.image}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
        path = _take_name(picture.with_name(f"{picture.stem}-{self._what(look)}.png"))
        try:
            save_png(image, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path, gone

    def picture_path(self, image: int) -> Path | None:
        """Where the picture was saved, whether it is there still or not; None where nobody noted it."""
        if image >= len(self.facts.seeds):
            return None
        ledger = Ledger(self.path.parent)
        pictures = [*ledger.saved.values(), *(line.picture for line in ledger.saving)]
        return next((Path(picture.path) for picture in pictures if picture.seed == self.facts.seeds[image]), None)

    def _paint(self, look: Look, px: int) -> tuple[Image, str]:
        from sdtui.words import heat

        maps = self._look_maps(look)
        base, gone = self._base(look, px)
        return heat(base, maps, look.strength), gone

    def _look_maps(self, look: Look) -> Sequence[np.ndarray[Any, Any]]:
        if look.step is not None:
            return [self._guidance_maps()[look.step][look.image]]
        return [self._map(word, look.image, look.resolutions) for word in look.words]

    def _map(self, word: int, image: int, resolutions: tuple[Resolution, ...]) -> np.ndarray[Any, Any]:
        from sdtui.words import word_map

        key = (word, image, resolutions)
        found = self._maps.get(key)
        if found is None:
            if len(self._maps) >= _KEPT_MAPS:
                self._maps.clear()
            found = self._maps[key] = word_map(self.file, self.words[word], image, resolutions or None)
        return found

    def _guidance_maps(self) -> list[np.ndarray[Any, Any]]:
        from sdtui.answers import guidance_maps

        if self._guidance is None:
            self._guidance = guidance_maps(tape_of(self.path))
        return self._guidance

    def _base(self, look: Look, px: int) -> tuple[Image, str]:
        """What the heat lies on, and why that is not the picture."""
        if look.strength >= 1:
            return self._blank(px), ""
        path = self.picture_path(look.image)
        if path is None:
            return self._blank(px), "No picture of this job is noted"
        try:
            key = (path, path.stat().st_mtime_ns, px)
            if self._picture is None or self._picture[0] != key:
                self._picture = (key, read_picture(path, px))
            return self._picture[1].image(), ""
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return self._blank(px), safe_text(f"{path.name}: {reason}", limit=120)

    def _blank(self, px: int) -> Image:
        from PIL import Image

        width, height = self.facts.width_px, self.facts.height_px
        if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
            raise InspectedError(f"{safe_text(str(self.path), limit=300)} is of a picture of {width}x{height} pixels.")
        scale = min(1.0, px / max(width, height))
        return Image.new("RGB", (max(1, round(width * scale)), max(1, round(height * scale))), _GREY)

    def _what(self, look: Look) -> str:
        """What the picture shows, for its file's name."""
        if look.step is not None:
            return f"guidance-{look.step + 1}"
        return "-".join(["words", *(_in_name(self.words[word].text) for word in look.words)])


def inspected_files(tapes: Path) -> list[Path]:
    """The files of all inspected jobs, the newest first."""
    return sorted(tapes.glob(f"*/{PATTERN}"), key=stamp_of, reverse=True)


def file_to_show(tapes: Path) -> Path | None:
    """The last inspected job that has word maps; where none has, the last one."""
    return newest(tapes, words=True) or newest(tapes)


def stamp_of(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _in_name(word: str) -> str:
    """A word as a part of a file's name: letters and digits of any script."""
    kept = "".join(letter if letter.isalnum() else "-" for letter in safe_text(word))
    return kept.strip("-")[:_LONGEST_NAME] or "word"


def _take_name(path: Path) -> Path:
    """This path, or with a number behind the name where it is taken; the file is made. Raises `OSError`."""
    for number in range(1, _MOST_NUMBERED):
        free = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            free.open("xb").close()
        except FileExistsError:
            continue
        return free
    raise FileExistsError(f"There are {_MOST_NUMBERED:,} pictures of this name.")
