"""The figures from which `memory_advice` speaks: of the device, of the model, and of what was refused.

A job's activations are estimated as the inspector does it, by a run without numbers in this process, which takes about a
second and a few megabytes; so it is done only when there is something to explain.
"""

from __future__ import annotations

import importlib.util
import logging
import traceback
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch

from sdtui.checkpoint import CheckpointError, read_json
from sdtui.params import GenerationParams
from sdtui.protocol import DryRunDone, ModelInfo, RunDry
from sdtui.text import safe_text
from sdtui.worker import memory
from sdtui.worker.errors import ModelProblem, Shortage
from sdtui.worker.hardware import LARGE_MODEL_BYTES, Hardware, choose_hardware, has_bfloat16
from sdtui.worker.memory_advice import Advice, job_advice, loading_advice, shortage_text
from sdtui.worker.memory_fit import ITEM_BYTES, Need, Place, Refusal, Work

_DENOISERS: Final = ("unet", "transformer")
_HALVINGS: Final = 4
"""A U-Net makes its latents smaller three times."""
_ROUNDED: Final = 0.005
"""An allocator says two decimals."""
_log: Final = logging.getLogger(__name__)


# --- the device -----------------------------------------------------------------------------------------------------------


def place_of(device: torch.device, shortage: Shortage, model_bytes: int, *, loaded: bool = True) -> Place:
    """The device's memory, once what a try held is given back; `model_bytes` are those of the weights, `loaded` or not."""
    total, others, available = shortage.total_bytes, shortage.others_bytes, memory.available_bytes(device)
    if device.type == "cpu":
        half = "bfloat16" if has_bfloat16() and model_bytes >= LARGE_MODEL_BYTES else ""  # its kernels take memory, too
        total, others = memory.total_bytes(device), memory.others_bytes(device)
        return Place("cpu", "", total, available + (model_bytes if loaded else 0), others, half)
    return Place(
        device=str(device),
        name=safe_text(torch.cuda.get_device_name(device), limit=80),
        total_bytes=total or memory.total_bytes(device),
        room_bytes=available + torch.cuda.memory_reserved(device),
        others_bytes=others or memory.others_bytes(device),
        half_dtype="float16",
        offloads=importlib.util.find_spec("accelerate") is not None,
        ram_bytes=memory.available_bytes(torch.device("cpu")),
    )


# --- the job --------------------------------------------------------------------------------------------------------------


def work_of(pipe: Any, info: ModelInfo, params: GenerationParams) -> Work:
    """What decides a job's memory; sizes that are left open are the model's."""
    own = getattr(getattr(pipe, "unet", None), "config", {})
    takes_guidance = own.get("time_cond_proj_dim") is not None or hasattr(pipe, "_unpack_latents")  # LCM, Flux: as a number
    return Work(
        width_px=params.width or info.default_width_px,
        height_px=params.height or info.default_height_px,
        batch_size=params.batch_size,
        guided=info.guides and params.guidance_scale > 1 and not takes_guidance,
        dtype=info.dtype,
        multiple_px=info.size_multiple_px,
    )


def refusal_of(shortage: Shortage, stage: str, pictures: int, remedies: tuple[str, ...] = ()) -> Refusal:
    """What the allocator said, in the job's terms."""
    return Refusal(stage, shortage.needed_bytes, shortage.free_bytes, shortage.cached_bytes, 0, pictures, remedies)


def scores_bytes(pipe: Any, work: Work, refusal: Refusal) -> int:
    """What attention's scores and their softmax take, where the refused request is one of them by its size; else 0.

    A kernel that writes no scores down asks for none, so this is met on old devices alone. The scores of a layer are (B, heads,
    n, n) numbers, with n the latents' pixels; with guidance B is doubled.
    """
    network = next((part for name in _DENOISERS if (part := getattr(pipe, name, None)) is not None), None)
    if network is None or refusal.stage != "denoise" or not refusal.needed_bytes:
        return 0
    latents = work.pixels // int(getattr(pipe, "vae_scale_factor", 8)) ** 2
    heads = {int(count) for module in network.modules() if isinstance(count := getattr(module, "heads", None), int)}
    prompts = refusal.pictures * (2 if work.guided else 1)
    for count in heads:
        for halvings in range(_HALVINGS):
            scores = prompts * count * (latents // 4**halvings) ** 2 * ITEM_BYTES[work.dtype]
            if abs(scores - refusal.needed_bytes) <= _ROUNDED * scores:
                return 2 * refusal.needed_bytes
    return 0


# --- the model ------------------------------------------------------------------------------------------------------------


def need_of(pipe: Any, path: str, work: Work) -> Need:
    """What a job with a loaded model needs: its own weights, and what a run without numbers finds of activations."""
    return Need(_weights(pipe), _peaks(_run_dry(path, work.dtype, work)), _tile_px(Path(path)))


def weight_bytes(pipe: Any) -> int:
    """What the networks of a loaded model take."""
    return sum(_weights(pipe).values())


def _weights(pipe: Any) -> dict[str, int]:
    """Of the networks that work in each stage."""
    weights: dict[str, int] = defaultdict(int)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            weights[_stage_of(name)] += sum(tensor.nbytes for tensor in (*part.parameters(), *part.buffers()))
    return dict(weights)


def _run_dry(path: str, dtype: str, work: Work | None) -> DryRunDone | None:
    """The inspector's dry run, at the model's own size without `work`; None where it cannot be done."""
    from sdtui.worker.inspector.dry_run import run_dry
    from sdtui.worker.inspector.opened import open_model
    from sdtui.worker.inspector.problem import InspectionProblem

    sizes: dict[str, Any] = {}
    if work is not None:
        sizes = {"width_px": work.width_px, "height_px": work.height_px, "batch_size": work.batch_size, "guidance": work.guided}
    try:
        return run_dry(open_model(path), RunDry(request=0, model=path, dtype=cast(Any, dtype), **sizes))
    except InspectionProblem as problem:
        _log.info("the memory of %s is not estimated: %s", path, problem)
    except Exception:  # what is to be explained must not be hidden by the explanation
        _log.exception("the memory of %s could not be estimated", path)
    return None


def _stage_of(component: str) -> str:
    if component in _DENOISERS:
        return "denoise"
    return "decode" if component == "vae" else "embeddings"


def _peaks(done: DryRunDone | None) -> Mapping[str, int]:
    peaks: dict[str, int] = {}
    for stage in done.stages if done is not None else ():
        name = _stage_of(stage.component)
        peaks[name] = max(peaks.get(name, 0), stage.peak_bytes)
    return peaks


def _tile_px(path: Path) -> int:
    """The side of a tile, which is the size that the VAE was made for; 0 where it is not said."""
    try:
        size = read_json(path / "vae" / "config.json").get("sample_size")
    except CheckpointError:
        return 0
    return size if isinstance(size, int) else 0


# --- what to say ----------------------------------------------------------------------------------------------------------


def explain_job(error: Exception, pipe: Any, info: ModelInfo, device: torch.device, params: GenerationParams) -> Advice:
    """What to say of a job that met a shortage for which there is no remedy. Lets go of what the failed calls held."""
    traceback.clear_frames(error.__traceback__)
    memory.free_memory()
    shortage, work = Shortage.of(error), work_of(pipe, info, params)
    need = need_of(pipe, info.path, work)
    return job_advice(place_of(device, shortage, need.weight_bytes), work, need, refusal_of(shortage, "", work.batch_size))


def explain_without_model(error: Exception, params: GenerationParams) -> Advice:
    """What to say of a shortage between a model's loading and its first job."""
    traceback.clear_frames(error.__traceback__)
    memory.free_memory()
    shortage, hardware = Shortage.of(error), choose_hardware(params.device, params.dtype)
    what = shortage_text(place_of(hardware.device, shortage, 0, loaded=False), refusal_of(shortage, "load", 1))
    return Advice(f"{what} Close other programs, or use a smaller model or dtype (--model, --dtype).", "model")


def too_large(model: str, path: Path, hardware: Hardware, error: Exception) -> ModelProblem:
    """What to say of a model that could not be loaded for want of memory. Lets go of what the failed calls held."""
    traceback.clear_frames(error.__traceback__)
    memory.free_memory()
    shortage, dtype = Shortage.of(error), hardware.dtype_name
    done = _run_dry(str(path), dtype, None)
    weights: dict[str, int] = defaultdict(int)
    for stage in done.stages if done is not None else ():
        weights[_stage_of(stage.component)] += stage.weight_bytes
    width, height = (done.width_px, done.height_px) if done is not None else (0, 0)
    work = Work(width, height, 1, guided=True, dtype=dtype)
    need = Need(dict(weights), _peaks(done), _tile_px(path))
    place = place_of(hardware.device, shortage, need.weight_bytes, loaded=False)
    advice = loading_advice(safe_text(model, limit=120), place, work, need, refusal_of(shortage, "load", 1))
    return ModelProblem(advice.message, advice.field or "model")
