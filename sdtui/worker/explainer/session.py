"""One explained call of a sampling function: a pipeline and its arguments, and going on in it line by line."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from PIL import Image

from sdtui.params import check_value
from sdtui.protocol import AdvanceTo, LineRan, MadeTensor, TensorPicture
from sdtui.worker.cancellation import CancelToken, stoppable
from sdtui.worker.errors import Cancelled
from sdtui.worker.explainer.listing import Listing
from sdtui.worker.explainer.made import Variables, is_tensor, made_tensor, told
from sdtui.worker.explainer.pictures import Pictures, result_picture
from sdtui.worker.explainer.problem import ExplainingProblem, problem_of
from sdtui.worker.explainer.stepper import Stepper

REPLY_S: Final = 0.3
"""After so long a reply goes out: a client can stop asking three times a second."""
REPLY_BYTES: Final = 1 << 20
_PIPE: Final = "pipe"
_GUIDANCE: Final = "guidance_scale"


@dataclass
class Ran:
    """What one `advance` did."""

    lines: list[LineRan]
    stopped: bool
    finished: bool
    picture: TensorPicture | None


@dataclass
class _Goal:
    """Where an `advance` is to stop, and what it has told so far."""

    to: AdvanceTo
    since: int
    """The line that it began at."""
    with_pictures: bool
    began: float
    size_bytes: int = 0
    reached: bool = False


class Session:
    """A call of `function(pipe, **arguments)` that stands before one of its lines."""

    def __init__(
        self,
        function: Callable[..., Any],
        pipe: Any,
        arguments: dict[str, Any],
        *,
        total_steps: int,
        pictures: Pictures,
        token: CancelToken,
    ) -> None:
        """Nothing runs before `start`."""
        self.listing = Listing.of(function)
        self.given = {name: told(value) for name, value in arguments.items()}
        self.total_steps = total_steps
        self.result: Image.Image | None = None
        self.changes: list[str] = []
        """What was changed on the way, in words."""
        self._pipe, self._pictures, self._token = pipe, pictures, token
        self._device = pipe.unet.device
        self._variables = Variables()
        self._step_index: int | None = None
        self._line: int | None = None
        self._resumed_at = 0.0
        self._ran: list[LineRan] = []
        self._goal = _Goal("line", 0, False, 0.0)
        self._problem: ExplainingProblem | None = None
        self._told_picture = False

        def call() -> None:
            with stoppable(pipe, token):
                function(pipe, **arguments)

        self._stepper = Stepper(call, self.listing.code, self.listing.statement_at, self._arrive)

    def start(self) -> int:
        """Go to the first line; its number. Raises `ExplainingProblem`, `Cancelled`."""
        self._stepper.start()
        self._raise_what_ended_it()
        return self._stepper.line or self.listing.first_line

    def advance(self, to: AdvanceTo, guidance_scale: float | None, *, pictures: bool = True) -> Ran:
        """Run on; see `Advance`. Raises `ExplainingProblem`, `Cancelled`."""
        changes = self._checked(guidance_scale)
        self._raise_what_ended_it()
        if self._stepper.is_over:
            return Ran([], stopped=True, finished=True, picture=None)
        self._goal = _Goal(to, self._stepper.line or 0, pictures, time.perf_counter())
        self._ran = []
        if changes:
            self._note_change(changes[_GUIDANCE])
        self._resumed_at = time.perf_counter()
        self._stepper.go_on(changes)
        if self._stepper.error is not None:
            self._end_with(self._stepper.error)
            if not self._ran:
                self._raise_what_ended_it()
            return Ran(self._ran, stopped=False, finished=False, picture=None)
        finished = self._stepper.is_over
        picture = result_picture(self.result) if finished and self.result is not None and pictures else None
        return Ran(self._ran, self._goal.reached or finished, finished, picture)

    def drop(self) -> None:
        """End the call where it stands, and let go of what it made; the picture, where there is one, stays."""
        self._stepper.drop()
        self._variables.forget()

    # --- changing a variable ------------------------------------------------------------------------------------------

    def _checked(self, guidance_scale: float | None) -> dict[str, Any]:
        if guidance_scale is None:
            return {}
        if message := check_value(_GUIDANCE, guidance_scale):
            raise ExplainingProblem(message, field=_GUIDANCE)
        if self._variables.get("guided") is False:
            raise ExplainingProblem(
                "Guidance cannot be changed any more: this run began with 1 or less, so the U-Net is only asked with the prompt.",
                field=_GUIDANCE,
            )
        return {_GUIDANCE: guidance_scale} if guidance_scale != self._variables.get(_GUIDANCE) else {}

    def _note_change(self, guidance_scale: float) -> None:
        self._variables.change(_GUIDANCE, guidance_scale)
        step = self._step_index
        when = "before the first step" if step is None else f"in step {step + 1}"
        self.changes.append(f"guidance changed to {guidance_scale:g} {when}")

    # --- in the function's thread -------------------------------------------------------------------------------------

    def _arrive(self, variables: dict[str, Any], line: int | None, returned: Any) -> bool:
        """The function stands before a line, or has returned: tell of the line before, and say whether to stop."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elapsed_s = time.perf_counter() - self._resumed_at
        changed = [entry for entry in self._variables.see(variables) if entry[0] != _PIPE]
        before, self._line = self._line, line
        if before is None:
            return True
        if line is None and isinstance(returned, Image.Image):
            self.result = returned
        self._tell(before, line, elapsed_s, changed, returned)
        stop = self._is_reached(line) or self._is_enough()
        self._resumed_at = time.perf_counter()
        return stop

    def _tell(self, line: int, after: int | None, elapsed_s: float, changed: list[Any], returned: Any) -> None:
        step_index = self._step_of(line, after)
        draw = self._goal.with_pictures
        changed = sorted(changed, key=lambda entry: self.listing.place_in(line, entry[0]))
        tensors = [entry for entry in changed if is_tensor(entry[2])]
        made = tuple(made_tensor(name, how, value, self._pictures, draw=draw) for name, how, value in tensors)
        values = {name: told(value) for name, _, value in changed if not is_tensor(value)}
        if after is None:
            values["return"] = told(returned)
        timestep = self._variables.get("t") if step_index is not None else None
        self._ran.append(
            LineRan(
                line=line,
                next_line=after,
                step_index=step_index,
                total_steps=self.total_steps if step_index is not None else None,
                timestep=float(timestep) if timestep is not None else None,
                elapsed_s=elapsed_s,
                made=made,
                values=values,
                finished=after is None,
            )
        )
        self._goal.size_bytes += sum(map(_size_bytes, made))

    def _step_of(self, line: int, after: int | None) -> int | None:
        """Which iteration of the loop a line was in; the loop's head begins the next one, or finds nothing left."""
        loop = self.listing.loop
        if line not in loop:
            return None
        if line == loop.start:
            begins = after is not None and after in loop and after != loop.start
            if not begins:
                return None
            self._step_index = 0 if self._step_index is None else self._step_index + 1
        return self._step_index

    def _is_reached(self, line: int | None) -> bool:
        goal, listing = self._goal, self.listing
        if goal.to == "line" or line is None:
            goal.reached = True
        elif goal.to == "stage":
            done = 0 if self._step_index is None else self._step_index + 1
            another_round = line == listing.loop.start and 0 < done < self.total_steps
            goal.reached = another_round or listing.stage_of(line) != listing.stage_of(goal.since)
        return goal.reached

    def _is_enough(self) -> bool:
        return time.perf_counter() - self._goal.began >= REPLY_S or self._goal.size_bytes >= REPLY_BYTES

    # --- how it ended -------------------------------------------------------------------------------------------------

    def _end_with(self, error: BaseException) -> None:
        if not isinstance(error, Cancelled) and self._problem is None:
            self._problem = problem_of(error, self._device, self._stepper.line)
            error.__traceback__ = error.__context__ = None  # they hold the function's variables
            self._variables.forget()

    def _raise_what_ended_it(self) -> None:
        error = self._stepper.error
        if isinstance(error, Cancelled):
            raise error
        if error is not None:
            self._end_with(error)
        if self._problem is not None:
            raise self._problem


def _size_bytes(made: MadeTensor) -> int:
    return 500 + (len(made.picture.rgb) if made.picture is not None else 0)
