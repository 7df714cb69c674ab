"""The figures of one module's call: what its output is, and its mean, spread and extremes, at once or from the device later."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch

from sdtui.protocol import ModuleRun
from sdtui.worker.hardware import dtype_name

Figures = tuple[float, float, float, float]
"""Mean, standard deviation, smallest, largest."""
_CANCELS: Final = 1e-2
"""E[x^2] - mean^2 has few digits left when it is this much smaller than E[x^2]; then the slower way is taken."""
_ONE_THREAD: Final = 10_000
"""Above this OpenBLAS wakes its own threads for a product, and they spin."""


@dataclass(frozen=True)
class Spot:
    """A module that is looked at, and where it stands."""

    network: str
    path: str
    class_name: str
    is_block: bool


@dataclass(slots=True)
class Call:
    """One call of a module, or what a network was given."""

    spot: Spot
    order: int
    """Counts up as modules begin; an inner one begins after its outer one, and ends before it."""
    tensor: tuple[tuple[int, ...], torch.dtype, int] | None
    """Shape, dtype and bytes of the first tensor that came out."""
    figures: Figures | tuple[torch.Tensor, ...] | None
    """On a GPU scalars there, in the order of `Figures`, until `fetch` and `settle`."""
    span: float | tuple[Any, Any]
    """Seconds, or the CUDA events around it."""
    memory_bytes: int = 0
    given: bool = False
    """What the network was given, not what a module gave."""

    @property
    def elapsed_s(self) -> float:
        """The time it took; on a GPU its events must have been reached."""
        if isinstance(self.span, float):
            return self.span
        began, ended = self.span
        return float(began.elapsed_time(ended)) / 1000

    @property
    def fault(self) -> Literal["", "nan", "inf"]:
        """What is no number in it."""
        if self.figures is None:
            return ""
        low, high = float(self.figures[2]), float(self.figures[3])
        if math.isnan(low) or math.isnan(high):
            return "nan"
        return "inf" if math.isinf(low) or math.isinf(high) else ""


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first tensor of what a module gave: itself, or in a tuple, a list or one of the libraries' output classes."""
    if isinstance(output, torch.Tensor):
        return output
    values: Iterable[Any] = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return next((value for value in values if isinstance(value, torch.Tensor)), None)


def figures_of(tensor: torch.Tensor) -> Figures | tuple[torch.Tensor, ...] | None:
    """A tensor's figures: numbers, or on a GPU scalars that nobody has waited for; None where it has no floats."""
    if not tensor.is_floating_point() or not tensor.numel():
        return None
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        std, mean = torch.std_mean(tensor, correction=0)
        low, high = torch.aminmax(tensor)
        return mean, std, low, high
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()  # sums of half precision overflow
    return _host_figures(tensor)


def _host_figures(tensor: torch.Tensor) -> Figures:
    """By numpy, in this thread: `torch.std_mean` takes ten times as long, and to wake threads for so little costs more."""
    values = tensor.numpy().reshape(-1)
    count = values.size
    low, high = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
    mean = float(np.einsum("i->", values)) / count
    square = float(np.dot(values, values) if count <= _ONE_THREAD else np.einsum("i,i->", values, values)) / count
    variance = square - mean * mean
    if variance < _CANCELS * square:
        variance = float(values.var(dtype=np.float64))
    return mean, math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan, low, high


Fetched = list[tuple[list[Call], torch.Tensor]]
"""Calls, and their figures on the way to the host: (calls, 4)."""


def fetch(calls: Sequence[Call]) -> Fetched:
    """Send the figures that lie on GPUs to the host, one copy for each device and dtype, without waiting."""
    groups: defaultdict[tuple[torch.device, torch.dtype], list[Call]] = defaultdict(list)
    for call in calls:
        if call.figures is not None and isinstance(call.figures[0], torch.Tensor):
            groups[call.figures[0].device, call.figures[0].dtype].append(call)
    fetched: Fetched = []
    for (device, _), group in groups.items():
        stacked = torch.stack([torch.as_tensor(value) for call in group for value in call.figures or ()]).float().view(-1, 4)
        host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=device.type == "cuda")
        fetched.append((group, host.copy_(stacked, non_blocking=True)))
    return fetched


def settle(fetched: Fetched) -> None:
    """Put the figures that have arrived into their calls."""
    for group, figures in fetched:
        for call, (mean, std, low, high) in zip(group, figures.tolist(), strict=True):
            call.figures = (mean, std, low, high)


def summed_up(calls: Sequence[Call]) -> ModuleRun:
    """The settled calls of one module as one line."""
    first = calls[0]
    shape, dtype, output_bytes = first.tensor or ((), None, 0)
    faults = [call.fault for call in calls]
    mean, std, absmax = (None, None, None) if any(faults) else _pooled(calls)
    return ModuleRun(
        path=first.spot.path,
        class_name=first.spot.class_name,
        shape=tuple(shape),
        dtype=dtype_name(dtype) if dtype is not None else "",
        mean=mean,
        std=std,
        absmax=absmax,
        fault="nan" if "nan" in faults else "inf" if "inf" in faults else "",
        elapsed_s=sum(call.elapsed_s for call in calls),
        output_bytes=output_bytes,
        memory_bytes=max(call.memory_bytes for call in calls),
        calls=len(calls),
    )


def _pooled(calls: Sequence[Call]) -> tuple[float | None, float | None, float | None]:
    """Mean, standard deviation and largest magnitude of all elements of all calls."""
    if len(calls) == 1:
        mean, std, low, high = (float(value) for value in calls[0].figures or (math.nan,) * 4)
        return _number(mean), _number(std), _number(max(-low, high))
    parts: list[tuple[int, Any]] = [
        (math.prod(call.tensor[0]), call.figures) for call in calls if call.figures is not None and call.tensor is not None
    ]
    if not parts:
        return None, None, None
    count = sum(size for size, _ in parts)
    mean = sum(size * figures[0] for size, figures in parts) / count
    variance = sum(size * (figures[1] ** 2 + (figures[0] - mean) ** 2) for size, figures in parts) / count
    absmax = max(max(-figures[2], figures[3]) for _, figures in parts)
    return _number(mean), _number(math.sqrt(variance) if variance >= 0 else math.nan), _number(absmax)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
