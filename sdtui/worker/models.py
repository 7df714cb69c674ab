"""Finding, loading and holding a model: any diffusers text-to-image folder or hub id."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers import DiffusionPipeline

from sdtui.checkpoint import MODEL_INDEX, CheckpointError, check_model_folder, components, resolve_model, weight_bytes
from sdtui.params import GenerationParams
from sdtui.protocol import LoadModel, Message, ModelInfo
from sdtui.text import safe_text
from sdtui.worker import hub
from sdtui.worker.cancellation import raise_if
from sdtui.worker.conditioning import encodes_simply
from sdtui.worker.describe import describe
from sdtui.worker.errors import JobProblem, ModelProblem, is_out_of_memory, one_line
from sdtui.worker.hardware import Hardware, choose_hardware
from sdtui.worker.interrupt import Interruptible
from sdtui.worker.linear import LinearMap, load_or_fit
from sdtui.worker.memory_facts import too_large
from sdtui.worker.previews import PreviewKit
from sdtui.worker.quiet import quieten_pipeline

Emit = Callable[[Message], None]
_LIBRARIES: Final = frozenset({"diffusers", "transformers"})
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelRequest:
    """Which model, in which form; two equal requests get the same loaded model."""

    model: str
    revision: str | None = None
    variant: str | None = None
    dtype: str = "auto"
    device: str = "auto"

    @classmethod
    def of(cls, source: GenerationParams | LoadModel) -> ModelRequest:
        """The part of a job or of a command that says which model."""
        return cls(source.model, source.revision, source.variant, source.dtype, source.device)


@dataclass
class LoadedModel:
    """A pipeline in memory, kept between jobs, and what is known of it."""

    request: ModelRequest
    pipe: Any
    info: ModelInfo
    hardware: Hardware
    own_scheduler: Any
    """As the model brings it; every job gets a fresh one made from its configuration."""
    previews: PreviewKit
    simple: bool
    """Whether prompts are encoded and latents decoded by us, as in the SD 1.x and 2.x pipelines."""
    allow_pickle: bool = False
    safety: dict[str, Any] = field(default_factory=dict)
    """Safety checker and feature extractor, once a job asked for them."""
    image_pipe: Any | None = None
    """The sibling of `pipe` for image to image, made of the same components, once a job asked for it."""
    spoiled: bool = False
    """A job could not leave it as it was: it must be loaded anew."""

    def serves(self, request: ModelRequest) -> bool:
        """Whether this is the model that a request means; `auto` and what it became are the same."""
        mine = self.request
        return (
            not self.spoiled
            and (request.model, request.revision, request.variant) == (mine.model, mine.revision, mine.variant)
            and request.dtype in (mine.dtype, self.info.dtype)
            and request.device in (mine.device, self.info.device)
        )


def load_model(
    request: ModelRequest,
    *,
    offline: bool = False,
    allow_pickle: bool = False,
    emit: Emit = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> LoadedModel:
    """Find, fetch, check and load a model, and fit its preview factors.

    `allow_pickle`: where there is no safetensors file, a pickle is read, by an unpickler that knows tensors alone.
    Emits `DownloadProgress`. Raises `ModelProblem`, `JobProblem` (device, dtype) or `Cancelled`.
    """
    path = find_model(request, offline=offline, allow_pickle=allow_pickle, emit=emit, cancelled=cancelled)
    raise_if(cancelled)
    hardware = choose_hardware(request.device, request.dtype, weight_bytes(path))
    with Interruptible(cancelled):
        pipe = _load_pipeline(path, request, hardware, allow_pickle=allow_pickle)
        quieten_pipeline(pipe)
        info = describe(request.model, path, pipe, hardware)
        simple = encodes_simply(pipe)
        previews = _preview_kit(pipe, hardware.device, simple=simple)
    raise_if(cancelled)
    return LoadedModel(request, pipe, info, hardware, pipe.scheduler, previews, simple, allow_pickle)


def find_model(request: ModelRequest, *, offline: bool, allow_pickle: bool, emit: Emit, cancelled: Callable[[], bool]) -> Path:
    """The folder a request means, checked without reading a tensor. Raises `ModelProblem`."""
    try:
        found = resolve_model(request.model)
        if isinstance(found, str):
            found = hub.fetch(
                found,
                request.revision,
                request.variant,
                offline=offline,
                allow_pickle=allow_pickle,
                emit=emit,
                cancelled=cancelled,
            )
        _check(found, allow_pickle=allow_pickle)
    except CheckpointError as error:
        raise ModelProblem(str(error)) from error
    return found


def find_local_problem(request: ModelRequest, *, allow_pickle: bool = False) -> None:
    """What is wrong with a request that shows before anything is unloaded for it. Raises `JobProblem`."""
    choose_hardware(request.device, request.dtype)
    try:
        found = resolve_model(request.model)
        if isinstance(found, Path):
            _check(found, allow_pickle=allow_pickle)
    except CheckpointError as error:
        raise ModelProblem(str(error)) from error


def _check(path: Path, *, allow_pickle: bool) -> None:
    """Raises `CheckpointError`, also for a component that is to come from any other library: importing one runs its code."""
    check_model_folder(path, allow_pickle=allow_pickle)
    for component, (library, class_name) in components(path).items():
        if library not in _LIBRARIES and not hasattr(diffusers.pipelines, library):
            raise CheckpointError(
                f"{path / MODEL_INDEX} takes its {component} from {safe_text(f'{library}.{class_name}', limit=80)}, "
                "which is code that sdtui does not run: components must come from diffusers or transformers."
            )


def _load_pipeline(path: Path, request: ModelRequest, hardware: Hardware, *, allow_pickle: bool) -> Any:
    options: dict[str, Any] = {
        "dtype": hardware.dtype,
        "use_safetensors": None if allow_pickle else True,  # None: a pickle where there is no safetensors file
        "trust_remote_code": False,
        "local_files_only": True,
        **_left_out(path),
    }
    try:
        pipe = _from_pretrained(path, request.variant, options)
        return pipe.to(hardware.device)
    except ModelProblem:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            pipe = None  # what of it is on the device is given back before that is measured
            raise too_large(request.model, path, hardware, error) from error
        raise ModelProblem(f"Model {safe_text(request.model, limit=120)} could not be loaded: {one_line(error)}") from error


def _from_pretrained(path: Path, variant: str | None, options: dict[str, Any]) -> Any:
    """Load, with the variant where there is one; diffusers itself does not fall back."""
    if variant is not None and any(path.glob(f"*/*.{variant}*.safetensors")):
        return DiffusionPipeline.from_pretrained(path, variant=variant, **options)
    if variant is not None:
        _log.warning("%s has no %s weights; the plain ones are taken.", path, variant)
    return DiffusionPipeline.from_pretrained(path, **options)


def _left_out(path: Path) -> dict[str, Any]:
    """The components that are not loaded: the safety checker and its feature extractor come when a job asks for them."""
    name = DiffusionPipeline.load_config(path).get("_class_name")
    pipeline_class = getattr(diffusers, str(name), None)
    if pipeline_class is None:
        known = f"diffusers {diffusers.__version__} does not know it"
        raise ModelProblem(f"{path / MODEL_INDEX} asks for the pipeline {safe_text(str(name), limit=80)}; {known}.")
    if "prompt" not in inspect.signature(pipeline_class.__call__).parameters:
        raise ModelProblem(f"{safe_text(str(name), limit=80)} makes no pictures from a prompt; name a text-to-image model.")
    taken = inspect.signature(pipeline_class.__init__).parameters
    left_out = {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None}
    return {key: value for key, value in left_out.items() if key in taken and "safety_checker" in taken}


def _preview_kit(pipe: Any, device: torch.device, *, simple: bool) -> PreviewKit:
    vae = getattr(pipe, "vae", None)
    if vae is None:
        return PreviewKit(None, None)
    factors = load_or_fit(vae)
    if factors is not None:
        _log.info("linear preview factors explain %.1f %% of the test pictures", 100 * factors.r2)
    return PreviewKit(vae if simple else None, LinearMap.of(factors, device) if factors else None)


def safety_checker(model: LoadedModel, *, offline: bool) -> dict[str, Any]:
    """The model's safety checker and feature extractor, loaded at the first call. Raises `JobProblem` where it brings none."""
    if not model.safety:
        model.safety = _load_safety_checker(model, offline=offline)
    return model.safety


def _load_safety_checker(model: LoadedModel, *, offline: bool) -> dict[str, Any]:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    path = Path(model.info.path)
    if isinstance(resolve_model(model.request.model), str) and not (path / "safety_checker").is_dir():
        request = model.request
        path = hub.fetch_component(
            request.model, request.revision, "safety_checker", offline=offline, allow_pickle=model.allow_pickle
        )
    if not model.simple or not (path / "safety_checker").is_dir():
        raise JobProblem("This model brings no safety checker; turn the option off.", "safety_checker")
    try:
        checker = StableDiffusionSafetyChecker.from_pretrained(
            path / "safety_checker",
            dtype=model.hardware.dtype,
            use_safetensors=None if model.allow_pickle else True,
            weights_only=True,
            local_files_only=True,
        )
        extractor_path = path / "feature_extractor"
        extractor = CLIPImageProcessor.from_pretrained(extractor_path) if extractor_path.is_dir() else CLIPImageProcessor()
    except Exception as error:
        raise JobProblem(f"The model's safety checker could not be loaded: {one_line(error)}", "safety_checker") from error
    return {"safety_checker": checker.to(model.hardware.device), "feature_extractor": extractor}
