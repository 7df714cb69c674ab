"""A model's component as a request names it: what its files hold, and which class with which configuration it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import nn

from sdtui.anatomy.read import locate, open_anatomy
from sdtui.anatomy.structs import Anatomy, AnatomyError, Component, Weight
from sdtui.checkpoint import MODEL_INDEX, CheckpointError, read_json
from sdtui.text import safe_text
from sdtui.worker.inspector.build import build, find_class
from sdtui.worker.inspector.known import known
from sdtui.worker.inspector.problem import InspectionProblem

_NO_NETWORKS: Final = ("tokenizer", "scheduler", "feature_extractor", "unet_ema", "other", "embedding")


class Opened(NamedTuple):
    """A component: its files' anatomy, and its network where there is one, without weights."""

    component: Component
    network: nn.Module | None
    config: Mapping[str, Any]
    why: str = ""
    """Why there is no network, where one should be."""


def open_model(model: str) -> Anatomy:
    """The model's anatomy from its files. Raises `InspectionProblem`."""
    try:
        return open_anatomy(model)
    except AnatomyError as error:
        raise InspectionProblem(str(error)) from error


def component_of(anatomy: Anatomy, name: str) -> Component:
    """The component of this name. Raises `InspectionProblem` that names those there are."""
    found = anatomy.component(name)
    if found is None:
        there = ", ".join(safe_text(component.name, limit=40) for component in anatomy.components)
        raise InspectionProblem(f"The model has no component {safe_text(name, limit=60)!r}; it has {there}.")
    return found


def open_component(anatomy: Anatomy, name: str) -> Opened:
    """A component and its network, built on the meta device; what stands in the way is said in `why`."""
    component = component_of(anatomy, name)
    if name.rpartition("_")[0] in _NO_NETWORKS or name in _NO_NETWORKS:
        return Opened(component, None, {})
    try:
        library, class_name, config = _description(anatomy, component)
        network_class = find_class(library, class_name)
        if network_class is None:
            return Opened(component, None, config, _unknown(class_name))
        return Opened(component, build(network_class, config), config)
    except (InspectionProblem, CheckpointError, AnatomyError) as error:
        return Opened(component, None, {}, str(error))


def _unknown(class_name: str) -> str:
    if not class_name:
        return "No configuration says of which class it is; the modules are those that the names of its weights tell."
    return f"Its class {safe_text(class_name, limit=80)!r} is no network of diffusers or transformers; no other code is run."


def _description(anatomy: Anatomy, component: Component) -> tuple[str, str, Mapping[str, Any]]:
    """Library, class and configuration: of a folder from its files, of a single file as its family is known."""
    path = locate(anatomy.source)
    if (path / MODEL_INDEX).is_file():
        return component.library, component.class_name, _config(path / component.name)
    folder = path if path.is_dir() else path.parent
    if (folder / "config.json").is_file() and len(anatomy.components) == 1:
        config = _config(folder)
        return "", component.class_name or _class_name(config), config
    found = known(anatomy.family, component.name, shapes(component))
    return found if found is not None else ("", "", {})


def _config(folder: Path) -> Mapping[str, Any]:
    config = folder / "config.json"
    if not config.is_file():
        raise InspectionProblem(f"{safe_text(str(config), limit=300)} is missing; without it the network cannot be built.")
    return read_json(config)


def _class_name(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(config.get("_class_name") or (named[0] if isinstance(named, list) and named else ""))


def stored(component: Component) -> dict[str, Weight]:
    """The component's tensors by their path in it."""
    return {f"{module.path}.{weight.name}".removeprefix("."): weight for module in component.modules for weight in module.weights}


def shapes(component: Component) -> dict[str, tuple[int, ...]]:
    """The shapes of the component's tensors, by their path in it."""
    return {name: weight.shape for name, weight in stored(component).items()}
