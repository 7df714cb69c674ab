"""What the denoiser said, read from a tape without torch: step by step, the prompt's guidance applied or shown.

numpy comes with this module: import it late.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from sdtui.inspected import InspectedError
from sdtui.tape import Call, TapeError, read_at, read_tape
from sdtui.tensors import Map, first_tensor
from sdtui.text import safe_text

NO_GUIDANCE: Final = "This job has no guidance: the network was asked with the prompt only."


class Answers:
    """The answers on one tape. Read by one thread at a time."""

    def __init__(self, tape: Path) -> None:
        """Raises `InspectedError`."""
        self._path, self._name = tape, safe_text(str(tape), limit=300)
        self._read()

    def _read(self) -> None:
        try:
            self.fingerprint, calls = read_tape(self._path)
            self.pictures = len(self.fingerprint["seeds"])
        except FileNotFoundError as error:
            message = f"The steps of this job are not recorded, or were removed: {self._name} is not there."
            raise InspectedError(message) from error
        except OSError as error:
            raise InspectedError(f"{self._name} cannot be read: {error.strerror}.") from error
        except (TapeError, KeyError, TypeError) as error:
            raise self._unusable(error) from error
        self._steps = _by_step(calls)

    def _unusable(self, error: Exception) -> InspectedError:
        return InspectedError(f"{self._name} cannot be used: {safe_text(str(error), limit=200)}.")

    def __len__(self) -> int:
        return len(self._steps)

    def refresh(self) -> None:
        """Read what was recorded since. Raises `InspectedError`."""
        self._read()

    def of_step(self, step: int) -> list[Map]:
        """The answers of one call of `scheduler.step`, one or two, as the network gave them. Raises `InspectedError`."""
        if not 0 <= step < len(self._steps):
            raise InspectedError(f"{self._name} holds {len(self._steps)} steps; step {step} is not among them.")
        try:
            with self._path.open("rb") as file:
                return [first_tensor(read_at(file.fileno(), call.length, call.offset)) for call in self._steps[step]]
        except OSError as error:
            raise InspectedError(f"{self._name} cannot be read: {error.strerror}.") from error
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise self._unusable(error) from error

    def guidance(self, step: int) -> Map:
        """(B, h, w): how far the prompt moves the answer at each latent pixel, a norm over channels. Raises `InspectedError`."""
        one, other = self._both(step)
        norm: Map = np.sqrt(np.square(other - one).sum(axis=1))
        return norm

    def guided(self, step: int, guidance_scale: float) -> Map:
        """(B, C, h, w): what the scheduler was given, Imagen's equation 2 (Saharia et al. 2022). Raises `InspectedError`."""
        answers = self.of_step(step)
        if len(answers) == 1 and len(answers[0]) == self.pictures:
            return answers[0]
        if len(answers) != 1 or answers[0].ndim < 2:
            raise InspectedError("This pipeline asks its network twice a step, and how it mixes the answers is not recorded.")
        uncond, text = self._both(step)
        return uncond + np.float32(guidance_scale) * (text - uncond)

    def _both(self, step: int) -> tuple[Map, Map]:
        """Without and with the prompt; of two calls the order is the pipeline's own, which does not matter to a norm."""
        answers = self.of_step(step)
        if any(answer.ndim != 4 for answer in answers):
            raise InspectedError("The network's answers are no pictures of channels, so that there is no map of the guidance.")
        if len(answers) == 1 and len(answers[0]) == 2 * self.pictures:
            return answers[0][: self.pictures], answers[0][self.pictures :]
        if len(answers) == 2 and len(answers[0]) == len(answers[1]) == self.pictures:
            return answers[0], answers[1]
        raise InspectedError(NO_GUIDANCE)


def guidance_maps(tape: Path) -> list[Map]:
    """Of every step (B, h, w), in their order; see `Answers.guidance`. Raises `InspectedError`, also where there are no steps."""
    answers = Answers(tape)
    if not len(answers):
        raise InspectedError(f"{safe_text(str(tape), limit=300)} holds no steps.")
    return [answers.guidance(step) for step in range(len(answers))]


def _by_step(calls: Sequence[Call]) -> list[list[Call]]:
    steps: dict[int, list[Call]] = {}
    for call in calls:
        steps.setdefault(call.step_index, []).append(call)
    return [steps[index] for index in sorted(steps)]
