"""One tensor's figures, read from its file in pieces: however large it is, a few megabytes of it are in memory at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from sdtui.anatomy.structs import Anatomy, Component, Weight
from sdtui.checkpoint import CheckpointError, safetensors_header
from sdtui.protocol import MeasureWeight, WeightMeasured
from sdtui.text import safe_text
from sdtui.worker.inspector.opened import component_of
from sdtui.worker.inspector.problem import InspectionProblem

BINS: Final = 64
_PIECE: Final = 1 << 20
"""Numbers in memory at once; 8 MiB as float64."""
_LARGEST_MATRIX: Final = 1 << 24
_LONGEST_SIDE: Final = 2_048
"""Of the shorter side of a matrix whose singular values are computed: a few seconds on one core."""
_DOWN: Final = 2.0**-100
"""By a power of two no digit is lost, and sums of the largest doubles do not overflow."""
_DTYPES: Final = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


class Place(NamedTuple):
    """Where a tensor lies in its file."""

    path: Path
    dtype: torch.dtype
    begin: int
    numbers: int

    def pieces(self) -> Iterator[torch.Tensor]:
        """Its numbers in order, as float64, a piece at a time. Raises `InspectionProblem` where the file ends early."""
        size = torch.empty((), dtype=self.dtype).element_size()
        with self.path.open("rb") as file:
            file.seek(self.begin)
            left = self.numbers
            while left:
                count = min(left, _PIECE)
                data = bytearray(file.read(count * size))
                if len(data) < count * size:
                    raise InspectionProblem(f"{safe_text(str(self.path), limit=300)} ended while it was read.")
                yield torch.frombuffer(data, dtype=self.dtype).to(torch.float64)
                left -= count


def measure(anatomy: Anatomy, request: MeasureWeight) -> WeightMeasured:
    """The figures of the tensor that a request names. Raises `InspectionProblem`."""
    component = component_of(anatomy, request.component)
    weight = _find(component, request.key)
    path = Path(component.files[weight.file])
    try:
        place, shape, dtype = locate_tensor(path, request.key)
        first = _first_pass(place)
        second = _second_pass(place, first)
        values, note = _singular_values(place, shape, first) if request.singular_values else (None, "")
    except OSError as error:
        raise InspectionProblem(f"{safe_text(str(path), limit=300)} cannot be read: {error.strerror}.") from error
    except CheckpointError as error:
        raise InspectionProblem(str(error)) from error
    return WeightMeasured(
        request=request.request,
        component=request.component,
        key=request.key,
        file=str(path),
        shape=shape,
        dtype=dtype,
        count=place.numbers,
        minimum=_finite(first.minimum),
        maximum=_finite(first.maximum),
        mean=_finite(second.mean),
        std=_finite(second.std),
        norm=_finite(second.norm),
        zeros=first.zeros / place.numbers if place.numbers else 0.0,
        nans=first.nans,
        infinities=first.infinities,
        histogram=second.histogram,
        singular_values=values,
        note=note,
    )


def _find(component: Component, key: str) -> Weight:
    for module in component.modules:
        for weight in module.weights:
            if weight.key == key:
                return weight
    raise InspectionProblem(f"The {safe_text(component.name, limit=60)} has no tensor {safe_text(key, limit=80)!r}.")


def locate_tensor(path: Path, key: str) -> tuple[Place, tuple[int, ...], str]:
    """Where a tensor lies, its shape, and its dtype by the file. Raises `InspectionProblem`, `CheckpointError`, `OSError`."""
    found: Any = safetensors_header(path).get(key)
    if not isinstance(found, dict):
        raise InspectionProblem(f"{safe_text(str(path), limit=300)} has no tensor {safe_text(key, limit=80)!r} any more.")
    dtype = _DTYPES.get(found["dtype"])
    if dtype is None:
        raise InspectionProblem(f"Numbers of the dtype {safe_text(found['dtype'], limit=20)!r} are not read here.")
    shape = tuple(found["shape"])
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
    return Place(path, dtype, 8 + header_bytes + found["data_offsets"][0], math.prod(shape)), shape, found["dtype"]


class _First(NamedTuple):
    """What one reading tells."""

    minimum: float = math.inf
    maximum: float = -math.inf
    total: float = 0.0
    """Times `_DOWN`."""
    largest: float = 0.0
    """Of the absolute values; by it sums of squares are kept from overflowing."""
    finite: int = 0
    zeros: int = 0
    nans: int = 0
    infinities: int = 0


def _first_pass(place: Place) -> _First:
    found = _First()
    for piece in place.pieces():
        nans, infinities = int(piece.isnan().sum()), int(piece.isinf().sum())
        kept = piece[piece.isfinite()] if nans or infinities else piece
        low = min(found.minimum, float(kept.min())) if len(kept) else found.minimum
        high = max(found.maximum, float(kept.max())) if len(kept) else found.maximum
        found = _First(
            minimum=low,
            maximum=high,
            total=found.total + float((kept * _DOWN).sum()),
            largest=max(abs(low), abs(high)) if low <= high else 0.0,
            finite=found.finite + len(kept),
            zeros=found.zeros + int((kept == 0).sum()),
            nans=found.nans + nans,
            infinities=found.infinities + infinities,
        )
    return found


class _Second(NamedTuple):
    """What a second reading tells, when the mean and the range are known."""

    mean: float
    std: float
    norm: float
    histogram: tuple[int, ...]


def _second_pass(place: Place, first: _First) -> _Second:
    """Mean, population standard deviation, norm, and counts in bins."""
    if not first.finite:
        return _Second(math.nan, math.nan, math.nan, (0,) * BINS)
    scale = first.largest or 1.0  # a double's square overflows from 1e154 on
    mean = first.total / first.finite / _DOWN
    deviation = squares = 0.0
    counts = torch.zeros(BINS, dtype=torch.float64)
    low, high = first.minimum / scale, first.maximum / scale
    for piece in place.pieces():
        kept = piece[piece.isfinite()] / scale
        deviation += float((kept - mean / scale).square().sum())
        squares += float(kept.square().sum())
        if low < high:
            counts += torch.histc(kept.clamp(low, high), BINS, low, high)
        else:
            counts[0] += len(kept)
    histogram = tuple(int(count) for count in counts)
    return _Second(mean, math.sqrt(deviation / first.finite) * scale, math.sqrt(squares) * scale, histogram)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _singular_values(place: Place, shape: tuple[int, ...], first: _First) -> tuple[tuple[float, ...] | None, str]:
    """Those of the matrix with a row for each output, or why there are none."""
    if len(shape) < 2 or not place.numbers:
        return None, "It is no matrix, and has no singular values."
    if first.nans or first.infinities:
        return None, "Of a matrix with NaN or infinities there are no singular values."
    rows = shape[0]
    if place.numbers > _LARGEST_MATRIX or min(rows, place.numbers // rows) > _LONGEST_SIDE:
        return None, f"It is too large: singular values are computed up to {_LARGEST_MATRIX:,} numbers, {_LONGEST_SIDE:,} wide."
    matrix = torch.cat(list(place.pieces())).reshape(rows, -1)
    return tuple(torch.linalg.svdvals(matrix).tolist()), ""
