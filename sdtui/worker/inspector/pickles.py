"""What a pickle holds, read by torch with `weights_only`: tensors and plain containers, and nothing that runs code."""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from sdtui.anatomy.files import Tensors, check_names, check_regular, show, whole
from sdtui.anatomy.read import anatomy_of
from sdtui.anatomy.structs import Anatomy, AnatomyError
from sdtui.text import safe_text
from sdtui.worker.errors import one_line
from sdtui.worker.inspector.problem import InspectionProblem

_DTYPES: Final = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_WRAPPERS: Final = ("state_dict", "string_to_param")
"""Under which training code and textual inversions keep their tensors."""
_DEEPEST: Final = 4


def read_pickle(model: str) -> Anatomy:
    """The anatomy of a pickle's tensors, whose numbers are not kept. Raises `InspectionProblem`."""
    path = Path(model).expanduser()
    try:
        check_regular(path)
        found = dict(_tensors(_load(path)))
        if not found:
            raise InspectionProblem(f"{show(path)} holds no tensors.")
        entries = {name: (_entry(tensor), 0) for name, tensor in found.items()}
        check_names(path, {name: entry for name, (entry, _) in entries.items()})
        why = "It is a pickle, read with weights_only: its numbers were not looked at."
        scalars = {name: float(tensor) for name, tensor in found.items() if tensor.numel() == 1 and not tensor.is_complex()}
        return anatomy_of(Tensors(entries, (path,), {}, (why,), scalars), model)
    except AnatomyError as error:
        raise InspectionProblem(str(error)) from error
    except OSError as error:
        raise InspectionProblem(f"{show(path)} cannot be read: {error.strerror}.") from error


def _load(path: Path) -> Any:
    """The unpickled object. Its numbers stay in the file where it is a zip, as those of all newer versions of torch are."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = one_line(error)
        raise InspectionProblem(f"{show(path)} is refused: it holds more than tensors ({reason}).") from error
    except (RuntimeError, EOFError, ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise InspectionProblem(f"{show(path)} is no file of weights that torch can read: {one_line(error)}") from error


def _tensors(held: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested dictionaries, by their path; what else lies there, such as step counts, is left out."""
    if not isinstance(held, Mapping) or depth > _DEEPEST:
        return
    for key, value in held.items():
        name = whole(str(key))
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _tensors(value, prefix if name in _WRAPPERS else f"{prefix}{name}.", depth + 1)


def _entry(tensor: torch.Tensor) -> Mapping[str, Any]:
    """As a safetensors header has it."""
    dtype = _DTYPES.get(tensor.dtype) or safe_text(str(tensor.dtype).removeprefix("torch."), limit=20)
    size = math.prod(tensor.shape) * tensor.element_size()
    return {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [0, size]}
