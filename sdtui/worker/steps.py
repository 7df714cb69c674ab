"""From watched steps to `StepFinished` and `PreviewReady` events.

On a GPU figures and frames are copied without waiting and reported one step later, so the loop never stalls for them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sdtui.protocol import Message, PreviewReady, StepFinished, TensorFact
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.errors import Cancelled
from sdtui.worker.hardware import dtype_name
from sdtui.worker.memory import held_bytes
from sdtui.worker.previews import Preview, Previewer
from sdtui.worker.probes import Probe, Taken
from sdtui.worker.start import Start
from sdtui.worker.tape import DenoiserTape, StepSource
from sdtui.worker.trajectory import TrajectoryWriter
from sdtui.worker.watch import WatchedStep

Emit = Callable[[Message], None]
Unpack = Callable[[torch.Tensor], torch.Tensor]
Between = Callable[[Callable[[], None]], None]
"""Other short work between two steps; it is given what waits until the steps so far are on disk."""


def tensor_fact(name: str, tensor: torch.Tensor, note: str = "", *, stats: bool = False) -> TensorFact:
    """Shape and dtype of a tensor; with `stats` mean and standard deviation too, which waits for the device."""
    mean = std = None
    if stats:
        spread, centre = torch.std_mean(tensor.float(), correction=0)
        mean, std = _number(float(centre)), _number(float(spread))
    return TensorFact(name, tuple(tensor.shape), dtype_name(tensor.dtype), mean, std, note)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass
class _Pending:
    """A step whose figures are on their way from the device."""

    step: WatchedStep
    figures: torch.Tensor
    preview: Preview | None
    rgb: torch.Tensor | None
    preview_s: float
    elapsed_s: float
    ready: Any
    """A CUDA event, or None when everything is here already."""
    replayed: bool
    told: bool
    """Whether the server is told of the step; of one that it knows only the preview is sent."""
    modules: Taken | None
    """What inspect mode saw; None where the network was not asked."""


class StepLog:
    """Called after every step of one batch; emits its events in order. Call `flush` when the loop has ended."""

    def __init__(
        self,
        *,
        job: str,
        batch_index: int,
        device: torch.device,
        emit: Emit,
        previewer: Previewer,
        token: CancelToken,
        tape: DenoiserTape,
        trajectory: TrajectoryWriter,
        begin: Start,
        probe: Probe,
        between: Between = lambda _: None,
        known_steps: int = 0,
        unpack: Unpack | None = None,
    ) -> None:
        """`known_steps`: so many of the replayed ones are not told, as the server has them from an earlier run.

        `between` is called when a step has been told and the next one has not begun, with what makes sure that it is on disk.
        """
        self._job, self._batch_index, self._device = job, batch_index, device
        self._emit, self._previewer, self._token, self._unpack = emit, previewer, token, unpack
        self._tape, self._probe, self._known_steps = tape, probe, known_steps
        self._trajectory, self._begin, self._between = trajectory, begin, between
        self._pending: _Pending | None = None
        self._since = time.perf_counter()
        self.largest_bytes = 0
        self.steps = 0
        """How many calls of `scheduler.step` there were, replayed ones among them."""
        self.steps_told = 0
        """Steps from the first one on that the server has been told of by this log."""

    def start(self, latents: torch.Tensor, total: int) -> None:
        """The first step begins now, with these latents; raises `Cancelled` where it is not to."""
        self._token.stop_between_steps()
        self._trajectory.begin(latents, total)
        self._since = time.perf_counter()
        self._tape.start()

    def __call__(self, step: WatchedStep) -> None:
        """Take note of a step; raises `Cancelled`."""
        source = self._tape.end_step()
        elapsed_s = source.elapsed_s if source.replayed else time.perf_counter() - self._since
        self.steps = step.index + 1
        self._trajectory.add(step, elapsed_s)
        self._begin.after_step(step.index)
        told = not source.replayed or step.index >= self._known_steps
        if told or source.last_replayed:
            self._note(step, source, elapsed_s, told=told)
        self._probe.sheets.steps_done = step.index + 1
        if self._token():
            raise Cancelled
        if self._token.wanted is not None:
            self.flush()
            self._token.stop_between_steps()
        with self._probe.paused():
            self._between(self._trajectory.flush)
        self._since = time.perf_counter()

    def _note(self, step: WatchedStep, source: StepSource, elapsed_s: float, *, told: bool) -> None:
        figures = self._to_host(_figures(step))
        modules = self._probe.take()
        self.flush()
        preview, preview_s = self._preview(step, source, elapsed_s)
        rgb = self._to_host(preview.rgb) if preview is not None else None
        self._pending = _Pending(step, figures, preview, rgb, preview_s, elapsed_s, self._mark(), source.replayed, told, modules)
        if self._device.type != "cuda":
            self.flush()

    def _preview(self, step: WatchedStep, source: StepSource, step_s: float) -> tuple[Preview | None, float]:
        due = source.last_replayed or not source.replayed
        if not due or not self._previewer.is_due(step.index, step.total):
            return None, 0.0
        began = time.perf_counter()
        denoised = self._unpack(step.denoised) if self._unpack is not None else step.denoised
        with self._probe.paused():
            preview = self._previewer.render(denoised, step_s) if denoised.ndim == 4 else None
        return preview, time.perf_counter() - began

    def _to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "cuda":
            return tensor
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return None
        return torch.cuda.current_stream(self._device).record_event()

    def flush(self) -> None:
        """Report the step before, once its figures have arrived."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.ready is not None:
            pending.ready.synchronize()
        memory_bytes = held_bytes(self._device)
        self.largest_bytes = max(self.largest_bytes, memory_bytes)
        if pending.told:
            self._emit(self._step_finished(pending, memory_bytes))
            self.steps_told = pending.step.index + 1
        self._probe.tell(pending.modules, self._batch_index, pending.step.index)
        if pending.preview is not None and pending.rgb is not None:
            self._emit(self._preview_ready(pending, pending.preview, pending.rgb))

    def _step_finished(self, pending: _Pending, memory_bytes: int) -> StepFinished:
        step = pending.step
        mean, x0_mean, std, x0_std, guidance = (_number(value) for value in pending.figures.tolist())
        ratio = _number(step.level.ratio)
        return StepFinished(
            job=self._job,
            batch_index=self._batch_index,
            step_index=step.index,
            total_steps=step.total,
            timestep=step.timestep,
            sigma=ratio,
            latents=TensorFact("latents", tuple(step.latents.shape), dtype_name(step.latents.dtype), mean, std),
            noise_pred=tensor_fact("noise_pred", step.noise_pred),
            denoised=TensorFact("denoised", tuple(step.denoised.shape), dtype_name(step.denoised.dtype), x0_mean, x0_std),
            guidance_norm=guidance,
            elapsed_s=pending.elapsed_s,
            preview_s=pending.preview_s,
            memory_bytes=memory_bytes,
            replayed=pending.replayed,
        )

    def _preview_ready(self, pending: _Pending, preview: Preview, rgb: torch.Tensor) -> PreviewReady:
        height, width, _ = rgb.shape
        return PreviewReady(
            job=self._job,
            batch_index=self._batch_index,
            step_index=pending.step.index,
            width_px=width,
            height_px=height,
            rgb=rgb.numpy().tobytes(),
            method=preview.method,
            elapsed_s=pending.preview_s,
        )


def _figures(step: WatchedStep) -> torch.Tensor:
    """Mean of latents and of x0, then both standard deviations, then the RMS of the guidance difference, or NaN: (5,) float32."""
    both = torch.stack([step.latents, step.denoised]).float().flatten(1)  # (2, B C h w)
    std, mean = torch.std_mean(both, dim=1, correction=0)
    if step.guidance is None:
        return torch.cat([mean, std, mean.new_full((1,), math.nan)])
    uncond, text = step.guidance
    norm = torch.linalg.vector_norm((text - uncond).flatten(), dim=0, keepdim=True, dtype=torch.float32)
    return torch.cat([mean, std, norm / math.sqrt(text.numel())])
