"""What the Inspect screen reads from the disk, in threads: models, their differences, and the names of those that are here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from textual.suggester import Suggester

from sdtui.anatomy.diff import Difference, diff
from sdtui.anatomy.layout import in_diffusers
from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Component
from sdtui.checkpoint import cached_models
from sdtui.protocol import WeightsCompared
from sdtui.text import count_noun, safe_text
from sdtui.ui.outline import MODEL, Outline

_MODEL_FILES: Final = (".safetensors", ".safetensors.index.json")
_MOST_ENTRIES: Final = 5_000
"""Of a folder that are looked through for the one that is being typed."""


def read_outline(source: str) -> Outline:
    """The tree of a model. Raises `AnatomyError`."""
    return Outline(open_anatomy(source))


class Comparison(NamedTuple):
    """In what another model differs: sentences for each node, how many tell of a dtype alone, and where others are."""

    told: dict[int, list[str]]
    structure: int
    dtypes: int
    places: list[int]
    """The nodes to look at: those of another structure; where there are none, those of another dtype."""


def compare(outline: Outline, other: str) -> Comparison:
    """Compare the model that is shown with another. Raises `AnatomyError`.

    What only the other one has stands at the nearest module above it that both have.
    """
    told: dict[int, list[str]] = {}
    places: set[int] = set()
    dtypes = structure = 0
    names: dict[str, dict[str, str]] = {}
    for difference in diff(outline.anatomy, open_anatomy(other)):
        name = difference.component
        component = outline.anatomy.component(name)
        node = MODEL
        if component is not None:
            if name not in names:
                names[name] = _own_names(component)
            node = _place(outline, name, names[name], difference.path)
        told.setdefault(node, []).append(f"≠ {_sentence(difference)}")
        if difference.what == "dtype":
            dtypes += 1
        else:
            structure += 1
            places.add(node)
    return Comparison(told, structure, dtypes, sorted(places or told))


def weights_told(outline: Outline, replies: Sequence[WeightsCompared]) -> Comparison:
    """In which numbers another model differs, each at its module."""
    told: dict[int, list[str]] = {}
    for reply in replies:
        component = outline.anatomy.component(reply.component)
        names = _own_names(component) if component is not None else {}
        for difference in reply.differences:
            node = _place(outline, reply.component, names, difference.path)
            told.setdefault(node, []).append(f"≠ {safe_text(difference.name, limit=100)}: {difference.told}")
    return Comparison(told, 0, 0, sorted(told))


def _own_names(component: Component) -> dict[str, str]:
    """The paths of a component's modules by what diffusers calls them."""
    paths = {module.path: None for module in component.modules}
    return {**{path: path for path in paths}, **{name: path for path, name in in_diffusers(component.name, paths).items()}}


def _place(outline: Outline, component: str, names: dict[str, str], path: str) -> int:
    while path and path not in names:
        path = path.rpartition(".")[0]
    node = outline.find_key((component, names.get(path, "")))
    return MODEL if node is None else node


def _sentence(difference: Difference) -> str:
    """A difference as it is told at its module; names in it are as the files have them."""
    whole = ".".join(part for part in (difference.component, difference.path, difference.name) if part)
    if difference.what in ("shape", "dtype"):
        return f"{difference.name}: {difference.left} here, {difference.right} there"
    where = "here" if difference.what == "only left" else "there"
    tensors = "" if difference.name else f", {count_noun(difference.tensors, 'tensor')}"
    return f"only {where}: {whole}{tensors}"


class ModelSuggester(Suggester):
    """Completes the models that are here, and paths of folders and weight files."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._known: list[str] | None = None

    async def get_suggestion(self, value: str) -> str | None:
        """The whole value that begins with what is typed."""
        return await asyncio.to_thread(self._complete, value)

    def _complete(self, value: str) -> str | None:
        if value.startswith(("/", "~", ".")):
            return _complete_path(value)
        if self._known is None:
            self._known = [model.name for model in cached_models()]
        return next((name for name in self._known if name.lower().startswith(value.lower())), None)


def _complete_path(value: str) -> str | None:
    """The first folder or weight file that begins so."""
    before, slash, begun = value.rpartition("/")
    if not slash:
        return None
    try:
        entries = []
        for entry in Path(before + slash).expanduser().iterdir():
            if entry.name.startswith(begun) and (begun or not entry.name.startswith(".")):
                entries.append(entry)
            if len(entries) == _MOST_ENTRIES:
                break
        fitting = sorted(entry for entry in entries if entry.name.endswith(_MODEL_FILES) or entry.is_dir())
    except (OSError, ValueError, RuntimeError):
        return None
    if not fitting or not fitting[0].name.isprintable():
        return None
    return f"{before}{slash}{fitting[0].name}{'/' if fitting[0].is_dir() else ''}"
