"""What goes wrong in the worker, and the sentence that the user reads about it."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from typing import Final, Literal

from sdtui.text import safe_text

MAX_MESSAGE: Final = 500
"""Characters of a library's message that a person reads; all of it is in the log."""
_OUT_OF_MEMORY: Final = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "unable to find an engine",
    "bad_alloc",
)
"""What the allocators of CUDA, MPS, torch on the CPU, Linux and numpy say, and what cuBLAS and cuDNN say without memory."""
_ONEDNN: Final = re.compile(r"could not create a (primitive|memory)(?! desc)")
"""oneDNN on a CPU without memory; with `descriptor` it means that it cannot do what was asked at all."""
_DEVICE_BROKEN: Final = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "unspecified launch failure",
    "uncorrectable ecc error",
    "cuda error",
    "hip error",
    "cudnn_status_execution_failed",
    "cudnn_status_internal_error",
    "cublas_status_execution_failed",
    "cublas_status_internal_error",
)
_DEVICE_UNFIT: Final = ("no kernel image is available", "no cuda-capable device", "invalid device ordinal", "driver version")
"""CUDA errors that a new process would meet again: they end the job, not the worker."""
_SIZE: Final = r"([\d.]+)\s*([KMGTPE]i?B|bytes|B)"
_NEEDED: Final = re.compile(rf"(?:tried to allocate|unable to allocate) {_SIZE}", re.IGNORECASE)
_FREE: Final = re.compile(rf"of which {_SIZE} is free", re.IGNORECASE)
_TOTAL: Final = re.compile(rf"total capac(?:i)?ty of {_SIZE}", re.IGNORECASE)
_OWN: Final = re.compile(rf"this process has {_SIZE} memory in use", re.IGNORECASE)
"""Only where the driver tells the processes apart; in a container all of them have a number alone."""
_CACHED: Final = re.compile(rf"{_SIZE} is reserved by PyTorch but unallocated", re.IGNORECASE)
_UNITS: Final = {"b": 1, "bytes": 1} | {unit: 1 << 10 * power for power, unit in enumerate("kmgtpe", start=1)}


class JobProblem(Exception):
    """A job that cannot be done as asked; the text is for the user, `field` is the parameter to change."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ModelProblem(JobProblem):
    """A model that cannot be loaded."""

    def __init__(self, message: str, field: str = "model") -> None:
        super().__init__(message, field)


Stop = Literal["after_image", "pause", "after_step", "now"]
"""How a job is to stop, the weaker wishes first: of two, the stronger one counts."""
STOPS: Final[tuple[Stop, ...]] = ("after_image", "pause", "after_step", "now")


class Cancelled(BaseException):
    """The job stops, as was asked; not an `Exception`, so that no library's `except` swallows it."""

    def __init__(self, stop: Stop = "now") -> None:
        super().__init__(stop)
        self.stop = stop
        self.progress = Progress(started=False)


@dataclass
class Progress:
    """How far a job has come: what it keeps when it stops."""

    batch_index: int = 0
    steps_done: int = 0
    """Steps of that batch that are on its tape."""
    paths: list[str] = field(default_factory=list)
    """Pictures that are saved."""
    started: bool = True
    """Whether `JobStarted` was said; if not, nothing here is known."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is an allocator's refusal, on the GPU or the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    without_support = "cudnn_status_not_supported" in text and ("memory" in text or "workspace" in text)
    return isinstance(error, RuntimeError) and (
        without_support or _ONEDNN.search(text) is not None or any(mark in text for mark in _OUT_OF_MEMORY)
    )


def is_device_broken(error: BaseException) -> bool:
    """Whether the process can compute nothing on its GPU any more: CUDA keeps such an error until the process ends."""
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    text = str(error).lower()
    if any(mark in text for mark in _DEVICE_UNFIT):
        return False
    return type(error).__name__ == "AcceleratorError" or any(mark in text for mark in _DEVICE_BROKEN)


@dataclass(frozen=True)
class Shortage:
    """What an allocator said that it needed and had; 0 where it did not say."""

    needed_bytes: int = 0
    """The one request that was refused."""
    free_bytes: int = 0
    total_bytes: int = 0
    """Of the device."""
    own_bytes: int = 0
    """What this process has of the device, with all that the driver holds for it."""
    cached_bytes: int = 0
    """What the allocator holds in pieces that were too small."""
    text: str = field(default="", compare=False)

    @classmethod
    def of(cls, error: BaseException) -> Shortage:
        """Read from an exception's text."""
        text = str(error)
        needed, free, total, own, cached = (_bytes(pattern.search(text)) for pattern in (_NEEDED, _FREE, _TOTAL, _OWN, _CACHED))
        return cls(needed, free, total, own, cached, text)

    @property
    def others_bytes(self) -> int:
        """What other processes have of the device; 0 where the text does not tell them apart."""
        return max(0, self.total_bytes - self.free_bytes - self.own_bytes) if self.total_bytes and self.own_bytes else 0


def _bytes(found: re.Match[str] | None) -> int:
    if found is None:
        return 0
    unit = found[2].lower()
    try:
        return int(float(found[1]) * (_UNITS.get(unit) or _UNITS[unit[0]]))
    except ValueError:
        return 0


def one_line(error: BaseException) -> str:
    """An exception as one safe sentence, with its class where the text alone says little."""
    text = safe_text(str(error), limit=MAX_MESSAGE).strip()
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def traceback_text(error: BaseException) -> str:
    """The traceback for the log and `--debug`, safe to show."""
    return safe_text("".join(traceback.format_exception(error)), multiline=True)
