"""Where the denoising of a batch begins: with noise, with a picture, or on another job's way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from sdtui.worker.describe import denoiser
from sdtui.worker.instance import standing_in


def generators_of(seeds: list[int]) -> torch.Generator | list[torch.Generator]:
    """CPU generators, so a seed gives the same noise on every device; a single one for a single picture."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return generators[0] if len(generators) == 1 else generators


@dataclass(frozen=True)
class Jump:
    """Latents that another job made, in the form that this job's scheduler keeps them in, and from which of its steps on."""

    latents: torch.Tensor
    """(1, C, h, w)"""
    index: int
    """In `scheduler.timesteps`."""

    @contextmanager
    def attached(self, pipe: Any) -> Iterator[None]:
        """While this lasts, an image-to-image pipeline begins with these latents at this step.

        Its `get_timesteps` and `prepare_latents` are what decides both; on the instance they give what is wanted here.
        """

        def get_timesteps(*_: Any, **__: Any) -> tuple[torch.Tensor, int]:
            scheduler = pipe.scheduler
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(self.index)
            timesteps = scheduler.timesteps[self.index :]
            return timesteps, len(timesteps)

        def prepare_latents(*_: Any, **__: Any) -> torch.Tensor:
            network = denoiser(pipe)
            return self.latents.to(network.device, network.dtype)

        with standing_in(pipe, "get_timesteps", get_timesteps), standing_in(pipe, "prepare_latents", prepare_latents):
            yield


@dataclass
class Start:
    """How the denoising of a batch begins, and whose random numbers it draws."""

    seeds: list[int]
    """One for each picture's generator."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What the pipeline's call takes besides: `image` and `strength`."""
    jump: Jump | None = None
    reseed: tuple[int, int] | None = None
    """From which step on the generators begin anew, and with which seed."""
    _made: list[torch.Generator] = field(default_factory=list)

    def generators(self) -> torch.Generator | list[torch.Generator]:
        """The generators of a call that begins now."""
        found = generators_of(self.seeds)
        self._made = found if isinstance(found, list) else [found]
        return found

    def after_step(self, index: int) -> None:
        """A step ended: the next one may draw other random numbers."""
        if self.reseed is not None and index + 1 == self.reseed[0]:
            for generator in self._made:
                generator.manual_seed(self.reseed[1])

    @contextmanager
    def attached(self, pipe: Any) -> Iterator[None]:
        """While this lasts, the pipeline begins where it is to."""
        if self.jump is None:
            yield
            return
        with self.jump.attached(pipe):
            yield
