"""What a line made: which of the function's variables are not what they were, the figures of tensors, and all else as text.

Looking reads only: no random number is drawn, and no tensor of the function is written to.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from sdtui.protocol import HowMade, MadeTensor
from sdtui.text import count_noun, safe_text
from sdtui.worker.explainer.pictures import Pictures
from sdtui.worker.hardware import dtype_name

_LONGEST_VALUE: Final = 160
"""Characters of a value: a line of a wide terminal."""
_MOST_ITEMS: Final = 8
_KEPT_BY_SCHEDULER: Final = ("timesteps", "sigmas")
"""What `set_timesteps` makes, and the function has no variable for."""
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Known:
    """One variable as it was; the object is kept, so that no other one can get its identity."""

    value: Any
    version: int
    """Of a tensor: counts up when something is written into it."""


class Variables:
    """The variables of one call, as they were when they were last looked at."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def see(self, variables: Mapping[str, Any]) -> list[tuple[str, HowMade, Any]]:
        """Which are new, rebound or changed since the last time, with their values, in the order in which Python keeps them.

        Those of the scheduler's own tensors that change while it has a variable are told as `scheduler.timesteps`.
        """
        before, now = self._known, {name: _Known(value, _version(value)) for name, value in _all(variables)}
        self._known = now
        return [(name, how, known.value) for name, known in now.items() if (how := _how(before, name, known)) is not None]

    def get(self, name: str) -> Any:
        """What a variable is now; None where there is none."""
        known = self._known.get(name)
        return None if known is None else known.value

    def change(self, name: str, value: Any) -> None:
        """A variable was given another value from outside: no line made that."""
        self._known[name] = _Known(value, _version(value))

    def forget(self) -> None:
        """Let go of everything."""
        self._known = {}


def _all(variables: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from variables.items()
    scheduler = variables.get("scheduler")
    for name in _KEPT_BY_SCHEDULER:
        value = getattr(scheduler, name, None)
        if isinstance(value, torch.Tensor):
            yield f"scheduler.{name}", value


def _how(before: Mapping[str, _Known], name: str, now: _Known) -> HowMade | None:
    known = before.get(name)
    if known is None:
        owner, _, attribute = name.partition(".")
        return None if attribute and owner not in before else "new"
    if known.value is not now.value:
        return "rebound"
    return "changed" if known.version != now.version else None


def _version(value: Any) -> int:
    if not isinstance(value, torch.Tensor) or value.is_inference():
        return 0
    return int(value._version)


def is_tensor(value: Any) -> bool:
    """Whether a value is told as a tensor: torch's and numpy's, but single numbers are told as such."""
    return isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim > 0


def made_tensor(name: str, how: HowMade, value: Any, pictures: Pictures, *, draw: bool = True) -> MadeTensor:
    """A tensor's or an array's figures, its words where it is of tokens, and with `draw` its picture."""
    tensor = value.detach() if isinstance(value, torch.Tensor) else _as_tensor(value)
    figures = _figures(tensor) if tensor is not None else {}
    picture = None
    words: tuple[tuple[str, ...], ...] = ()
    if tensor is not None and draw:
        try:
            picture = pictures.of(name, tensor)
        except RuntimeError as error:  # as when a GPU has no room left: it costs the picture, never the run
            _log.warning("%s has no picture: %s", name, error)
    if tensor is not None and name == "tokens":
        words = pictures.words(tensor)
    return MadeTensor(
        name=name,
        how=how,
        shape=tuple(value.shape),
        dtype=dtype_name(value.dtype) if isinstance(value, torch.Tensor) else str(value.dtype),
        device=str(value.device) if isinstance(value, torch.Tensor) else "numpy",
        picture=picture,
        words=words,
        **figures,
    )


def _as_tensor(array: np.ndarray[Any, Any]) -> torch.Tensor | None:
    """A copy, as torch warns of arrays that may not be written to; None for what torch has no numbers for."""
    try:
        return torch.from_numpy(array.copy())
    except TypeError:
        return None


def _figures(tensor: torch.Tensor) -> dict[str, Any]:
    """Least, mean, greatest and standard deviation of the finite numbers, in float64, and how many are not finite."""
    if tensor.is_complex() or not tensor.numel():
        return {}
    try:
        values = tensor.double().flatten()
        finite = values[values.isfinite()]
        faults = values.numel() - finite.numel()
        if not finite.numel():
            return {"faults": faults}
        std, mean = torch.std_mean(finite, correction=0)
        numbers = torch.stack([*torch.aminmax(finite), mean, std]).tolist()
    except RuntimeError as error:
        _log.warning("a tensor of shape %s has no figures: %s", tuple(tensor.shape), error)
        return {}
    low, high, mean_value, spread = (number if math.isfinite(number) else None for number in numbers)
    return {"low": low, "mean": mean_value, "high": high, "std": spread, "faults": faults}


def told(value: Any) -> str:
    """A value as short text that is safe to show."""
    return safe_text(_told(value), limit=_LONGEST_VALUE)


def _told(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return repr(value.detach()) if value.ndim == 0 else f"a tensor of {tuple(value.shape)}"
    if isinstance(value, torch.nn.Module):
        return f"{type(value).__name__}, {count_noun(sum(part.numel() for part in value.parameters()), 'parameter')}"
    if isinstance(value, torch.Size):
        return repr(tuple(value))
    if isinstance(value, (tuple, list)):
        inside = ", ".join([_told(part) for part in value[:_MOST_ITEMS]] + ["…"] * (len(value) > _MOST_ITEMS))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_told(key)}: {_told(part)}" for key, part in list(value.items())[:_MOST_ITEMS]) + "}"
    if isinstance(value, Image.Image):
        return f"a picture, {value.width}x{value.height}, {value.mode}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (torch.device, torch.dtype)):
        return str(value)
    if isinstance(value, torch.Generator):
        return f"a generator on {value.device}, seed {value.initial_seed()}"
    return type(value).__name__
