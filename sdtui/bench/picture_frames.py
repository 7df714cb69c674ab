"""Pictures that form, the same in every run: from noise to something with edges, areas and texture, as a sampler's previews."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Kind = Literal["detailed", "latent"]
COUNT: Final = 20
DETAILED_PX: Final = (512, 510)
"""64x30 cells of 8x17 pixels."""
_LATENT_PX: Final = 64
_DARKEST: Final = 24
"""No pixel is black: what is black on the screen was not drawn."""
_OCTAVES: Final = (4, 8, 16, 32, 64, 128, 256, 512)

Pixels = npt.NDArray[np.float32]


def frames(kind: Kind, count: int = COUNT) -> list[Image.Image]:
    """`count` pictures: `detailed` as a decoder makes them, 512x510 pixels, or as large as the latents, 64x64."""
    random = np.random.default_rng(20)
    size = DETAILED_PX if kind == "detailed" else (_LATENT_PX, _LATENT_PX)
    final = _texture(random, DETAILED_PX) * 55 + _scene(DETAILED_PX)
    made = []
    for number in range(count):
        noise = 1.0 - number / max(1, count - 1)
        # What a decoder makes of noise: blots of eight pixels, with some grain.
        blots = _scaled(random.normal(size=(64, 64, 3)).astype(np.float32), DETAILED_PX)
        grain = random.normal(size=final.shape).astype(np.float32)
        mixed = final * (1 - noise) + (128 + blots * 60) * noise + grain * (2 + 4 * noise)
        picture = Image.fromarray(np.clip(mixed, _DARKEST, 255).astype(np.uint8), "RGB")
        made.append(picture if kind == "detailed" else picture.resize(size, Image.Resampling.BOX))
    return made


def _scene(size_px: tuple[int, int]) -> Pixels:
    """Sky, ground, a house and a sun: (height, width, 3)."""
    width, height = size_px
    down, across = np.mgrid[0:height, 0:width].astype(np.float32)
    sky = np.stack([90 + down * 0.2, 130 + down * 0.15, 220 - down * 0.1], axis=2)
    ground = np.stack([70 + across * 0.1, 110 - across * 0.05, np.full_like(down, 50)], axis=2)
    picture = np.where((down > height * (0.62 + 0.05 * np.sin(across / 40)))[..., None], ground, sky)
    picture[(across - width * 0.75) ** 2 + (down - height * 0.2) ** 2 < (height * 0.09) ** 2] = (250, 230, 120)
    picture[int(height * 0.45) : int(height * 0.75), int(width * 0.2) : int(width * 0.45)] = (170, 60, 50)
    picture[int(height * 0.55) : int(height * 0.65), int(width * 0.25) : int(width * 0.31)] = (240, 220, 150)
    return picture.astype(np.float32)


def _texture(random: np.random.Generator, size_px: tuple[int, int]) -> Pixels:
    """Noise whose strength falls with its fineness, as in photographs; standard deviation about 1."""
    total = np.zeros((size_px[1], size_px[0], 3), np.float32)
    for cells in _OCTAVES:
        grey = random.normal(size=(cells, cells, 1)).astype(np.float32)
        colour = random.normal(size=(cells, cells, 3)).astype(np.float32) * 0.4
        total += _scaled(grey + colour, size_px) / cells**0.45
    return total / max(float(total.std()), 1e-6)


def _scaled(values: Pixels, size_px: tuple[int, int]) -> Pixels:
    channels = [Image.fromarray(np.ascontiguousarray(values[..., index])) for index in range(3)]
    return np.stack([np.asarray(channel.resize(size_px, Image.Resampling.BICUBIC)) for channel in channels], axis=2)
