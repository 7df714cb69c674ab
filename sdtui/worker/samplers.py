"""Schedulers by their names in `sdtui.schedulers`: which a model can take, and building one for a job."""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any, Final

import diffusers

from sdtui.params import GenerationParams
from sdtui.protocol import SchedulerChoice
from sdtui.schedulers import BY_NAME, MODEL_DEFAULT, SCHEDULERS, SIGMAS, SchedulerSpec, find_scheduler, nearest_scheduler
from sdtui.text import safe_text
from sdtui.worker.errors import JobProblem

_SIGMA_FLAGS: Final = {name: f"use_{name}_sigmas" for name in SIGMAS if name != "default"}
_DISTILLED: Final = frozenset({"LCMScheduler", "TCDScheduler"})
"""Made for distilled weights; diffusers does not list them as compatible, though they take the same configuration."""


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _parameters(scheduler_class: type[Any]) -> set[str]:
    return set(inspect.signature(scheduler_class.__init__).parameters)


def _sigmas(scheduler_class: type[Any]) -> tuple[str, ...]:
    known = _parameters(scheduler_class)
    offered = [name for name, flag in _SIGMA_FLAGS.items() if flag in known and (name != "beta" or _installed("scipy"))]
    return ("default", *offered)


def scheduler_choices(own: Any) -> tuple[SchedulerChoice, ...]:
    """Every scheduler of our table that a model whose own scheduler is `own` can take, with the sigma spacings it has here."""
    compatible = {scheduler_class.__name__ for scheduler_class in own.compatibles} | {type(own).__name__}
    if "DDIMScheduler" in compatible:
        compatible |= _DISTILLED
    choices = []
    for spec in SCHEDULERS:
        scheduler_class = getattr(diffusers, spec.class_name, None)
        if spec.class_name in compatible and scheduler_class is not None:
            missing = spec.needs if spec.needs and not _installed(spec.needs) else None
            choices.append(SchedulerChoice(spec.name, spec.label, spec.class_name, _sigmas(scheduler_class), missing))
    return tuple(choices)


def own_name(own: Any) -> str:
    """The name in our table of a model's own scheduler; `default` when the table has none that is the same."""
    for spec in SCHEDULERS:
        if spec.class_name == type(own).__name__ and all(own.config.get(key) == value for key, value in spec.config.items()):
            return spec.name
    return MODEL_DEFAULT


def build_scheduler(own: Any, choices: tuple[SchedulerChoice, ...], params: GenerationParams, seeds: list[int]) -> Any:
    """A fresh scheduler for one batch, from the model's own configuration. Raises `JobProblem` naming the field.

    `default` is the model's own, untouched. DPM++ SDE draws its noise from a Brownian tree of its own; its seeds are
    those of the pictures, where diffusers would take one from torch's global generator.
    """
    name = find_scheduler(params.scheduler)
    if name is None:
        raise JobProblem(
            f"Scheduler {safe_text(params.scheduler, limit=40)!r} is not known; "
            f"the nearest one is {nearest_scheduler(params.scheduler)!r}.",
            "scheduler",
        )
    spec = None if name == MODEL_DEFAULT else _offered(BY_NAME[name], choices, own)
    scheduler_class = type(own) if spec is None else getattr(diffusers, spec.class_name)
    overrides: dict[str, Any] = dict(spec.config) if spec else {}
    overrides |= _sigma_flags(scheduler_class, params.sigmas)
    if "noise_sampler_seed" in _parameters(scheduler_class):
        overrides["noise_sampler_seed"] = seeds[0] if len(seeds) == 1 else seeds
    try:
        scheduler = scheduler_class.from_config(own.config, **overrides)
    except (ValueError, NotImplementedError, ImportError) as error:
        raise JobProblem(
            f"Scheduler {name} cannot be built for this model: {safe_text(str(error), limit=300)}", "scheduler"
        ) from error
    _check_steps(scheduler, params.num_inference_steps)
    return scheduler


def _offered(spec: SchedulerSpec, choices: tuple[SchedulerChoice, ...], own: Any) -> SchedulerSpec:
    choice = next((choice for choice in choices if choice.name == spec.name), None)
    if choice is None:
        names = ", ".join(choice.name for choice in choices) or f"only its own, {type(own).__name__}"
        raise JobProblem(f"This model cannot take scheduler {spec.name}. It takes: {names}.", "scheduler")
    if choice.missing:
        raise JobProblem(f"Scheduler {spec.name} needs the package {choice.missing}: pip install {choice.missing}.", "scheduler")
    return spec


def _sigma_flags(scheduler_class: type[Any], sigmas: str) -> dict[str, bool]:
    if sigmas == "default":
        return {}
    offered = _sigmas(scheduler_class)
    if sigmas not in offered:
        why = " (beta needs the package scipy)" if sigmas == "beta" and not _installed("scipy") else ""
        raise JobProblem(
            f"{scheduler_class.__name__} cannot space its sigmas as {sigmas}{why}; it takes {', '.join(offered)}.", "sigmas"
        )
    known = _parameters(scheduler_class)
    return {flag: name == sigmas for name, flag in _SIGMA_FLAGS.items() if flag in known}


def _check_steps(scheduler: Any, steps: int) -> None:
    """Let the scheduler itself say whether it can take so many steps, before anything is computed."""
    trained = int(scheduler.config.get("num_train_timesteps", 1000))
    if steps > trained:
        raise JobProblem(
            f"Steps must be at most {trained}, as many as the model was trained with; it is {steps}.", "num_inference_steps"
        )
    try:
        if type(scheduler).__name__ in _DISTILLED and steps > scheduler.config.original_inference_steps:
            raise JobProblem(
                f"{type(scheduler).__name__} takes at most {scheduler.config.original_inference_steps} steps; it is {steps}.",
                "num_inference_steps",
            )
        if not scheduler.config.get("use_dynamic_shifting", False):
            scheduler.set_timesteps(steps)
        if not hasattr(scheduler, "sigmas") and int(scheduler.timesteps.max()) >= trained:
            raise ValueError(
                f"the first timestep would be {int(scheduler.timesteps.max())}, and the last one known is {trained - 1}"
            )
    except (ValueError, IndexError, RuntimeError, ZeroDivisionError) as error:
        message = f"{type(scheduler).__name__} cannot take {steps} steps: {safe_text(str(error), limit=300)}"
        raise JobProblem(message, "num_inference_steps") from error
