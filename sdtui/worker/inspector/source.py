"""The code of a module's forward, as it stands in the installed libraries; only theirs is ever shown or built."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any, Final

from torch import nn

from sdtui.anatomy.structs import Anatomy
from sdtui.protocol import ReadSource, SourceRead
from sdtui.text import safe_text
from sdtui.worker.inspector.opened import open_component
from sdtui.worker.inspector.problem import InspectionProblem
from sdtui.worker.inspector.settings import module_settings

_LIBRARIES: Final = ("diffusers", "transformers", "torch")


def read_source(anatomy: Anatomy, request: ReadSource) -> SourceRead:
    """Signature, settings and code of the class at a path. Raises `InspectionProblem`."""
    opened = open_component(anatomy, request.component)
    if opened.network is None:
        why = opened.why or f"The {safe_text(request.component, limit=60)} is no network."
        raise InspectionProblem(why)
    module = _module_at(opened.network, request.path)
    forward = _forward_of(module)
    lines, line = inspect.getsourcelines(forward)
    return SourceRead(
        request=request.request,
        component=request.component,
        path=request.path,
        class_name=type(module).__name__,
        python_module=forward.__module__,
        file=_short(forward),
        line=line,
        signature=f"forward{inspect.signature(forward)}",
        settings=module_settings(module),
        source="".join(lines),
    )


def _module_at(network: nn.Module, path: str) -> nn.Module:
    found: nn.Module | None = dict(network.named_modules()).get(path)
    if found is None:
        shown = safe_text(path, limit=120)
        raise InspectionProblem(f"The {type(network).__name__} has no module {shown!r}.")
    return found


def _forward_of(module: nn.Module) -> Any:
    """The function, without its decorators."""
    forward: Any = inspect.unwrap(type(module).forward)
    library = str(getattr(forward, "__module__", "")).partition(".")[0]
    if library not in _LIBRARIES or forward.__name__ == "_forward_unimplemented":
        raise InspectionProblem(f"A {type(module).__name__} has no forward: it only holds others.")
    return forward


def _short(function: Any) -> str:
    """The file from the library's folder on."""
    path = Path(inspect.getsourcefile(function) or "")
    library = sys.modules[function.__module__.partition(".")[0]].__file__
    installed = Path(library).parent.parent if library else path.parent
    return path.relative_to(installed).as_posix() if path.is_relative_to(installed) else path.name
