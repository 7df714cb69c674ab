"""Libraries that draw progress bars and print warnings, made quiet: what they still say goes to the worker's log."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any, Final

ENVIRONMENT: Final = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "passive",  # threads that spin at barriers made steps 5 to 30 times slower on two busy cores
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",  # less fragmentation when picture sizes change
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # `import diffusers` then asks for GPUs without making a CUDA context
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
SAFETY: Final = {
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # a pickle, where one may be read at all, gives tensors and runs nothing
}
"""Set whatever the user set: a variable that is left over from something else must not make a model's file run code."""


def prepare_environment(threads: int, offline: bool) -> None:
    """Set what torch and the hub read when they are imported; what the user set stays, but for what is a matter of safety."""
    for name, value in ENVIRONMENT.items():
        if name != "PYTORCH_ALLOC_CONF" or "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its older name
            os.environ.setdefault(name, value)
    os.environ.update(SAFETY)
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def quieten_libraries() -> None:
    """Turn off progress bars and known noise; call after the imports."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*torchvision.*")


def quieten_pipeline(pipe: Any) -> None:
    """Turn off a pipeline's own progress bar; siblings do not inherit this."""
    pipe.set_progress_bar_config(disable=True)
