"""The schedulers a generation may name: one row each, with what diffusers and A1111 call them.

Which of these a *loaded model* can take is the worker's answer (`ModelLoaded.schedulers`): this table only says what
names mean, so the form, the command line and the metadata need no torch.
A1111's names follow diffusers' own table (docs/source/en/api/schedulers/overview.md).
"""

from __future__ import annotations

import difflib
from typing import Final

import msgspec

MODEL_DEFAULT: Final = "default"
SIGMAS: Final = ("default", "karras", "exponential", "beta")


class SchedulerSpec(msgspec.Struct, frozen=True):
    """A scheduler by name: the diffusers class, and the configuration that makes it this variant."""

    name: str
    label: str
    class_name: str
    a1111: str | None = None
    config: dict[str, str | bool | int | float] = {}
    needs: str | None = None
    """The package without which diffusers cannot build it."""

    @property
    def stochastic(self) -> bool:
        """Whether each step draws fresh noise from the generator."""
        return self.name in _STOCHASTIC


_STOCHASTIC: Final = frozenset({"ddpm", "euler_a", "dpm2_a", "dpmpp_2m_sde", "dpmpp_sde", "lcm", "tcd"})

SCHEDULERS: Final[tuple[SchedulerSpec, ...]] = (
    SchedulerSpec("ddim", "DDIM", "DDIMScheduler", "DDIM"),
    SchedulerSpec("ddpm", "DDPM", "DDPMScheduler", "DDPM"),
    SchedulerSpec("pndm", "PNDM (PLMS)", "PNDMScheduler", "PLMS"),
    SchedulerSpec("lms", "LMS", "LMSDiscreteScheduler", "LMS", needs="scipy"),
    SchedulerSpec("euler", "Euler", "EulerDiscreteScheduler", "Euler"),
    SchedulerSpec("euler_a", "Euler ancestral", "EulerAncestralDiscreteScheduler", "Euler a"),
    SchedulerSpec("heun", "Heun", "HeunDiscreteScheduler", "Heun"),
    SchedulerSpec("dpm2", "DPM2 (KDPM2)", "KDPM2DiscreteScheduler", "DPM2"),
    SchedulerSpec("dpm2_a", "DPM2 ancestral", "KDPM2AncestralDiscreteScheduler", "DPM2 a"),
    SchedulerSpec("dpmpp_2m", "DPM++ 2M", "DPMSolverMultistepScheduler", "DPM++ 2M", {"algorithm_type": "dpmsolver++"}),
    SchedulerSpec(
        "dpmpp_2m_sde",
        "DPM++ 2M SDE",
        "DPMSolverMultistepScheduler",
        "DPM++ 2M SDE",
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    SchedulerSpec("dpmpp_2s", "DPM++ singlestep", "DPMSolverSinglestepScheduler", "DPM++ 2S"),
    SchedulerSpec("dpmpp_sde", "DPM++ SDE", "DPMSolverSDEScheduler", "DPM++ SDE", needs="torchsde"),
    SchedulerSpec("deis", "DEIS", "DEISMultistepScheduler", "DEIS"),
    SchedulerSpec("unipc", "UniPC", "UniPCMultistepScheduler", "UniPC"),
    SchedulerSpec("edm_euler", "EDM Euler", "EDMEulerScheduler"),
    SchedulerSpec("lcm", "LCM", "LCMScheduler", "LCM"),
    SchedulerSpec("tcd", "TCD", "TCDScheduler", "TCD"),
)

BY_NAME: Final[dict[str, SchedulerSpec]] = {spec.name: spec for spec in SCHEDULERS}
_A1111_SIGMAS: Final = {"karras": "Karras", "exponential": "Exponential", "beta": "Beta"}


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum() or character == "+")


_ALIASES: Final[dict[str, str]] = {
    _key(alias): spec.name
    for spec in reversed(SCHEDULERS)
    for alias in (spec.name, spec.label, spec.class_name, spec.class_name.removesuffix("Scheduler"), spec.a1111)
    if alias
}


def find_scheduler(name: str) -> str | None:
    """The canonical name of a scheduler given in any of its spellings, `default` for the model's own, else None."""
    if _key(name) == MODEL_DEFAULT:
        return MODEL_DEFAULT
    return _ALIASES.get(_key(name))


def nearest_scheduler(name: str) -> str:
    """The known scheduler name most like `name`, for an error message."""
    close = difflib.get_close_matches(_key(name), _ALIASES, n=1, cutoff=0.0)
    return _ALIASES[close[0]] if close else SCHEDULERS[0].name


def a1111_schedule(sigmas: str) -> str | None:
    """What A1111 writes as `Schedule type` for these sigmas; None for the scheduler's own spacing."""
    return _A1111_SIGMAS.get(sigmas)
