"""Pictures of single steps by the full VAE, made when somebody asks: of any job whose trajectory is kept, also a running one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from sdtui.inspected import InspectedError
from sdtui.params import GenerationParams
from sdtui.protocol import DecodeStep, Message, StepDecoded, StepNotDecoded
from sdtui.tape import TapeError, job_directory, read_tape
from sdtui.timeline.views import decoded_of
from sdtui.trajectory import INITIAL, Trajectory, find_trajectory, tape_path
from sdtui.words import save_png
from sdtui.worker.cancellation import stoppable
from sdtui.worker.decoding import decode_latents
from sdtui.worker.errors import JobProblem, is_device_broken, is_out_of_memory, one_line
from sdtui.worker.fingerprint import weights
from sdtui.worker.models import LoadedModel, ModelRequest

ModelFor = Callable[[GenerationParams], LoadedModel]


class Decodings:
    """Answers what is asked for, in order; another thread may add to `asked` meanwhile."""

    def __init__(self, tapes: Path, asked: deque[DecodeStep], emit: Callable[[Message], None]) -> None:
        self._tapes, self._asked, self._emit = tapes, asked, emit

    def serve_all(self, model_for: ModelFor, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Answer everything that is asked; `model_for` loads a model, and may raise `JobProblem`.

        Raises `Cancelled` before the VAE's next block when `cancelled` says so; then what is not answered stays asked.
        """
        for command in tuple(self._asked):
            self._answer(command, model_for, cancelled)

    def serve_between_steps(self, model: LoadedModel) -> None:
        """In the middle of a job: answer what its own model can decode. Raises `Cancelled`; then the rest stays asked."""

        def the_jobs_own(_: GenerationParams) -> LoadedModel:
            return model

        for command in tuple(self._asked):
            trajectory = self._find(command)
            if isinstance(trajectory, str) or model.serves(ModelRequest.of(trajectory[0].facts.params)):
                self._answer(command, the_jobs_own)

    def _find(self, command: DecodeStep) -> tuple[Trajectory, int] | str:
        """The trajectory and the picture's place in it, or why there is none."""
        try:
            return find_trajectory(job_directory(self._tapes, command.job), command.batch_index, command.picture)
        except (InspectedError, TapeError) as error:
            return str(error)

    def _answer(self, command: DecodeStep, model_for: ModelFor, cancelled: Callable[[], bool] | None = None) -> None:
        found = self._find(command)
        try:
            if isinstance(found, str):
                raise JobProblem(found)
            message: Message = _decoded(command, *found, model_for, cancelled)
        except (InspectedError, JobProblem) as problem:
            message = _not_decoded(command, str(problem))
        except OSError as error:
            message = _not_decoded(command, f"The picture cannot be kept: {error.strerror or error}.")
        except Exception as error:
            if is_device_broken(error):
                raise
            why = "There is not enough memory for the full VAE" if is_out_of_memory(error) else one_line(error)
            message = _not_decoded(command, f"The step could not be decoded: {why}.")
        self._asked.remove(command)
        self._emit(message)


def _decoded(
    command: DecodeStep, trajectory: Trajectory, place: int, model_for: ModelFor, cancelled: Callable[[], bool] | None
) -> StepDecoded:
    """The step's picture on disk. Raises `InspectedError`, `JobProblem`, `OSError`, or what the libraries raise."""
    began = time.perf_counter()
    path = decoded_of(trajectory, command.step_index, place)
    made = not path.is_file()
    if made:
        values = _latents(trajectory, command.step_index)[place]
        model = model_for(trajectory.facts.params)
        _check_weights(trajectory, model)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # a job's pipeline is stoppable already, by its own token
        with stoppable(model.pipe, cancelled) if cancelled is not None else nullcontext():
            picture = _picture(model, torch.from_numpy(values.copy())[None])
        save_png(picture, path)
    return StepDecoded(
        job=command.job,
        batch_index=command.batch_index,
        step_index=command.step_index,
        picture=command.picture,
        path=str(path),
        elapsed_s=time.perf_counter() - began if made else 0.0,
    )


def _latents(trajectory: Trajectory, step: int) -> Any:
    """The x0 prediction; of the last step what is really decoded, and of the beginning what there is."""
    if step == INITIAL or (trajectory.complete and step == len(trajectory.steps) - 1):
        return trajectory.latents(step)
    return trajectory.denoised(step)


def _check_weights(trajectory: Trajectory, model: LoadedModel) -> None:
    """Another model's VAE would make another picture of them, and a wrong one. Raises `JobProblem`."""
    try:
        known, _ = read_tape(tape_path(trajectory.path))
    except (OSError, TapeError):
        return  # the latents are there all the same
    if known.get("weights") != weights(Path(model.info.path)):
        message = f"The weights of {model.info.model} are not those that made this job's steps; its VAE would show them wrongly."
        raise JobProblem(message, "model")


@torch.no_grad()
def _picture(model: LoadedModel, latents: torch.Tensor) -> Any:
    pipe = model.pipe
    if getattr(pipe, "vae", None) is None:
        raise JobProblem(f"{type(pipe).__name__} has no VAE that decodes latents.")
    pixels, _ = decode_latents(pipe, latents.to(model.hardware.device, pipe.vae.dtype))
    return pipe.image_processor.postprocess(pixels, output_type="pil")[0]


def _not_decoded(command: DecodeStep, message: str) -> StepNotDecoded:
    return StepNotDecoded(
        job=command.job,
        batch_index=command.batch_index,
        step_index=command.step_index,
        picture=command.picture,
        message=message,
    )
