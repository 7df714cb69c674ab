"""What a model is made of: the values that the readers fill and that the tree, the searches and the commands look at.

Paths and names are kept as the files spell them, so that they can be looked up; whoever shows them passes them through
`safe_text`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal[
    "pipeline", "checkpoint", "unet", "transformer", "vae", "text encoder", "controlnet", "lora", "textual inversion", "weights"
]


class AnatomyError(Exception):
    """A model that cannot be taken apart; the text is one line that names the file and the fault."""


class PickleRefused(AnatomyError):
    """A pickle, which is not opened here; `path` may be read with torch's `weights_only` in a process of its own."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class Weight(msgspec.Struct, frozen=True, gc=False):
    """One tensor of a file. `key` is its whole name there, and `file` the index of that file in `Component.files`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    key: str = ""
    file: int = 0
    buffer: bool = False
    """Whether it is a constant that comes along, such as `position_ids`, and counts as no parameter."""

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


class Module(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A module and what stands below it; `parameters` and `bytes` of a whole branch are totals."""

    path: str
    """Dotted, without the component; empty for the component itself."""
    class_name: str = ""
    guessed: bool = False
    """Whether the class was read off names and shapes, as no configuration names it."""
    own_parameters: int = 0
    total_parameters: int = 0
    bytes: int = 0
    """Of the whole branch."""
    dtypes: tuple[str, ...] = ()
    """The stored dtypes of the whole branch, that of most bytes first."""
    weights: tuple[Weight, ...] = ()
    settings: dict[str, str] = msgspec.field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a pipeline; `modules` are in depth-first order and begin with the component itself, at the empty path."""

    name: str
    class_name: str = ""
    library: str = ""
    modules: tuple[Module, ...]
    files: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def root(self) -> Module:
        """The component as a module."""
        return self.modules[0]

    def share(self, module: Module) -> float:
        """The part, 0 to 1, of the component's parameters that stand in a module's branch."""
        total = self.root.total_parameters
        return module.total_parameters / total if total else 0.0


class Anatomy(msgspec.Struct, frozen=True, kw_only=True):
    """A model taken apart."""

    source: str
    """What was opened: a path, or a hub id."""
    kind: Kind
    family: str = "unknown"
    """`SD 1.x`, `SDXL` and so on; what a LoRA or an embedding was made for."""
    sure: float = 0.0
    """How sure the family is, 0 to 1."""
    why: str = ""
    """What the family was told by."""
    components: tuple[Component, ...] = ()
    problems: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    """What the file says of itself; untrusted."""

    @property
    def parameters(self) -> int:
        """Of all components."""
        return sum(component.root.total_parameters for component in self.components)

    @property
    def bytes(self) -> int:
        """Of all components' tensors."""
        return sum(component.root.bytes for component in self.components)

    def component(self, name: str) -> Component | None:
        """The component of this name."""
        return next((component for component in self.components if component.name == name), None)
