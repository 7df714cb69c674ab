"""Arrays out of the image of a safetensors file that lies in memory, without torch.

The format is that of https://github.com/huggingface/safetensors#format. numpy comes with this module: import it late.
"""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

_DTYPES: Final = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}

Map = np.ndarray[Any, np.dtype[np.float32]]


def read_tensors(payload: bytes) -> dict[str, Map]:
    """Every tensor as float32, by its name; bfloat16 is the upper half of that. Raises `ValueError`, `KeyError`, `TypeError`."""
    begin = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:begin])
    return {name: _tensor(payload, begin, entry) for name, entry in header.items() if name != "__metadata__"}


def first_tensor(payload: bytes) -> Map:
    """The first tensor of the header, as float32. Raises as `read_tensors` does."""
    begin = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:begin])
    return _tensor(payload, begin, next(entry for name, entry in header.items() if name != "__metadata__"))


def _tensor(payload: bytes, begin: int, entry: dict[str, Any]) -> Map:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"a tensor is of the type {entry['dtype']}")
    first, past = entry["data_offsets"]
    values = np.frombuffer(payload[begin + first : begin + past], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
