"""What inspect mode costs: steps whose modules are looked at against the same without, on two models."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Final

import torch
from diffusers import UNet2DConditionModel

from sdtui.bench.figures import Figure, milliseconds, ratios
from sdtui.bench.isolation import isolated
from sdtui.bench.overhead import alternate, gaps
from sdtui.params import SHIPPED_MODEL, GenerationParams
from sdtui.protocol import InspectMode, Message, PreviewOptions, StepFinished, Submit, new_job_id
from sdtui.worker.generate import run_job
from sdtui.worker.models import LoadedModel, ModelRequest, load_model
from sdtui.worker.probes import Probe, spots
from sdtui.worker.quiet import prepare_environment, quieten_libraries
from sdtui.worker.wire import Sender

BLOCKS_TARGET: Final = 1.10
MODULES_TARGET: Final = 1.30
_STEPS: Final = 20
_PARAMS: Final = GenerationParams(prompt="a red cat in the desert", num_inference_steps=_STEPS, seed=1)
_CHANNELS: Final = (80, 160, 320, 320)
"""A quarter of SD 1.x's, so a sixteenth of its work: its modules are as many, and each is looked at in the same time."""
_CALLS: Final = 6
"""The first one takes the statistics of all modules, the others in turn."""
_MODES: Final[tuple[InspectMode, ...]] = ("off", "blocks", "modules")


def measure(rounds: int) -> list[Figure]:
    """The ratios of the time a step, for blocks and for every module; the kinds of runs alternate."""
    prepare_environment(threads=0, offline=True)
    quieten_libraries()
    return [*_shipped(rounds), *_like_sd_1(rounds)]


def _shipped(rounds: int) -> list[Figure]:
    with isolated() as root, Path(os.devnull).open("wb", buffering=0) as nowhere:
        model = load_model(ModelRequest(SHIPPED_MODEL), offline=True)
        sender = Sender(nowhere, on_broken=lambda: None)
        runs: dict[str, Callable[[], list[float]]] = {
            mode: lambda mode=mode: _job(model, root, sender, mode)  # type: ignore[misc]
            for mode in _MODES
        }
        times = alternate(runs, rounds)
        sender.close()
    note = f"{rounds} rounds of {_STEPS} steps, {torch.get_num_threads()} threads"
    return _figures("shipped model", times, _counts(model.pipe), note)


def _like_sd_1(rounds: int) -> list[Figure]:
    """One call of a U-Net with guidance at 256x256 px, looked at and told, without pipeline."""
    unet = UNet2DConditionModel(block_out_channels=_CHANNELS, norm_num_groups=16, cross_attention_dim=768).eval()
    pipe = SimpleNamespace(unet=unet)
    runs: dict[str, Callable[[], list[float]]] = {
        mode: lambda mode=mode: _calls(pipe, mode)  # type: ignore[misc]
        for mode in _MODES
    }
    times = alternate(runs, max(1, rounds // 2))
    note = f"latents (2, 4, 32, 32), channels {_CHANNELS}"
    return _figures("U-Net shaped like SD 1.x", times, _counts(pipe), note)


def _counts(pipe: object) -> dict[InspectMode, int]:
    return {mode: sum(spot.network == "unet" for spot, _ in spots(pipe, mode)) for mode in _MODES}


def _figures(name: str, times: dict[str, list[float]], counts: dict[InspectMode, int], note: str) -> list[Figure]:
    off = times["off"]
    return [
        milliseconds("inspect", f"{name}: a step", median(off), note=note),
        *ratios(
            "inspect", f"{name}: blocks", times["blocks"], off, target=BLOCKS_TARGET, note=f"{counts['blocks']} modules"
        ),
        *ratios(
            "inspect", f"{name}: every module", times["modules"], off, target=MODULES_TARGET, note=f"{counts['modules']} modules"
        ),
    ]  # fmt: skip


def _job(model: LoadedModel, root: Path, sender: Sender, mode: InspectMode) -> list[float]:
    """The seconds between the ends of one job's steps, what is told of them sent off."""
    marks: list[float] = []

    def emit(message: Message) -> None:
        sender.send(message)
        if isinstance(message, StepFinished):
            marks.append(time.perf_counter())

    submit = Submit(
        job=new_job_id(), params=_PARAMS, output_dir=str(root / "pictures"), preview=PreviewOptions(method="off"), inspect=mode
    )
    run_job(model, submit, emit=emit, cancelled=lambda: False, offline=True)
    return gaps(marks)


@torch.no_grad()
def _calls(pipe: SimpleNamespace, mode: InspectMode) -> list[float]:
    """The seconds of a few calls."""
    probe = Probe("bench", mode, torch.device("cpu"), lambda _: None)
    times: list[float] = []
    latents, text = torch.zeros(2, 4, 32, 32), torch.zeros(2, 77, 768)
    with probe.attached(pipe):
        for index in range(_CALLS):
            began = time.perf_counter()
            pipe.unet(latents, 500, text)
            probe.tell(probe.take(), 0, index)
            times.append(time.perf_counter() - began)
    return times
