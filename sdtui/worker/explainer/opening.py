"""From the parameters of a generation to a session: the model as the worker loads it, and the function's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import torch

from sdtui.initial_image import InitialImageCancelled, InitialImageError, take_in
from sdtui.params import GenerationParams, steps_that_run
from sdtui.protocol import Message
from sdtui.scratch.image_to_image import image_to_image
from sdtui.scratch.text_to_image import text_to_image
from sdtui.settings import initial_dir
from sdtui.worker.cancellation import CancelToken
from sdtui.worker.errors import Cancelled, JobProblem, ModelProblem
from sdtui.worker.explainer.fitness import check_folder, check_pipeline
from sdtui.worker.explainer.fitness import check_params as check_function_params
from sdtui.worker.explainer.pictures import Pictures
from sdtui.worker.explainer.session import Session
from sdtui.worker.generate import prepared
from sdtui.worker.models import LoadedModel, ModelRequest, find_local_problem, find_model, load_model
from sdtui.worker.samplers import build_scheduler

Emit = Callable[[Message], None]


class Opened(NamedTuple):
    """A session that has not started, and what it is of."""

    session: Session
    params: GenerationParams
    """With size, seed and scheduler filled in."""
    image_digest: str
    """A hash of the initial image's file; empty where there is none."""


def check(params: GenerationParams, *, allow_pickle: bool) -> None:
    """What is wrong with a request that shows before a model is loaded for it. Raises `JobProblem`."""
    check_function_params(params)
    find_local_problem(ModelRequest.of(params), allow_pickle=allow_pickle)


def load(params: GenerationParams, *, offline: bool, allow_pickle: bool, emit: Emit, token: CancelToken) -> LoadedModel:
    """The model, which is of the right family. Raises `JobProblem`, `Cancelled`."""
    request = ModelRequest.of(params)
    check_folder(find_model(request, offline=offline, allow_pickle=allow_pickle, emit=emit, cancelled=token))
    model = load_model(request, offline=offline, allow_pickle=allow_pickle, emit=emit, cancelled=token)
    if not model.simple:
        raise ModelProblem(f"Explain mode cannot encode prompts for a {type(model.pipe).__name__}.")
    check_pipeline(model.pipe)
    return model


def open_session(model: LoadedModel, given: GenerationParams, token: CancelToken, *, allow_private: bool = False) -> Opened:
    """A session of a loaded model. Raises `JobProblem`, `Cancelled`.

    `allow_private`: an initial image may come from a private address.
    """
    taken = _taken_in(given, token, allow_private=allow_private)
    (params, initial), pipe = prepared(model, taken), model.pipe
    image = initial.image if initial is not None else None
    seed = params.seed or 0
    pipe.scheduler = build_scheduler(model.own_scheduler, model.info.schedulers, params, [seed])
    function: Callable[..., Any] = text_to_image if image is None else image_to_image
    pictures = Pictures(function.__name__, pipe.tokenizer, model.previews.linear)
    arguments = {
        "prompt": params.prompt,
        "negative_prompt": params.negative_prompt,
        "num_inference_steps": params.num_inference_steps,
        "guidance_scale": params.guidance_scale,
        "generator": torch.Generator("cpu").manual_seed(seed),
        **({"height": params.height, "width": params.width} if image is None else {"image": image, "strength": params.strength}),
    }
    total_steps = _total_steps(pipe.scheduler, params)
    session = Session(function, pipe, arguments, total_steps=total_steps, pictures=pictures, token=token)
    return Opened(session, params, initial.digest if initial is not None else "")


def _total_steps(scheduler: Any, params: GenerationParams) -> int:
    """How often the loop goes round: once for each timestep, of which schedulers of second order have more than steps."""
    steps, timesteps = params.num_inference_steps, len(scheduler.timesteps)
    if params.init_image is None:
        return timesteps
    return timesteps - (steps - steps_that_run(steps, params.strength)) * int(scheduler.order)


def _taken_in(given: GenerationParams, token: CancelToken, *, allow_private: bool) -> GenerationParams:
    """The same with a copy of the initial image in the store, as a job has it; an address is fetched."""
    if given.init_image is None:
        return given
    try:
        kept = take_in(given.init_image, initial_dir(), allow_private=allow_private, cancelled=token)
    except InitialImageCancelled as error:
        raise Cancelled from error
    except InitialImageError as error:
        raise JobProblem(str(error), "init_image") from error
    return msgspec.structs.replace(given, init_image=str(kept.path))
