"""A network's class from its configuration, on the meta device: shapes without numbers.

No code of a model's folder is run: classes are those of diffusers and transformers, and what in a configuration could make
these libraries fetch code, such as an attention kernel of the hub, is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import diffusers
import torch
import transformers
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from sdtui.text import safe_text
from sdtui.worker.errors import one_line
from sdtui.worker.inspector.problem import InspectionProblem

_DROPPED: Final = frozenset(
    {"attn_implementation", "experts_implementation", "quantization_config", "auto_map", "dtype", "torch_dtype", "use_kernels"}
)
_LARGEST: Final = 10_000_000
"""No size in a configuration comes near; a list of so many entries would still fit into memory."""
_MOST_LAYERS: Final = 1_000
_MOST_MODULES: Final = 50_000
"""Ten times those of the largest models."""
_DEEPEST: Final = 16


def find_class(library: str, class_name: str) -> type[nn.Module] | None:
    """The network's class of that name in diffusers or transformers; None where it is none, or no network."""
    if not class_name.isidentifier():
        return None
    places: list[Any] = [diffusers, transformers] if library != "transformers" else [transformers]
    if library.isidentifier() and hasattr(diffusers.pipelines, library):
        places.insert(0, getattr(diffusers.pipelines, library))
    for place in places:
        found = getattr(place, class_name, None)
        if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.split(".")[0] in _OURS:
            return found
    return None


_OURS: Final = ("diffusers", "transformers")


def build(network: type[nn.Module], config: Mapping[str, Any]) -> nn.Module:
    """The network without weights. Raises `InspectionProblem` for a configuration that it does not take."""
    clean = _clean(config)
    try:
        with torch.device("meta"), _at_most(_MOST_MODULES):
            built = _make(network, clean)
    except InspectionProblem:
        raise
    except Exception as error:
        raise InspectionProblem(f"{network.__name__} does not take this configuration: {one_line(error)}") from error
    return built.eval()


def _make(network: Any, config: dict[str, Any]) -> nn.Module:
    if hasattr(network, "load_config"):  # as all of diffusers, and its safety checker too
        made = network.from_config(config) if not hasattr(network, "config_class") or network.config_class is None else None
        if made is not None:
            return made  # type: ignore[no-any-return]
    return network(network.config_class.from_dict(config))  # type: ignore[no-any-return]


def _clean(config: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise InspectionProblem("The configuration is nested deeper than any model's.")
    found = {}
    for key, value in config.items():
        if key in _DROPPED or key.startswith("_"):
            continue
        _check(key, value)
        found[key] = _clean(value, depth + 1) if isinstance(value, dict) else value
    return found


def _check(key: str, value: object) -> None:
    for entry in value if isinstance(value, list) else [value]:
        limit = _MOST_LAYERS if "layers" in key or "num_blocks" in key else _LARGEST
        if isinstance(entry, int) and abs(entry) > limit:
            shown = safe_text(key, limit=60)
            raise InspectionProblem(f"The configuration's {shown!r} is {entry:.3g}, more than any model's.")


@contextmanager
def _at_most(limit: int) -> Iterator[None]:
    made = 0

    def count(_module: nn.Module, _name: str, _child: nn.Module | None) -> None:
        nonlocal made
        made += 1
        if made > limit:
            raise InspectionProblem(f"The configuration asks for more than {limit:,} modules.")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
