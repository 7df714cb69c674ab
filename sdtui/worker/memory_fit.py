"""Whether a job fits into a device's memory, and which parameters make it fit: a judgement from figures alone, without torch.

The weights shrink with the bytes of a number. So do the activations, and besides they grow with the pixels and the pictures,
and the denoiser's twice with guidance, which asks it about two prompts. Attention's scores, where a device writes them down,
grow with the square of the pixels. What was refused corrects the estimate: so much at least was needed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

ITEM_BYTES: Final[Mapping[str, int]] = {"float32": 4, "float16": 2, "bfloat16": 2}
WEIGHTS_SPARE: Final = 0.02
"""What an allocator rounds up."""
SPARE: Final = 0.2
"""What activations may take more than is thought, from one run to the next: pieces too small to use, another kernel."""
_KERNELS: Final = 1.25
"""What a stage takes for each byte of its activations, with its kernels' workspaces. Stable Diffusion 1.4 at 512x512, resident
memory on a CPU with torch 2.13: 1.0 in the U-Net, in the VAE's decoder 1.25 (float32) and 1.6 (bfloat16); on a GPU 1.2, by the
peak of 2.6 GB that is published for float16."""
STAGES: Final = ("embeddings", "denoise", "decode")
"""Those that take memory worth counting; every other one is taken for the second."""
_STEP_PX: Final = 64
"""As the form goes; pictures below eight of these go by what the model can take."""
_LEAST_PX: Final = 64

Way = Literal["whole", "model_offload", "sequential_offload"]
"""What of the model is on the device while it works: all of it, the part that works, or a layer."""


@dataclass(frozen=True)
class Work:
    """The parameters of a job that decide how much memory it takes."""

    width_px: int
    height_px: int
    batch_size: int
    guided: bool
    dtype: str
    multiple_px: int = 8
    """Width and height must be multiples of it."""

    @property
    def pixels(self) -> int:
        """Of one picture."""
        return self.width_px * self.height_px


@dataclass(frozen=True)
class Need:
    """What a job is estimated to take, by stages; empty where nobody could estimate it."""

    weights: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Bytes of the networks that work in a stage."""
    peaks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """The most bytes of activations that live at once, for the whole batch, decoded in one piece."""
    tile_px: int = 0
    """The side of a tile, where the VAE can decode in tiles."""

    @property
    def weight_bytes(self) -> int:
        """Of all networks."""
        return sum(self.weights.values())


@dataclass(frozen=True)
class Place:
    """The memory of a device; 0 where nobody says."""

    device: str
    """`cpu` or `cuda:0`."""
    name: str = ""
    total_bytes: int = 0
    room_bytes: int = 0
    """What the model and its work may have: all that other programs and the driver leave."""
    others_bytes: int = 0
    """What other programs hold."""
    half_dtype: str = ""
    """The dtype of two bytes that it computes in; empty where there is none."""
    offloads: bool = False
    """Whether parts of the model can be kept off it."""
    ram_bytes: int = 0
    """What is free beside a GPU."""

    @property
    def is_cpu(self) -> bool:
        """Whether its memory is the computer's."""
        return self.device == "cpu"


@dataclass(frozen=True)
class Refusal:
    """How memory ran out."""

    stage: str = ""
    """`load` where the model itself did not fit."""
    needed_bytes: int = 0
    """The request that was refused; 0 where the allocator does not say."""
    free_bytes: int = 0
    """What was free at that moment, by the allocator."""
    cached_bytes: int = 0
    """What the allocator held besides, in pieces that were too small."""
    scores_bytes: int = 0
    """What attention's scores took, where it was they that were refused."""
    pictures: int = 1
    """How many were made at a time."""
    remedies: tuple[str, ...] = ()
    """What was in force."""


@dataclass(frozen=True)
class Switch:
    """Parameters with which a job fits, and what it takes then."""

    to: Work
    way: Way
    need_bytes: int


class Fit:
    """The judgement on one job that met a refusal."""

    def __init__(self, place: Place, work: Work, need: Need, refusal: Refusal, *, remedied: bool = True) -> None:
        """`remedied`: the worker decodes in slices and tiles, and keeps parts of the model off the device, where that helps."""
        self.place, self.need, self.refusal = place, need, refusal
        self.work = dataclasses.replace(work, batch_size=refusal.pictures)
        """As it was refused."""
        self._remedied = remedied
        self.ways: tuple[Way, ...] = (
            ("whole", "model_offload", "sequential_offload") if remedied and place.offloads else ("whole",)
        )
        offloads = [way for way in self.ways if way in refusal.remedies]
        self.way: Way = offloads[-1] if offloads else "whole"
        """How it was refused."""
        self._stage = refusal.stage if refusal.stage in STAGES else "denoise"
        self._loading = refusal.stage == "load"
        self._weights_more = self._unexpected_weights()
        self._a_unit = {stage: peak * _KERNELS / self._size(stage, work, whole=True) for stage, peak in need.peaks.items()}
        estimated = self._a_unit.get(self._stage, 0.0)
        if not self._loading:
            self._a_unit[self._stage] = max(estimated, self._measured() / self._size(self._stage, self.work, whole=False))
        taken = self._weights(self.way, self._stage, self.work) + self._activations(self._stage, self.work)
        self.measured = self._a_unit.get(self._stage, 0.0) > estimated and self.need_bytes(self.work, self.way) <= round(taken)
        """Whether what is needed as it was refused is a lower bound, and no estimate."""

    # --- what was refused ---------------------------------------------------------------------------------------------

    def _unexpected_weights(self) -> float:
        """By how much the weights take more than they should, where they were refused although they should fit."""
        known = self.need.weight_bytes
        return max(1.0, self.place.room_bytes / known) if self._loading and known else 1.0

    def _measured(self) -> float:
        """Bytes that the refused stage's activations need at least: what was in use and what was asked for."""
        refusal = self.refusal
        room = max(0, self.place.room_bytes - self._weights(self.way, self._stage, self.work))
        more = refusal.needed_bytes - refusal.free_bytes - refusal.cached_bytes if refusal.free_bytes else 0
        return max(room + more, refusal.needed_bytes)

    @property
    def in_pieces(self) -> bool:
        """Whether there was room enough, but none in one piece."""
        return self.refusal.cached_bytes > 0 and self.need_bytes(self.work, self.way) <= self.place.room_bytes

    # --- what is needed -----------------------------------------------------------------------------------------------

    def weights(self, dtype: str) -> int:
        """Bytes of all weights in a dtype, as estimated."""
        return self.need.weight_bytes * ITEM_BYTES[dtype] // ITEM_BYTES[self.work.dtype]

    def need_bytes(self, to: Work, way: Way = "whole", *, spare: bool = False) -> int:
        """What a job takes: the weights on the device and the most activations of any stage; with what it may take besides."""
        more_weights, more = (WEIGHTS_SPARE, SPARE) if spare else (0.0, 0.0)
        stages = dict.fromkeys([*self.need.weights, *self._a_unit])
        taken = ((self._weights(way, stage, to), self._activations(stage, to)) for stage in stages)
        return round(max((weights * (1 + more_weights) + active * (1 + more) for weights, active in taken), default=0))

    def _weights(self, way: Way, stage: str, to: Work) -> float:
        there = {"whole": self.need.weight_bytes, "model_offload": self.need.weights.get(stage, 0), "sequential_offload": 0}[way]
        return there * self._weights_more * ITEM_BYTES[to.dtype] / ITEM_BYTES[self.work.dtype]

    def _activations(self, stage: str, to: Work) -> float:
        size = self._size(stage, to, whole=False)
        taken = self._a_unit.get(stage, 0.0) * size
        if stage != self._stage or not self.refusal.scores_bytes:
            return taken
        scores = self.refusal.scores_bytes * size / self._size(stage, self.work, whole=False)
        return max(0.0, taken - scores) + scores * to.pixels / self.work.pixels

    def _size(self, stage: str, of: Work, *, whole: bool) -> float:
        """What a stage's activations are proportional to; `whole`: without slices and tiles."""
        numbers = ITEM_BYTES[of.dtype]
        if stage == "embeddings":
            return numbers * (2 if of.guided else 1)
        if stage == "denoise":
            return of.pixels * of.batch_size * numbers * (2 if of.guided else 1)
        tile = self.need.tile_px
        in_tiles = not whole and self._decodes_in("vae_tiling") and tile > 0
        in_slices = not whole and self._decodes_in("vae_slicing")
        pixels = min(of.width_px, tile) * min(of.height_px, tile) if in_tiles else of.pixels
        return pixels * (1 if in_slices else of.batch_size) * numbers

    def _decodes_in(self, remedy: str) -> bool:
        """Whether a decode goes in slices or tiles: where that was in force, or where it comes by itself."""
        return remedy in self.refusal.remedies or (self._remedied and self._stage != "decode")

    def fits(self, to: Work, way: Way = "whole", *, more_bytes: int = 0) -> bool:
        """Whether a job fits, with something to spare, where so much more were free; a model is loaded whole."""
        most = self.need_bytes(to, way, spare=True)
        if self._loading:
            most = max(most, round(self._weights("whole", self._stage, to) * (1 + WEIGHTS_SPARE)))
        return most <= self.place.room_bytes + more_bytes

    # --- what makes it fit --------------------------------------------------------------------------------------------

    def switches(self) -> list[Switch]:
        """Up to two ways to make it fit, the one that costs least first; empty where there is none."""
        singles = [tuple(candidates) for candidates in self._single()]
        for way in self.ways:
            found = [switch for candidates in singles if (switch := self._first(candidates, way))]
            if found:
                return found[:2]
        for candidates in map(tuple, self._combined()):
            found = [switch for way in self.ways if (switch := self._first(candidates, way))]
            if found:
                return found[:1]
        return []

    def least(self) -> Switch:
        """The parameters that need least, whether or not they fit."""
        width, height = [(self.work.width_px, self.work.height_px), *_sizes(self.work, _LEAST_PX)][-1]
        to = dataclasses.replace(self._small(), width_px=width, height_px=height, guided=False)
        return Switch(to, self.ways[-1], self.need_bytes(to, self.ways[-1]))

    def _small(self) -> Work:
        """One picture at a time, in two bytes a number where the device can."""
        return dataclasses.replace(self.work, batch_size=1, dtype=self._half or self.work.dtype)

    @property
    def _half(self) -> str:
        return self.place.half_dtype if ITEM_BYTES[self.work.dtype] > 2 else ""

    def _first(self, candidates: Iterable[Work], way: Way) -> Switch | None:
        return next((Switch(to, way, self.need_bytes(to, way)) for to in candidates if self.fits(to, way)), None)

    def _single(self) -> list[Iterable[Work]]:
        """Changes of one kind, in the order of what they cost the picture."""
        work, half = self.work, self._half
        return [
            () if self._loading else (dataclasses.replace(work, batch_size=size) for size in range(work.batch_size - 1, 0, -1)),
            (dataclasses.replace(work, dtype=half),) if half else (),
            () if self._loading else self._shrunk(work, halved=True),
            (dataclasses.replace(work, guided=False),) if work.guided and not self._loading else (),
        ]

    def _combined(self) -> Iterator[Iterable[Work]]:
        """Several changes at once, the mildest first."""
        small = self._small()
        if self._loading and not self._half:
            return
        unguided = dataclasses.replace(small, guided=False)
        yield (small,)
        yield self._shrunk(small, halved=True)
        yield itertools.chain((unguided,), self._shrunk(unguided, halved=True))
        yield itertools.chain(self._shrunk(small), self._shrunk(unguided))

    def _shrunk(self, work: Work, *, halved: bool = False) -> Iterator[Work]:
        """The same with smaller pictures of the same proportions, the largest first; `halved`: down to half of each side."""
        least = max(_LEAST_PX, min(work.width_px, work.height_px) // 2 if halved else 0)
        for width, height in _sizes(work, least):
            yield dataclasses.replace(work, width_px=width, height_px=height)


def _sizes(work: Work, least_px: int) -> Iterator[tuple[int, int]]:
    """Width and height in pixels, smaller and smaller, the shorter side not below `least_px`."""
    short, long = sorted((work.width_px, work.height_px))
    step = math.lcm(work.multiple_px, _STEP_PX) if short >= 8 * _STEP_PX else work.multiple_px
    for longer in range((long - 1) // step * step, 0, -step):
        shorter = longer * short // long // step * step
        if shorter < least_px:
            return
        yield (shorter, longer) if work.width_px <= work.height_px else (longer, shorter)
