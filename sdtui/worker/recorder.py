"""Writing tapes and trajectories beside the work: the loop hands over copies, a thread makes bytes of them and writes them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from safetensors.torch import save

from sdtui.tape import TapeError

SYNC_S: Final = 2.0
"""What a power cut may cost at most; a crash of the process costs nothing that was written."""
_FLUSH_S: Final = 10.0
"""How long a disk that hangs may hold up the end of a batch."""
_MAX_WAITING: Final = 256
"""Calls that may wait for the disk; one that is so far behind is not worth its memory."""
_log: Final = logging.getLogger(__name__)


class Growing(Protocol):
    """A file that only grows: a tape or a trajectory."""

    def append(self, payload: bytes) -> None:
        """Add a record. Raises `OSError`."""
        ...

    def sync(self) -> None:
        """Make what was appended durable. Raises `OSError`."""
        ...


@dataclass
class Spoken:
    """One answer of the network, or what a step made, on its way to the file."""

    tensors: dict[str, torch.Tensor]
    """In the host's memory, and nobody else's."""
    timestep: torch.Tensor | float
    facts: dict[str, str]
    ready: Any
    """The CUDA event after which the copies are there; None when they are."""


class Recorder:
    """Appends to one file from a thread of its own. A disk that fails ends the recording, never the job."""

    def __init__(self, file: Growing) -> None:
        self._file = file
        self._waiting: deque[Spoken] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._busy = False
        self._synced_at = time.monotonic()
        self.trouble = ""
        """Why nothing is recorded any more; empty while all is well."""
        self._thread = threading.Thread(target=self._run, name="tape", daemon=True)
        self._thread.start()

    def add(self, spoken: Spoken) -> None:
        """Record an answer; returns at once."""
        with self._changed:
            if self.trouble:
                return
            if len(self._waiting) >= _MAX_WAITING:
                self._give_up(f"the disk is {_MAX_WAITING} steps behind")
                return
            self._waiting.append(spoken)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all that was added is in the file."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.trouble or not (self._waiting or self._busy), _FLUSH_S):
                self._give_up("the disk does not answer")

    def close(self, *, sync: bool) -> None:
        """Write what waits, make it durable where that is wanted, and end the thread."""
        self.flush()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_FLUSH_S)
        if sync and not self.trouble:
            self._sync()

    def _give_up(self, why: str) -> None:
        self.trouble = why
        self._waiting.clear()
        self._changed.notify_all()
        _log.warning("steps are not recorded any more: %s", why)

    def _run(self) -> None:
        while (spoken := self._next()) is not None:
            try:
                self._write(spoken)
            except (OSError, TapeError, RuntimeError) as error:
                with self._changed:
                    self._give_up(getattr(error, "strerror", None) or str(error))
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> Spoken | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._busy = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None

    def _write(self, spoken: Spoken) -> None:
        if spoken.ready is not None:
            spoken.ready.synchronize()
        self._file.append(save(spoken.tensors, spoken.facts | {"timestep": repr(float(spoken.timestep))}))
        if time.monotonic() - self._synced_at >= SYNC_S:
            self._sync()

    def _sync(self) -> None:
        try:
            self._file.sync()
        except OSError as error:
            with self._changed:
                self._give_up(error.strerror or str(error))
        self._synced_at = time.monotonic()


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that nobody else writes to; from a GPU it is on its way when this returns."""
    if tensor.device.type != "cuda":
        return tensor.detach().clone(memory_format=torch.contiguous_format)
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor.detach(), non_blocking=True)
