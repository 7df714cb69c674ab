"""The first run of everything costs seconds (kernels, thread pools, lazy imports); it is spent here, not in the first job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sdtui.params import GenerationParams
from sdtui.protocol import PreviewOptions, Submit
from sdtui.worker.generate import run_job
from sdtui.worker.models import LoadedModel

_SMALL_PARAMETERS: Final = 100_000_000
"""A model below this runs a step of its own size in well under a second on a CPU; a larger one warms up on a small picture."""
_SMALL_PX: Final = 64
_log: Final = logging.getLogger(__name__)


def warm_up(model: LoadedModel, cancelled: Callable[[], bool]) -> None:
    """Run the shortest job through every stage but the last, so no disk can hold it up; no global random state changes.

    A model that cannot run a job says so when a job asks for it, not here. Raises `Cancelled`.
    """
    info = model.info
    small = sum(info.parameters.values()) < _SMALL_PARAMETERS or model.hardware.device.type == "cuda"
    least = max(_SMALL_PX, info.size_multiple_px)
    params = GenerationParams(
        prompt="a",
        num_inference_steps=2,
        seed=0,
        width=info.default_width_px if small else least,
        height=info.default_height_px if small else least,
        model=info.model,
    )
    submit = Submit(job="warm-up", params=params, output_dir="", preview=PreviewOptions(method="linear"))
    try:
        run_job(model, submit, emit=lambda _: None, cancelled=cancelled, save=False)
    except Exception:
        _log.exception("the warm-up failed")
