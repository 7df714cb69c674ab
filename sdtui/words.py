"""Where the words of a prompt act, from what an inspected job left on disk: their maps, and those as heat over a picture.

The maps are those of DAAM (Tang et al. 2022, "What the DAAM", eq. 4 to 6); `sdtui.inspected` says what is in the file.
numpy and Pillow come with this module: import it late.
"""

from __future__ import annotations

import os
import re
import secrets
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

from sdtui.inspected import InspectedError, InspectedFile, WordFacts
from sdtui.tensors import Map
from sdtui.text import safe_text

HUES: Final = ((255, 112, 16), (0, 143, 239))
"""Orange and azure, in which two words are compared: they differ for every kind of colour vision, and add up to white."""
_RAMP: Final = (
    (0, 0, 4), (33, 12, 74), (87, 16, 110), (138, 34, 106), (188, 55, 84), (228, 90, 49), (249, 142, 9), (249, 203, 53),
    (252, 255, 164),
)  # fmt: skip
"""Nine even places of matplotlib's colour map `inferno` (CC0): lightness grows evenly with the value, in grey, too."""
_END_OF_WORD: Final = "</w>"
_MARK: Final = re.compile(r"<\|.*\|>", re.DOTALL)


class Word(NamedTuple):
    """A word of the prompt and the tokens it is made of."""

    text: str
    """Safe to show, but not as markup."""
    tokens: tuple[int, ...]
    """Their places in the tokens of the prompt."""


# --- words ----------------------------------------------------------------------------------------------------------


def words_of(facts: WordFacts) -> list[Word]:
    """The words of a prompt in their order; the marks for start and end, and pure punctuation, are none.

    Tokens are those of CLIP's byte-level BPE (Radford et al. 2021, section 2.4), where `</w>` ends a word.
    """
    words: list[Word] = []
    spelled, places = "", []
    last = len(facts.tokens) - 1
    for place, token in enumerate(facts.tokens):
        if _MARK.fullmatch(token) or (place in (0, last) and token.startswith("<") and token.endswith(">")):
            continue
        ends = token.endswith(_END_OF_WORD)
        spelled += token.removesuffix(_END_OF_WORD)
        places.append(place)
        if ends or place + 1 >= last:
            words += _word(spelled, tuple(places))
            spelled, places = "", []
    return words


def _word(spelled: str, places: tuple[int, ...]) -> list[Word]:
    text = safe_text(_decoded(spelled)).strip()
    said = any(unicodedata.category(letter)[0] != "P" for letter in text)
    return [Word(text, places)] if said else []


def _decoded(spelled: str) -> str:
    """The text behind byte-level symbols; what are none is taken as it stands."""
    try:
        return bytes(_BYTES[symbol] for symbol in spelled).decode("utf-8", "replace")
    except KeyError:
        return spelled


def _byte_symbols() -> dict[str, int]:
    """GPT-2's symbols for bytes (Radford et al. 2019, `encoder.py`): printable ones are themselves, the others lie above 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTES: Final = _byte_symbols()


# --- maps -----------------------------------------------------------------------------------------------------------


def word_map(file: InspectedFile, word: Word, image: int, resolutions: Collection[tuple[int, int]] | None = None) -> Map:
    """Where a word acts in one picture of the batch: (h, w) at the finest resolution of the file, values >= 0.

    The maps of its tokens are averaged, those of each resolution brought to the finest one and summed (DAAM, eq. 6); without
    `resolutions` all are. Raises `InspectedError`.
    """
    facts = _facts(file)
    chosen = facts.resolutions if resolutions is None else [one for one in facts.resolutions if one in resolutions]
    if not chosen:
        raise InspectedError(f"There are maps of {_sizes(facts.resolutions)}, and none of those that were asked for.")
    finest = max(facts.resolutions, key=lambda size: size[0] * size[1])
    token_maps(file, finest)  # facts that promise too much must not make us ask for the memory
    total = np.zeros(finest, np.float32)
    for size in chosen:
        maps = token_maps(file, size)
        if not 0 <= image < len(maps):
            raise InspectedError(f"The batch has {len(maps)} pictures, and none with the number {image + 1}.")
        if not word.tokens or not all(0 <= token < maps.shape[1] for token in word.tokens):
            raise InspectedError(f"There are no maps of the word {word.text!r}.")
        mean = np.nan_to_num(maps[image, list(word.tokens)]).mean(axis=0)
        total += np.maximum(_resized(mean, finest), 0)  # bicubic undershoots beside an edge
    return total


def shares(file: InspectedFile, image: int, resolutions: Collection[tuple[int, int]] | None = None) -> list[float]:
    """Of the attention that the words of the prompt get together, how much each gets; in their order. Raises `InspectedError`.

    Each resolution counts as much as its layers; what marks, punctuation and padding get is left out.
    """
    facts = _facts(file)
    words = words_of(facts)
    sums = np.zeros(len(facts.tokens))
    for size in facts.resolutions if resolutions is None else resolutions:
        maps = token_maps(file, size)
        if not 0 <= image < len(maps):
            raise InspectedError(f"The batch has {len(maps)} pictures, and none with the number {image + 1}.")
        sums += np.nan_to_num(maps[image]).mean(axis=(1, 2), dtype=np.float64)
    each = [float(sums[list(word.tokens)].sum()) for word in words]
    total = sum(each)
    return [one / total if total > 0 else 0.0 for one in each]


class Spread(NamedTuple):
    """Where in a picture a map lies; places are from 0 to 1, from the left and from the top."""

    centre: tuple[float, float]
    """Its centre of mass above its least value."""
    peak: tuple[float, float]
    contrast: float
    """How many times the mean the peak is."""


def spread_of(values: np.ndarray[Any, Any]) -> Spread:
    """Where a map (h, w) lies."""
    height, width = values.shape
    above = np.asarray(values, np.float64) - values.min()
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    mass = above.sum()
    centre = ((above.sum(axis=0) @ columns) / mass, (above.sum(axis=1) @ rows) / mass) if mass > 0 else (0.5, 0.5)
    top, left = np.unravel_index(int(above.argmax()), above.shape)
    mean = float(values.mean())
    contrast = float(values.max()) / mean if mean > 0 else 0.0
    return Spread((float(centre[0]), float(centre[1])), (float(columns[left]), float(rows[top])), contrast)


def token_maps(file: InspectedFile, size: tuple[int, int]) -> Map:
    """The maps of all tokens at one resolution: (B, tokens, h, w). Raises `InspectedError`."""
    facts = _facts(file)
    maps: Map = file.array(f"words/{size[0]}x{size[1]}")
    if maps.ndim != 4 or maps.shape[1:] != (len(facts.tokens), *size) or not maps.size:
        raise InspectedError(f"The maps of {size[0]}x{size[1]} in {safe_text(str(file.path), limit=300)} have another shape.")
    return maps


def _facts(file: InspectedFile) -> WordFacts:
    if file.facts.words is None:
        raise InspectedError(f"{safe_text(str(file.path), limit=300)} has no maps of words.")
    return file.facts.words


def _sizes(resolutions: Collection[tuple[int, int]]) -> str:
    return ", ".join(f"{height}x{width}" for height, width in resolutions)


def _resized(values: Map, size: tuple[int, int]) -> Map:
    """A map at another height and width, bicubic."""
    if values.shape == size:
        return values
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)


# --- heat -----------------------------------------------------------------------------------------------------------


def heat(picture: Image.Image, maps: Sequence[np.ndarray[Any, Any]], strength: float = 0.6) -> Image.Image:
    """A picture with maps as heat over it, each scaled from its own least to its greatest value: RGB, of the picture's size.

    One map has the colours from black over red to yellow; two have a hue each, and are white where both are strong. With
    `strength` 0 the heat is not seen, with 1 nothing else is.
    """
    if len(maps) not in (1, 2):
        raise ValueError("heat is of one map or of two")
    base = picture.convert("RGB")
    size = (base.height, base.width)
    levels = [_level(values, size) for values in maps]
    colours = ramp(levels[0]) if len(levels) == 1 else np.stack(levels, axis=-1) @ np.array(HUES, np.float32)
    strength = min(max(strength, 0.0), 1.0)
    mixed = np.asarray(base, np.float32) * (1 - strength) + np.asarray(colours, np.float32) * strength
    return Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))


def ramp(levels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values from 0 to 1, (h, w) -> colours from black over red to yellow, (h, w, 3), from 0 to 255; what lies outside is cut."""
    places = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(levels, places, channel) for channel in np.array(_RAMP, np.float32).T], axis=-1)


def _level(values: np.ndarray[Any, Any], size: tuple[int, int]) -> Map:
    """A map from 0 to 1 at the picture's height and width; one that is the same everywhere is 0."""
    finite = np.nan_to_num(np.asarray(values, np.float32), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if not high > low:
        return np.zeros(size, np.float32)
    return np.clip(_resized((finite - low) / (high - low), size), 0, 1)


def save_png(image: Image.Image, path: Path) -> None:
    """Write a picture, all of it or nothing; one that is there is replaced. Raises `OSError`."""
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)  # as the user's umask has it
    try:
        with os.fdopen(descriptor, "wb") as file:
            image.save(file, "PNG")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
