"""All that decides a batch's bits, as the first record of its tape: two runs with equal fingerprints go on from each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import diffusers
import msgspec
import torch
import transformers

from sdtui.params import GenerationParams
from sdtui.tape import FORMAT
from sdtui.worker.models import LoadedModel

_WEIGHTS: Final = (".safetensors", ".bin")
_ELSEWHERE: Final = frozenset({"batch_count", "safety_checker", "seed", "model", "device", "dtype", "init_image"})
"""Parameters that change nothing in a batch's steps, or that the fingerprint has in a more exact form."""
_OF_THE_IMAGE: Final = frozenset({"strength", "resize"})


def fingerprint(
    model: LoadedModel, params: GenerationParams, seeds: list[int], scheduler: Any, image_digest: str = ""
) -> dict[str, Any]:
    """Values of JSON by name; the initial image is named by a hash of its bytes.

    The memory remedies are in it as far as they change steps: a smaller batch has fewer seeds.
    """
    info = model.info
    return {
        "format": FORMAT,
        "params": _params(params),
        "seeds": seeds,
        "model": info.model,
        "weights": weights(Path(info.path)),
        "pipeline": info.pipeline_class,
        "scheduler": type(scheduler).__name__,
        "scheduler_config": {name: _plain(value) for name, value in scheduler.config.items() if not name.startswith("_")},
        "device": info.device,
        "device_name": _device_name(model.hardware.device),
        "dtype": info.dtype,
        "torch": str(torch.__version__),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        **({"init_image": image_digest} if image_digest else {}),
    }


def _params(params: GenerationParams) -> dict[str, Any]:
    left_out = _ELSEWHERE if params.init_image is not None else _ELSEWHERE | _OF_THE_IMAGE
    return {name: value for name, value in msgspec.to_builtins(params).items() if name not in left_out}


def weights(path: Path) -> list[list[Any]]:
    """Name, size and time of each weight file of a model folder: a cheap identity."""
    files = sorted(file for file in path.glob("*/*") if file.suffix in _WEIGHTS and file.is_file())
    return [[str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _device_name(device: torch.device) -> str:
    """The GPU, or the CPU's instructions and the threads, by which torch picks and splits its kernels."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _plain(value: Any) -> Any:
    """A configuration's value as JSON has it; arrays become lists, and what else there is its text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
