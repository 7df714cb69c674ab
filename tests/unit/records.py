"""A picture's record, for the tests of what files say of themselves."""

from __future__ import annotations

from typing import Final

from sdtui.metadata import ImageRecord
from sdtui.params import GenerationParams

PARAMS: Final = GenerationParams(prompt="a red cat", seed=7, width=128, height=64, scheduler="euler_a")
RECORD: Final = ImageRecord(
    params=PARAMS,
    model_name="scenes-128",
    scheduler_class="EulerAncestralDiscreteScheduler",
    job="20260101-120000-ab12",
    first_seed=7,
    version="0.1.0",
    torch="2.13.0",
    diffusers="0.42.1",
    device="cpu",
    dtype="float32",
    created_at="2026-01-01T12:00:00Z",
    elapsed_s=1.5,
)
