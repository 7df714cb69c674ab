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


def prepare_environment(threads: int, offline: bool) -> None:
    """Set what torch and the hub read when they are imported; what the user set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
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
