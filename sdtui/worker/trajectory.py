"""Keeping the latents of each step while a batch is sampled: copies go to a thread that writes them; see `sdtui.trajectory`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from sdtui.trajectory import INITIAL, TrajectoryFacts, TrajectoryFile
from sdtui.worker.recorder import Recorder, Spoken, to_host
from sdtui.worker.watch import NoiseLevel, WatchedStep

Unpack = Callable[[torch.Tensor], torch.Tensor]
_log: Final = logging.getLogger(__name__)


class TrajectoryWriter:
    """Writes the trajectory of one batch; without a file it only looks on. A disk that fails ends the writing, not the job."""

    def __init__(self, file: TrajectoryFile | None = None, unpack: Unpack | None = None) -> None:
        """`unpack`: gives packed latents their rows and columns."""
        self._file, self._unpack = file, unpack
        self._steps = set(file.steps) if file is not None else set()
        self._recorder = Recorder(file) if file is not None else None
        self._total = 0

    def begin(self, latents: torch.Tensor, total: int) -> None:
        """What the first step is shown, and how many steps there will be."""
        self._total = total
        self._add(INITIAL, 0.0, NoiseLevel(0.0, 1.0), 0.0, {"latents": latents})

    def add(self, step: WatchedStep, elapsed_s: float) -> None:
        """A step ended; of one that is in the file already nothing is written."""
        self._total = step.total
        self._add(step.index, step.timestep, step.level, elapsed_s, {"latents": step.latents, "denoised": step.denoised})

    def _add(self, index: int, timestep: float, level: NoiseLevel, elapsed_s: float, tensors: dict[str, torch.Tensor]) -> None:
        if self._recorder is None or index in self._steps:
            return
        unpacked = {name: self._unpack(tensor) if self._unpack else tensor for name, tensor in tensors.items()}
        if any(tensor.ndim != 4 for tensor in unpacked.values()):
            return
        self._steps.add(index)
        facts = {
            "step": str(index),
            "total": str(self._total),
            "alpha": repr(level.alpha),
            "sigma": repr(level.sigma),
            "elapsed_s": repr(elapsed_s),
        }
        device = tensors["latents"].device
        copies = {name: to_host(tensor) for name, tensor in unpacked.items()}
        ready = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
        self._recorder.add(Spoken(copies, timestep, facts, ready))

    def flush(self) -> None:
        """Wait until all that was added is in the file."""
        if self._recorder is not None:
            self._recorder.flush()

    def close(self, *, sync: bool = False) -> None:
        """End the writing; with `sync` it is durable then."""
        if self._recorder is not None:
            self._recorder.close(sync=sync)
        if self._file is not None:
            self._file.close()


def open_trajectory(path: Path, facts: TrajectoryFacts, unpack: Unpack | None) -> TrajectoryWriter:
    """The writer of a batch; one that only looks on where the file cannot be made, as the job can do without it."""
    try:
        return TrajectoryWriter(TrajectoryFile(path, facts), unpack)
    except OSError as error:
        _log.warning("the trajectory is not kept: %s", error)
        return TrajectoryWriter()
