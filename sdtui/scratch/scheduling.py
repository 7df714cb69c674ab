"""What the two sampling functions ask of a scheduler that is not the same for all of them."""

from __future__ import annotations

import inspect
from typing import Any

import torch


def step_arguments(scheduler: Any, generator: torch.Generator | None) -> dict[str, Any]:
    """What this scheduler's `step` takes besides: `eta` (0 makes DDIM deterministic), and where new noise comes from."""
    taken = inspect.signature(scheduler.step).parameters
    given: dict[str, Any] = {"eta": 0.0, "generator": generator}
    return {name: value for name, value in given.items() if name in taken}
