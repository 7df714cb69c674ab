"""Watching a pipeline sample, without touching it: a wrapper around `scheduler.step` on the instance, one hook on the network.

From what goes into `step` and what comes out, the x0 prediction follows for every scheduler:
sample = alpha x0 + sigma eps, and v = alpha eps - sigma x0 (Salimans & Ho 2022, appendix D), both divided by the same
factor where the scheduler keeps alpha = 1 (Karras et al. 2022, eq. 6).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from sdtui.worker.instance import standing_in

RETURNS_DENOISED: Final = frozenset(
    {
        "DDIMScheduler",
        "DDPMScheduler",
        "DPMSolverSDEScheduler",
        "EDMEulerScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LCMScheduler",
        "LMSDiscreteScheduler",
    }
)
"""Whose `step` returns x0 second. TCD's second value is `pred_noised_sample`, and the multistep solvers return only one."""


@dataclass(frozen=True)
class NoiseLevel:
    """sample = alpha x0 + sigma eps, for one call of `step`."""

    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """sigma / alpha, the sigma of Karras et al., by which schedulers of all kinds compare."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf


@dataclass(frozen=True)
class WatchedStep:
    """One call of `scheduler.step`; the tensors are the pipeline's own and must not be changed."""

    index: int
    total: int
    timestep: float
    level: NoiseLevel
    latents: torch.Tensor
    """After the step, (B, C, h, w), or (B, n, C) where the pipeline packs them."""
    noise_pred: torch.Tensor
    denoised: torch.Tensor
    guidance: tuple[torch.Tensor, torch.Tensor] | None
    """The network's answers without and with the prompt, each (B, C, h, w)."""


def noise_level(scheduler: Any, timestep: float) -> NoiseLevel:
    """How noisy the sample is that goes into `step` next. Ask before the step: afterwards the scheduler has moved on."""
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is None or not hasattr(scheduler, "step_index"):
        alpha_bar = float(scheduler.alphas_cumprod[int(timestep)])
        return NoiseLevel(math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar))
    if scheduler.step_index is None:
        scheduler._init_step_index(timestep)
    sigma = float(sigmas[scheduler.step_index])
    if not getattr(scheduler, "state_in_first_order", True):
        sigma = _sigma_between(scheduler, sigma)
    if _predicts_flow(scheduler):
        return NoiseLevel(1.0 - sigma, sigma)
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):  # the solvers keep the sample's variance, alpha^2 + sigma^2 = 1
        alpha = 1.0 / math.hypot(1.0, sigma)
        return NoiseLevel(alpha, sigma * alpha)
    return NoiseLevel(1.0, sigma)


def _sigma_between(scheduler: Any, sigma: float) -> float:
    """Where the second half of a second-order step looks; Heun's at the next sigma, the others' between two."""
    name, index = type(scheduler).__name__, scheduler.step_index
    if name == "KDPM2DiscreteScheduler":
        return float(scheduler.sigmas_interpol[index])
    if name == "KDPM2AncestralDiscreteScheduler":
        return float(scheduler.sigmas_interpol[index - 1])
    if name == "DPMSolverSDEScheduler":
        return float(scheduler.mid_point_sigma)
    return sigma


def _predicts_flow(scheduler: Any) -> bool:
    return type(scheduler).__name__.startswith("FlowMatch") or scheduler.config.get("prediction_type") == "flow_prediction"


def predict_denoised(scheduler: Any, level: NoiseLevel, sample: torch.Tensor, noise_pred: torch.Tensor) -> torch.Tensor:
    """The x0 prediction, of `sample`'s shape, from the sample before the step and what the network said of it."""
    alpha, sigma = level.alpha, level.sigma
    if _predicts_flow(scheduler):
        return sample - sigma * noise_pred
    if hasattr(scheduler, "precondition_outputs"):
        return torch.as_tensor(scheduler.precondition_outputs(sample, noise_pred, torch.tensor(sigma)))
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction == "sample":
        return noise_pred
    if prediction == "v_prediction":
        norm = math.hypot(alpha, sigma)
        return torch.sub(sample * (alpha / norm / norm), noise_pred, alpha=sigma / norm)
    if alpha == 0:  # pure noise says nothing of x0 (zero terminal SNR with epsilon)
        return torch.zeros_like(sample)
    return (sample - sigma * noise_pred) / alpha


def _returned_denoised(scheduler: Any, result: Any) -> torch.Tensor | None:
    if type(scheduler).__name__ not in RETURNS_DENOISED:
        return None
    if isinstance(result, tuple):
        return result[1] if len(result) > 1 and isinstance(result[1], torch.Tensor) else None
    found = getattr(result, "pred_original_sample", None)
    return found if isinstance(found, torch.Tensor) else None


def _first_tensor(output: Any) -> torch.Tensor | None:
    first = output[0] if isinstance(output, (tuple, list)) else getattr(output, "sample", output)
    return first if isinstance(first, torch.Tensor) else None


@contextmanager
def timesteps_seen(pipe: Any) -> Iterator[Callable[[], torch.Tensor]]:
    """While this lasts, what is given tells the timesteps that run: of image to image only those that the pipeline takes."""
    original = getattr(pipe, "get_timesteps", None)
    if original is None:
        yield lambda: pipe.scheduler.timesteps
        return
    taken: list[torch.Tensor] = []

    def get_timesteps(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        taken[:] = [result[0]]
        return result

    with standing_in(pipe, "get_timesteps", get_timesteps):
        yield lambda: taken[0] if taken else pipe.scheduler.timesteps


@contextmanager
def watched(pipe: Any, on_step: Callable[[WatchedStep], None]) -> Iterator[None]:
    """While this lasts, `on_step` is called after every `pipe.scheduler.step`; nothing that is computed changes.

    The wrapper keeps `step`'s signature, because pipelines look in it for `eta` and `generator`.
    """
    scheduler = pipe.scheduler
    step = scheduler.step
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    answer: list[torch.Tensor | None] = [None]
    timesteps: list[float] = []
    count = 0

    def keep(_module: object, _arguments: object, output: Any) -> None:
        answer[0] = _first_tensor(output)

    @functools.wraps(step)
    def watched_step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if not timesteps:
            timesteps.extend(float(value) for value in timesteps_now().tolist())
        value = timesteps[count] if count < len(timesteps) else float(timestep)
        level = noise_level(scheduler, value)
        result = step(model_output, timestep, sample, *args, **kwargs)
        denoised = _returned_denoised(scheduler, result)
        if denoised is None:
            denoised = predict_denoised(scheduler, level, sample, model_output)
        after = result[0] if isinstance(result, tuple) else result.prev_sample
        guidance = _two_answers(answer[0], sample)
        on_step(WatchedStep(count, len(timesteps), value, level, after, model_output, denoised, guidance))
        count += 1
        return result

    handle = network.register_forward_hook(keep) if network is not None else None
    try:
        with timesteps_seen(pipe) as timesteps_now, standing_in(scheduler, "step", watched_step):
            yield
    finally:
        if handle is not None:
            handle.remove()


def _two_answers(answer: torch.Tensor | None, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    if answer is None or answer.ndim != sample.ndim or answer.shape[0] != 2 * sample.shape[0]:
        return None
    uncond, text = answer.chunk(2)
    return uncond, text
