"""The loop that every stage shares: budget, learning rate, running average, checkpoints, resuming."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sdtui.scratch.muon import Muon, fast_bf16
from sdtui.scratch.progress import Report

CHECKPOINT_EVERY_S = 90.0
REPORT_EVERY_S = 5.0
MEASURE_EVERY_S = 60.0


class CheckpointError(Exception):
    """A checkpoint that cannot be read, or belongs to another architecture."""


@dataclass(frozen=True)
class Budget:
    """How long a stage may learn, over all its runs: samples if given, else minutes."""

    minutes: float = 0.0
    samples: int = 0

    def progress(self, samples: int, elapsed_s: float) -> float:
        """0 at the start, 1 when it is spent."""
        if self.samples:
            return min(1.0, samples / self.samples)
        return min(1.0, elapsed_s / (60 * self.minutes)) if self.minutes else 1.0


@dataclass
class Task:
    """One stage: what learns, and how wrong it is on batch number n.

    `loss(n, progress)` draws its batch and noise from the number alone, so a resumed run repeats an unbroken one.
    """

    name: str
    modules: torch.nn.ModuleDict
    loss: Callable[[int, float], torch.Tensor]
    batch_size: int
    peak_lr: float
    # Weights at the edges of a network (first, last, embeddings) belong to AdamW, not to Muon.
    edges: tuple[str, ...] = ()
    ema_decay: float = 0.0
    measure: Callable[[], dict[str, float]] = field(default=dict)


class Trainer:
    """Runs one task until its budget is spent or it is asked to stop; its checkpoint holds all it needs to go on."""

    def __init__(self, task: Task, budget: Budget, checkpoint: Path, report: Report, workers: int = 1) -> None:
        """`workers`: how many batches a step computes side by side. On a CPU two threads with a batch each are faster than one
        batch on two threads, and far faster when other programs want the cores, as they need not meet at every operation.
        """
        self.task, self.budget, self.checkpoint, self.report, self.workers = task, budget, checkpoint, report, workers
        self._pool = ThreadPoolExecutor(workers)
        self._learning = [weight for weight in task.modules.parameters() if weight.requires_grad]
        self.optimizers = optimizers_for(task, self._pool)
        self.average = {name: p.detach().clone() for name, p in task.modules.named_parameters()} if task.ema_decay else {}
        self.step, self.samples, self.elapsed_s = 0, 0, 0.0
        if checkpoint.exists():
            self._load()

    @property
    def progress(self) -> float:
        return self.budget.progress(self.samples, self.elapsed_s)

    def run(self) -> bool:
        """Learn; True when the budget is spent, False when a signal ended it. Either way the checkpoint is written."""
        last = saved = told = time.monotonic()
        measured = 0.0
        first, started_s = self.samples, self.elapsed_s
        self.task.modules.train()
        with stop_signals() as stopped:
            while self.progress < 1 and not stopped:
                loss = self._learn()
                now = time.monotonic()
                self.elapsed_s, last = self.elapsed_s + now - last, now
                if now - told > REPORT_EVERY_S:
                    told = now
                    rate = (self.samples - first) / (self.elapsed_s - started_s)
                    extra = {}
                    if now - measured > MEASURE_EVERY_S:
                        measured, extra = now, self.task.measure()
                    self._tell(loss.item(), rate, extra)
                if now - saved > CHECKPOINT_EVERY_S:
                    saved = now
                    self.save()
        self.save()
        return not stopped

    def _learn(self) -> torch.Tensor:
        """One step: each worker's batch on a thread of its own, the gradients averaged in a fixed order."""
        rate = self.task.peak_lr * schedule(self.step, self.progress)
        numbers = range(self.step * self.workers, (self.step + 1) * self.workers)
        results = list(self._pool.map(self._gradients, numbers, [self.progress] * self.workers))
        for weight, *parts in zip(self._learning, *(gradients for _, gradients in results), strict=True):
            weight.grad = torch.stack(parts).mean(0) if len(parts) > 1 else parts[0]
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.step += 1
        self.samples += self.task.batch_size * self.workers
        if self.average:
            self._follow()
        return torch.stack([loss for loss, _ in results]).mean()

    def _gradients(self, batch_number: int, progress: float) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        loss = self.task.loss(batch_number, progress)
        return loss.detach(), torch.autograd.grad(loss, self._learning)

    @torch.no_grad()
    def _follow(self) -> None:
        """The running average of the weights; it follows faster at the start, when the weights are still poor."""
        decay = min(self.task.ema_decay, (1 + self.step) / (10 + self.step))
        for name, weight in self.task.modules.named_parameters():
            self.average[name].lerp_(weight, 1 - decay)

    def _tell(self, loss: float, samples_per_s: float, extra: dict[str, float]) -> None:
        progress = self.progress
        spent_s = self.elapsed_s / progress if progress else 0.0
        self.report.step(
            self.task.name,
            progress,
            {"step": self.step, "samples": self.samples, "loss": loss, "samples_per_s": samples_per_s}
            | {"eta_s": spent_s - self.elapsed_s}
            | extra,
        )

    def averaged(self) -> torch.nn.ModuleDict:
        """The modules with the running average as their weights; for export, when training is over."""
        with torch.no_grad():
            for name, weight in self.task.modules.named_parameters():
                if name in self.average:
                    weight.copy_(self.average[name])
        return self.task.modules

    def save(self) -> None:
        write_checkpoint(
            self.checkpoint,
            {
                "task": self.task.name,
                "step": self.step,
                "samples": self.samples,
                "elapsed_s": self.elapsed_s,
                "weights": self.task.modules.state_dict(),
                "average": self.average,
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            },
        )

    def _load(self) -> None:
        state = read_checkpoint(self.checkpoint)
        try:
            self.task.modules.load_state_dict(state["weights"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            for name, weight in state["average"].items():
                self.average[name].copy_(weight)
            self.step, self.samples, self.elapsed_s = int(state["step"]), int(state["samples"]), float(state["elapsed_s"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.checkpoint} is a checkpoint of another architecture") from error


def schedule(step: int, progress: float) -> float:
    """The share of the peak learning rate: up over a hundred steps, then straight down to a hundredth at the budget's end."""
    return min(1.0, (step + 1) / 100) * max(0.01, 1 - progress)


def optimizers_for(task: Task, pool: Executor) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices and kernels, AdamW for edges, embeddings, norms and biases."""
    hidden: list[torch.Tensor] = []
    rest: list[torch.Tensor] = []
    for name, weight in task.modules.named_parameters():
        if weight.requires_grad:
            inner = weight.ndim >= 2 and not any(edge in name for edge in task.edges)
            (hidden if inner else rest).append(weight)
    found: list[torch.optim.Optimizer] = []
    if hidden:
        found.append(Muon(hidden, task.peak_lr, pool))
    if rest:
        found.append(torch.optim.AdamW(rest, task.peak_lr, betas=(0.9, 0.99), weight_decay=0.0))
    return found


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write under another name, then rename: a power cut leaves the old checkpoint or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    unfinished.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint's tensors and numbers, on the CPU; it cannot run code. Raises CheckpointError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError
        raise CheckpointError(f"{path} is not a checkpoint") from error
    if not isinstance(state, dict) or "weights" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of sdtui train")
    return state


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that is empty until ctrl-C or SIGTERM asks to stop; a step under way is finished first."""
    stopped: list[int] = []

    def note(number: int, _frame: object) -> None:
        stopped.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def step_seed(seed: int, step: int) -> int:
    """A seed for one step's batch and noise, far from the next step's."""
    return (seed * 1_000_003 + step) * 2_654_435_761 % 2**63


def half_precision(device: torch.device) -> torch.autocast:
    """bf16 where the device multiplies it in hardware, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device))
