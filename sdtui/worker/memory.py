"""How much memory the worker holds, and giving it back after an allocator refused."""

from __future__ import annotations

import functools
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdtui.protocol import Heartbeat

if TYPE_CHECKING:
    import torch

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _statm() -> int:
    """A descriptor that stays open, as every step asks: reading anew gives new figures."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def rss_bytes() -> int:
    """The memory that this process has in RAM; 0 where the system does not say."""
    try:
        return int(os.pread(_statm(), 128, 0).split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def heartbeat(device: torch.device | None) -> Heartbeat:
    """The worker's memory and, with a GPU in use, the GPU's."""
    if device is None or device.type != "cuda":
        return Heartbeat(rss_bytes=rss_bytes())
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return Heartbeat(rss_bytes=rss_bytes(), device_bytes=total - free, device_total_bytes=total)


def held_bytes(device: torch.device) -> int:
    """What the work holds now: tensors on the GPU, or the process on a CPU."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.memory_allocated(device))
    return rss_bytes()


def available_bytes(device: torch.device) -> int:
    """What could still be allocated there; 0 where nobody says."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with Path("/proc/meminfo").open("rb") as file:
            found = next(line for line in file if line.startswith(b"MemAvailable:"))
        return int(found.split()[1]) * 1024
    except (OSError, StopIteration, IndexError, ValueError):
        return 0


def reset_peak(device: torch.device) -> None:
    """Start counting the GPU's peak anew."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device, seen: int) -> int:
    """The most that was held since `reset_peak`; on a CPU the largest value `seen` between the steps."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return max(seen, rss_bytes())


def free_memory() -> None:
    """Give back what nothing refers to any more. Call it after the `except` block: a traceback keeps tensors alive."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
