"""Which device and which precision, and why, in a sentence for the log."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import torch

from sdtui.text import format_bytes
from sdtui.worker.errors import JobProblem

LARGE_MODEL_BYTES: Final = 1 << 30
"""Below this, bfloat16 on a CPU saves little time and costs 16 of 24 bits of every weight's precision."""
DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Hardware:
    """The choice, and the reason for it."""

    device: torch.device
    dtype: torch.dtype
    why: str

    @property
    def dtype_name(self) -> str:
        """`float32`, without torch's prefix."""
        return dtype_name(self.dtype)

    @property
    def device_name(self) -> str:
        """What the device is called: the GPU's name, or `CPU` and its threads."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return f"CPU, {torch.get_num_threads()} threads"


@functools.cache
def dtype_name(dtype: torch.dtype) -> str:
    """`float16` for `torch.float16`."""
    return str(dtype).removeprefix("torch.")


def choose_hardware(device: str, dtype: str, weight_bytes: int = 0) -> Hardware:
    """Device and dtype for `auto` or as asked. Raises `JobProblem` when this machine cannot do what was asked.

    `weight_bytes` is the size of the model's files.
    """
    chosen, why_device = _choose_device(device)
    if chosen.type == "cuda":
        return _on_gpu(chosen, dtype, why_device)
    return _on_cpu(chosen, dtype, why_device, weight_bytes)


def _choose_device(device: str) -> tuple[torch.device, str]:
    has_gpu = torch.cuda.is_available()
    if device == "auto":
        if has_gpu:
            return torch.device("cuda", torch.cuda.current_device()), "there is a CUDA GPU"
        return torch.device("cpu"), "torch finds no CUDA GPU"
    if device == "cpu":
        return torch.device("cpu"), "the CPU was asked for"
    if not has_gpu:
        raise JobProblem(f"Device {device} was asked for, but torch finds no CUDA GPU. Use auto or cpu.", "device")
    index = int(device.partition(":")[2] or torch.cuda.current_device())
    if index >= torch.cuda.device_count():
        raise JobProblem(f"Device {device} does not exist; there are {torch.cuda.device_count()}, counted from cuda:0.", "device")
    return torch.device("cuda", index), f"{device} was asked for"


def _on_gpu(device: torch.device, dtype: str, why_device: str) -> Hardware:
    if dtype == "auto":
        return Hardware(device, torch.float16, f"{why_device}, and float16 is 2.5 times as fast there as float32")
    if dtype == "bfloat16" and not torch.cuda.is_bf16_supported():
        raise JobProblem("This GPU has no bfloat16; use float16 or float32.", "dtype")
    return Hardware(device, DTYPES[dtype], f"{why_device}, {dtype} was asked for")


def _on_cpu(device: torch.device, dtype: str, why_device: str, weight_bytes: int) -> Hardware:
    if dtype == "float16":
        raise JobProblem("float16 on a CPU is some 75 times slower than float32; use auto, float32 or bfloat16.", "dtype")
    if dtype == "bfloat16":
        if not has_bfloat16():
            raise JobProblem("This CPU has no fast bfloat16 (it needs AVX-512 or AMX); use auto or float32.", "dtype")
        return Hardware(device, torch.bfloat16, f"{why_device}, bfloat16 was asked for")
    if dtype == "float32":
        return Hardware(device, torch.float32, f"{why_device}, float32 was asked for")
    if has_bfloat16_instructions() and weight_bytes >= LARGE_MODEL_BYTES:
        size = format_bytes(weight_bytes)
        return Hardware(device, torch.bfloat16, f"{why_device}; the model is large ({size}) and this CPU computes in bfloat16")
    return Hardware(device, torch.float32, f"{why_device}, and float32 is the safe precision on a CPU")


def has_bfloat16() -> bool:
    """Whether torch computes in bfloat16 on this CPU faster than step by step."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_bfloat16_instructions() -> bool:
    """Whether this CPU has real bfloat16 arithmetic, not only vectors wide enough to imitate it."""
    return has_bfloat16() and any(
        getattr(torch.cpu, name, lambda: False)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
