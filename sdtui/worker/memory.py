"""How much memory the worker holds, and giving it back after an allocator refused."""

from __future__ import annotations

import functools
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sdtui.protocol import Heartbeat

if TYPE_CHECKING:
    import torch

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_CONTEXT_BYTES: Final = 1 << 29
"""What CUDA itself takes of a GPU for a process: 0.3 to 0.5 GB."""
_CGROUPS: Final = Path("/sys/fs/cgroup")
_GROUP_V2: Final = ("memory.max", "memory.current", "inactive_file")
_GROUP_V1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_NO_LIMIT: Final = 1 << 60
"""Version 1 says a number near 2^63 where there is no limit."""


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


def total_bytes(device: torch.device) -> int:
    """The memory that the device has, or on a CPU what of it this process may use; 0 where nobody says."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[1])
    import psutil

    limits = (limit for limit, _ in (_address_space(), _cgroup()) if limit)
    return min((int(psutil.virtual_memory().total), *limits))


def available_bytes(device: torch.device) -> int:
    """What could still be allocated there, within the limits that this process was given; 0 where nobody says."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    left = (max(0, limit - used) for limit, used in (_address_space(), _cgroup()) if limit)
    return min((int(psutil.virtual_memory().available), *left))


def others_bytes(device: torch.device) -> int:
    """What other programs hold there, about; 0 where nobody says, or where they do not matter, under a limit of our own."""
    if device.type == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info(device)
        return max(0, total - free - torch.cuda.memory_reserved(device) - _CONTEXT_BYTES)
    import psutil

    there = psutil.virtual_memory()
    limited = available_bytes(device) < there.available
    return 0 if limited else max(0, int(there.total - there.available) - rss_bytes())


def _address_space() -> tuple[int, int]:
    """The limit of `ulimit -v` and what is used of it; 0 where there is none."""
    import psutil

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return (0, 0) if limit == resource.RLIM_INFINITY else (limit, psutil.Process().memory_info().vms)


def _cgroup() -> tuple[int, int]:
    """The limit of a container or a service, and what is used of it; 0 where there is none.

    Files that are only cached give way and do not count.
    """
    found = [_read_group(*names) for names in _group_files()]
    return min((pair for pair in found if pair[0]), key=lambda pair: pair[0] - pair[1], default=(0, 0))


def _group_files() -> Iterator[tuple[Path, str, str, str]]:
    """For each memory group that this process is in, of version 2 or 1: its folder, and the files that say the figures.

    The groups above limit as well; in a container, which sees its own group as the root, the path leads nowhere.
    """
    with suppress(OSError, ValueError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, inside = line.split(":", 2)
            version_2 = not controllers
            if not version_2 and "memory" not in controllers.split(","):
                continue
            root = _CGROUPS if version_2 else _CGROUPS / "memory"
            names = _GROUP_V2 if version_2 else _GROUP_V1
            folder = root / inside.lstrip("/")
            for group in (folder, *folder.parents):
                if group.is_relative_to(root):
                    yield (group, *names)


def _read_group(folder: Path, limit: str, used: str, cached: str) -> tuple[int, int]:
    try:
        most = int((folder / limit).read_text())
        now = int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return (most, now - int(stat.get(cached, 0))) if most < _NO_LIMIT else (0, 0)
    except (OSError, ValueError):  # no such file, or `max`
        return 0, 0


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
