"""The figures of one module's call: what its output is, and its mean, spread and extremes, at once or from the device later."""

from __future__ import annotations

import itertools
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
_ROW: Final = 8192
"""A product of more than 10,000 numbers wakes OpenBLAS's own threads, and they spin."""


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
    """None where there are no floats, or only numbers whose statistics were not asked for. On a GPU scalars there until `fetch`
    and `settle`: all of `Figures`, or the last two.
    """
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
    return looked_at(tensor, all_figures=True)


def looked_at(tensor: torch.Tensor, *, all_figures: bool) -> Figures | tuple[torch.Tensor, ...] | None:
    """Its figures; without `all_figures` one pass sees whether it holds a NaN or an infinity, and None says that it does not."""
    if not tensor.is_floating_point() or not tensor.numel():
        return None
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.device.type != "cpu":
        std_mean = torch.std_mean(tensor, correction=0) if all_figures else ()
        return *reversed(std_mean), *torch.aminmax(tensor)
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()  # sums of half precision overflow
    values = tensor.numpy().ravel("K")  # as it lies in memory, so that nothing is copied
    square = _square(values)
    return _host_figures(values, square) if all_figures or not math.isfinite(square) else None


def is_sound(output: Any) -> bool:
    """Whether this is a float32 tensor in the host's memory that holds numbers only; False asks for a closer look."""
    if type(output) is not torch.Tensor or output.dtype is not torch.float32 or output.requires_grad or output.is_cuda:
        return False
    return math.isfinite(_square(output.numpy().ravel("K")))


def _square(values: np.ndarray[Any, Any]) -> float:
    """The sum of squares, which is finite where all values are, and the fastest to be had in this thread."""
    count = values.size
    if count <= _ROW:
        return float(np.dot(values, values))
    over = count % _ROW
    if over:
        rest, values = values[-over:], values[:-over]
    rows = values.reshape(-1, _ROW)
    square: float = sum(_row_products(rows, rows).tolist())
    return square + float(np.dot(rest, rest)) if over else square


def _summed_products(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    products: np.ndarray[Any, Any] = np.einsum("ij,ij->i", one, other)
    return products


_row_products: Final[Any] = getattr(np, "vecdot", _summed_products)
"""numpy 1 has no `vecdot`."""


def _host_figures(values: np.ndarray[Any, Any], square: float) -> Figures:
    """By numpy, in this thread: `torch.std_mean` takes ten times as long, and to wake threads for so little costs more."""
    count = len(values)
    low, high = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
    mean, square = float(np.einsum("i->", values)) / count, square / count
    variance = square - mean * mean
    if variance < _CANCELS * square:
        variance = float(values.var(dtype=np.float64))
    return mean, math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan, low, high


Fetched = list[tuple[list[Call], torch.Tensor]]
"""Calls, and all their figures on the way to the host, one after the other."""


def fetch(calls: Sequence[Call]) -> Fetched:
    """Send the figures that lie on GPUs to the host, one copy for each device and dtype, without waiting."""
    groups: defaultdict[tuple[torch.device, torch.dtype], list[Call]] = defaultdict(list)
    for call in calls:
        if call.figures is not None and isinstance(call.figures[0], torch.Tensor):
            groups[call.figures[0].device, call.figures[0].dtype].append(call)
    fetched: Fetched = []
    for (device, _), group in groups.items():
        stacked = torch.stack([torch.as_tensor(value) for call in group for value in call.figures or ()]).float()
        host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=device.type == "cuda")
        fetched.append((group, host.copy_(stacked, non_blocking=True)))
    return fetched


def settle(fetched: Fetched) -> None:
    """Put the figures that have arrived into their calls."""
    for group, figures in fetched:
        numbers = iter(figures.tolist())
        for call in group:
            *centre, low, high = itertools.islice(numbers, len(call.figures or ()))
            if centre:
                call.figures = (*centre, low, high)
            else:
                call.figures = None if math.isfinite(low) and math.isfinite(high) else (math.nan, math.nan, low, high)


def summed_up(calls: Sequence[Call]) -> ModuleRun:
    """The settled calls of one module as one line."""
    first = calls[0]
    spot, (shape, dtype, output_bytes) = first.spot, first.tensor or ((), None, 0)
    if len(calls) == 1:
        fault, elapsed_s, memory_bytes = first.fault, first.elapsed_s, first.memory_bytes
    else:
        faults = [call.fault for call in calls]
        fault = "nan" if "nan" in faults else "inf" if "inf" in faults else ""
        elapsed_s, memory_bytes = sum(call.elapsed_s for call in calls), max(call.memory_bytes for call in calls)
    mean, std, absmax = (None, None, None) if fault else _pooled(calls)
    return ModuleRun(
        path=spot.path,
        class_name=spot.class_name,
        shape=tuple(shape),
        dtype=dtype_name(dtype) if dtype is not None else "",
        mean=mean,
        std=std,
        absmax=absmax,
        fault=fault,
        elapsed_s=elapsed_s,
        output_bytes=output_bytes,
        memory_bytes=memory_bytes,
        calls=len(calls),
    )


def _pooled(calls: Sequence[Call]) -> tuple[float | None, float | None, float | None]:
    """Mean, standard deviation and largest magnitude of all elements of all calls; None where those of one are not known."""
    if len(calls) == 1:
        if calls[0].figures is None:
            return None, None, None
        mean, std, low, high = calls[0].figures
        return _number(mean), _number(std), _number(max(-low, high))
    parts: list[tuple[int, Any]] = [(math.prod(call.tensor[0]) if call.tensor else 0, call.figures) for call in calls]
    if any(figures is None for _, figures in parts):
        return None, None, None
    count = sum(size for size, _ in parts)
    mean = sum(size * figures[0] for size, figures in parts) / count
    variance = sum(size * (figures[1] ** 2 + (figures[0] - mean) ** 2) for size, figures in parts) / count
    absmax = max(max(-figures[2], figures[3]) for _, figures in parts)
    return _number(mean), _number(math.sqrt(variance) if variance >= 0 else math.nan), _number(absmax)


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
