"""What watching costs: a job with its log and previews against the plain `pipe(...)` call, same weights, steps and threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

from sdtui.bench.figures import Figure, milliseconds, ratios
from sdtui.bench.isolation import isolated
from sdtui.params import SHIPPED_MODEL, GenerationParams
from sdtui.protocol import Message, PreviewOptions, StepFinished, Submit, new_job_id
from sdtui.worker.generate import run_job
from sdtui.worker.journal import Journal
from sdtui.worker.models import LoadedModel, ModelRequest, load_model
from sdtui.worker.quiet import prepare_environment, quieten_libraries
from sdtui.worker.wire import Sender

TARGET: Final = 1.03
TAPE_TARGET: Final = 1.02
_STEPS: Final = 20
_PARAMS: Final = GenerationParams(prompt="a red cat in the desert", num_inference_steps=_STEPS, seed=1)
_EVERY_STEP: Final = 1e6
"""Previews a second: no step is left out."""


def measure(rounds: int) -> list[Figure]:
    """The ratios of the time a step; plain and watched runs alternate, so that both meet the same disturbances."""
    prepare_environment(threads=0, offline=True)
    quieten_libraries()
    with isolated() as root, Path(os.devnull).open("wb", buffering=0) as nowhere:
        model = load_model(ModelRequest(SHIPPED_MODEL), offline=True)
        sender = Sender(nowhere, on_broken=lambda: None)
        runs: dict[str, Callable[[], list[float]]] = {
            "plain": lambda: _plain(model),
            "log": lambda: _job(model, root, sender, PreviewOptions(method="off")),
            "tape": lambda: _job(model, root, sender, PreviewOptions(method="off"), record=True),
            "linear": lambda: _job(model, root, sender, PreviewOptions(method="linear", max_per_s=_EVERY_STEP, budget=1.0)),
            "vae": lambda: _job(model, root, sender, PreviewOptions(method="vae", max_per_s=_EVERY_STEP, budget=1.0)),
        }
        times = alternate(runs, rounds)
        sender.close()
    plain = times["plain"]
    return [
        milliseconds(
            "overhead",
            "a plain step",
            median(plain),
            note=f"{rounds} rounds of {_STEPS} steps, {torch.get_num_threads()} threads",
        ),
        *ratios(
            "overhead",
            "log and linear preview each step",
            times["linear"],
            plain,
            target=TARGET,
            note="a step, against plain pipe(...)",
        ),
        *ratios("overhead", "log alone", times["log"], plain),
        *ratios("overhead", "recording each step", times["tape"], times["log"], target=TAPE_TARGET, note="against the log alone"),
        *ratios("overhead", "log and full VAE preview each step", times["vae"], plain, note="what the budget spares"),
    ]


def alternate(runs: dict[str, Callable[[], list[float]]], rounds: int) -> dict[str, list[float]]:
    """The times of all steps of each kind of run; the order turns from round to round, so that none is always first."""
    names = list(runs)
    for run in runs.values():
        run()  # the first call of each pays for kernels and caches
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            times[name] += runs[name]()
    return times


def _plain(model: LoadedModel) -> list[float]:
    marks: list[float] = []

    def mark(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        marks.append(time.perf_counter())
        return tensors

    model.pipe(
        _PARAMS.prompt,
        num_inference_steps=_STEPS,
        guidance_scale=_PARAMS.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(1),
        callback_on_step_end=mark,
        output_type="latent",
    )
    return gaps(marks)


def _job(model: LoadedModel, root: Path, sender: Sender, preview: PreviewOptions, *, record: bool = False) -> list[float]:
    marks: list[float] = []

    def emit(message: Message) -> None:
        sender.send(message)
        if isinstance(message, StepFinished):
            marks.append(time.perf_counter())

    submit = Submit(job=new_job_id(), params=_PARAMS, output_dir=str(root / "pictures"), preview=preview)
    journal = Journal(root / "tapes" / submit.job, record=True) if record else None
    run_job(model, submit, emit=emit, cancelled=lambda: False, offline=True, journal=journal)
    if journal is not None:
        journal.close()
    return gaps(marks)


def gaps(marks: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(marks)]
