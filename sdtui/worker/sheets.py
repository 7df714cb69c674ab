"""Activations of an inspected batch: of each module that is looked at a contact sheet, a histogram and figures.

They are of the last step, and of the first call in the stages `embeddings` and `decode`; of the first picture of the batch,
where guidance doubles it of the half with the prompt. All is made small where the output lies, so that a GPU is waited for
once, when everything is taken.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import torch.nn.functional as F

from sdtui.inspected import HISTOGRAM_BINS, SHEET_CHANNELS, SHEET_PX, SheetFacts
from sdtui.worker.previews import shrink
from sdtui.worker.probe_figures import Spot, figures_of

if TYPE_CHECKING:
    import numpy as np

_log: Final = logging.getLogger(__name__)
DENOISERS: Final = frozenset({"unet", "transformer"})
_WIDE: Final = 4
"""A picture of tokens and features may be so many times as wide as it may be high, as there are ten times more features."""
_CHUNK: Final = 1 << 22
"""Values that go into a histogram at a time: float32 counts them exactly, and what lies between stays small."""


class Extent(NamedTuple):
    """What a batch is of."""

    pictures: int
    height_px: int
    width_px: int


@dataclass(frozen=True)
class _Kept:
    """One module's output, made small; the tensors lie where it does."""

    spot: Spot
    step_index: int | None
    shape: tuple[int, ...]
    channels: int
    sheet: torch.Tensor
    """(channels, h, w) uint8"""
    histogram: torch.Tensor
    """(bins,) int64"""
    figures: torch.Tensor
    """(5,) float64: mean, standard deviation, least and greatest of the finite values, and how many are not finite."""


class Sheets:
    """Keeps the activations of one batch at a time; without `begin` it keeps nothing."""

    def __init__(self) -> None:
        self.steps_done = 0
        """Of the batch; the step log counts them."""
        self.is_last = False
        """Whether the network that denoises is called for the last step."""
        self._extent: Extent | None = None
        self._closed: set[str] = set()
        """Networks whose first call has ended, of those that do not work in steps."""
        self._kept: dict[tuple[str, str], _Kept] = {}

    def begin(self, extent: Extent) -> None:
        """A batch begins, or begins anew."""
        self.forget()
        self._extent = extent

    def forget(self) -> None:
        """Let go what is kept, and keep nothing until the next `begin`."""
        self._extent, self.is_last, self.steps_done = None, False, 0
        self._closed.clear()
        self._kept.clear()

    def denoise(self, scheduler: Any) -> None:
        """The network that denoises is called: is it for the last step? Schedulers of second order call it twice in that one."""
        timesteps = getattr(scheduler, "timesteps", None)
        self.is_last = timesteps is not None and 0 < len(timesteps) <= self.steps_done + 1

    def wants(self, network: str) -> bool:
        """Whether what a network's modules give now is kept."""
        if self._extent is None:
            return False
        return self.is_last if network in DENOISERS else network not in self._closed

    def keep(self, spot: Spot, output: torch.Tensor) -> None:
        """Keep one module's output, in place of what was kept of it before."""
        if self._extent is None or not output.is_floating_point() or not output.numel():
            return
        try:
            with torch.no_grad():
                self._kept[spot.network, spot.path] = self._made_small(spot, output.detach(), self._extent)
        except RuntimeError as error:  # as when a GPU has no room left: it costs the sheet, never the job
            _log.warning("%s %s: no activations are kept: %s", spot.network, spot.path, error)

    def close(self, network: str) -> None:
        """A call of a network has ended; what another part of the batch, or the negative prompt, gives is not kept."""
        self._closed.add(network)

    def take(self) -> list[tuple[SheetFacts, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """What was kept: facts, the sheet (channels, h, w) uint8, and the histogram (bins,) int64; waits for the device."""
        kept = list(self._kept.values())
        self.forget()
        if not kept:
            return []
        sheets = _to_host([one.sheet for one in kept])
        histograms, figures = _to_host([one.histogram for one in kept]), _to_host([one.figures for one in kept])
        return [
            (_facts(one, numbers.tolist()), sheet.numpy(), histogram.numpy())
            for one, sheet, histogram, numbers in zip(kept, sheets, histograms, figures, strict=True)
        ]

    def _made_small(self, spot: Spot, output: torch.Tensor, extent: Extent) -> _Kept:
        denoises = spot.network in DENOISERS
        picture, wide = picture_of(output, extent, denoises=denoises)
        histogram, figures = (_on_host if picture.device.type == "cpu" else on_device)(picture)
        return _Kept(
            spot,
            self.steps_done if denoises else None,
            tuple(output.shape),
            len(picture),
            contact_sheet(picture[:SHEET_CHANNELS].float(), wide=wide),
            histogram,
            figures,
        )


def picture_of(output: torch.Tensor, extent: Extent, *, denoises: bool) -> tuple[torch.Tensor, bool]:
    """One picture's (channels, h, w) of a module's output, and whether it is one of tokens x features instead.

    output: (B, C, h, w), (B, N, C) or (B, C), with 2B where guidance doubles the batch; more dimensions are frames, of which
    the first one counts.
    """
    if output.ndim < 2:
        return output.reshape(1, 1, -1), True
    one = output[extent.pictures if denoises and len(output) == 2 * extent.pictures else 0]
    while one.ndim > 3:
        one = one[:, 0]
    if one.ndim == 3:
        return one, False
    grid = _grid(len(one), extent) if denoises and one.ndim == 2 else None
    if grid is not None:
        return one.T.reshape(-1, *grid), False
    return one.reshape(1, -1, one.shape[-1]), True


def _grid(tokens: int, extent: Extent) -> tuple[int, int] | None:
    """Height and width of so many tokens: those of the picture, halved and rounded up as often as networks do it."""
    height, width = extent.height_px, extent.width_px
    while height * width > tokens and height * width > 1:
        height, width = -(-height // 2), -(-width // 2)
    return (height, width) if height * width == tokens > 1 else None


def contact_sheet(picture: torch.Tensor, *, wide: bool) -> torch.Tensor:
    """(C, h, w) float32 -> (C, at most `SHEET_PX`, ...) uint8 by averaging, each channel from its own least to its greatest.

    A constant one is 0, and so is what is no number.
    """
    if wide:
        height, width = picture.shape[-2:]
        size = (min(height, SHEET_PX), min(width, _WIDE * SHEET_PX))
        picture = F.interpolate(picture[None], size=size, mode="area")[0] if size != (height, width) else picture
    else:
        picture = shrink(picture, SHEET_PX)
    finite = picture.isfinite()
    low = picture.where(finite, math.inf).amin(dim=(1, 2), keepdim=True)
    span = picture.where(finite, -math.inf).amax(dim=(1, 2), keepdim=True) - low
    scaled = ((picture - low) / span).where(finite & (span > 0), 0.0)
    return scaled.mul(255).round().to(torch.uint8)


def _on_host(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Histogram (bins,) int64 and figures (5,) float64 of what lies in the host's memory."""
    values = picture.reshape(-1)
    values = values if values.dtype == torch.float64 else values.float()
    mean, std, low, high = figures_of(values) or (math.nan,) * 4
    count = values.numel()
    if not (math.isfinite(low) and math.isfinite(high)):
        values = values[values.isfinite()]
        mean, std, low, high = figures_of(values) or (math.nan,) * 4
    histogram = torch.zeros(HISTOGRAM_BINS, dtype=torch.int64)
    if low < high and math.isfinite(high - low):
        for part in torch.split(values, _CHUNK):
            histogram += torch.histc(part, HISTOGRAM_BINS, float(low), float(high)).long()
    else:
        histogram[0] = len(values)
    return histogram, torch.tensor([mean, std, low, high, count - len(values)], dtype=torch.float64)


def on_device(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same without waiting: nothing here asks for a value."""
    values = picture.reshape(-1)
    finite = values.isfinite()
    count = finite.sum()
    low, high = values.where(finite, math.inf).amin().double(), values.where(finite, -math.inf).amax().double()
    mean = values.where(finite, 0).sum(dtype=torch.float64) / count
    spread = ((values - mean.to(values.dtype)).where(finite, 0).float().square().sum(dtype=torch.float64) / count).sqrt()
    scale = torch.where(high > low, HISTOGRAM_BINS / (high - low), 0.0)
    histogram = torch.zeros(HISTOGRAM_BINS, dtype=torch.int64, device=values.device)
    for part, numbers in zip(torch.split(values, _CHUNK), torch.split(finite, _CHUNK), strict=True):
        bins = ((part.float() - low.float()) * scale.float()).nan_to_num(0.0, 0.0, 0.0).clamp(0, HISTOGRAM_BINS - 1).long()
        histogram.scatter_add_(0, bins, numbers.long())
    return histogram, torch.stack([mean, spread, low, high, (values.numel() - count).double()])


def _to_host(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same tensors in the host's memory, by one copy from each device."""
    found: dict[int, torch.Tensor] = {}
    for device in {tensor.device for tensor in tensors}:
        group = [(index, tensor) for index, tensor in enumerate(tensors) if tensor.device == device]
        flat = torch.cat([tensor.flatten() for _, tensor in group]).cpu()
        parts = torch.split(flat, [tensor.numel() for _, tensor in group])
        found.update({index: part.view(tensor.shape) for (index, tensor), part in zip(group, parts, strict=True)})
    return [found[index] for index in range(len(tensors))]


def _facts(kept: _Kept, figures: list[float]) -> SheetFacts:
    mean, std, low, high, faults = figures
    known = math.isfinite(low) and math.isfinite(high)
    return SheetFacts(
        network=kept.spot.network,
        path=kept.spot.path,
        class_name=kept.spot.class_name,
        step_index=kept.step_index,
        shape=kept.shape,
        channels=kept.channels,
        low=low if known else None,
        high=high if known else None,
        mean=mean if known and math.isfinite(mean) else None,
        std=std if known and math.isfinite(std) else None,
        faults=int(faults),
    )
