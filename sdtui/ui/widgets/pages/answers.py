"""What the inspector process answered about the model that is open: kept as long as that is, since its files are large."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sdtui.anatomy.layout import in_diffusers
from sdtui.protocol import MeasureWeight, ReadSource, SourceRead, WeightMeasured
from sdtui.ui.outline import Outline

if TYPE_CHECKING:
    from sdtui.server.inspector import Inspector

ASK_AFTER_S: Final = 0.3
"""Who goes through the tree with a key held down asks nothing."""
_MOST: Final = 2_000
"""Answers that are kept; one with singular values takes up to 60 kB, the others 2 kB."""


class Names:
    """What diffusers and transformers call the modules of an outline; files of other layouts call them otherwise."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self._names: dict[str, dict[str, str]] = {}

    def of(self, component: str, path: str) -> str:
        """A module's path, as its network has it."""
        if component not in self._names:
            found = self.outline.anatomy.component(component)
            paths = {module.path: None for module in found.modules} if found is not None else {}
            self._names[component] = in_diffusers(component, paths)
        return self._names[component].get(path, path)


class Answers:
    """Of one outline; another one begins anew."""

    def __init__(self, outline: Outline, inspector: Callable[[], Inspector]) -> None:
        self.outline = outline
        self._inspector = inspector
        self._weights: dict[tuple[str, str], WeightMeasured] = {}
        self._sources: dict[tuple[str, str], SourceRead] = {}
        self._names = Names(outline)

    @property
    def is_starting(self) -> bool:
        """Whether the next question has to wait for the process to start."""
        return self._inspector().pid is None

    def known_weight(self, component: str, key: str, *, singular: bool) -> WeightMeasured | None:
        """A tensor's figures where they were asked for before."""
        found = self._weights.get((component, key))
        return found if found is not None and (not singular or found.singular_values is not None or found.note) else None

    async def weight(self, component: str, key: str, *, singular: bool) -> WeightMeasured:
        """A tensor's figures. Raises `InspectorError`."""
        found = self.known_weight(component, key, singular=singular)
        if found is None:
            source = self.outline.anatomy.source
            ask = MeasureWeight(request=0, model=source, component=component, key=key, singular_values=singular)
            found = await self._inspector().request(ask)
            if len(self._weights) >= _MOST:
                self._weights.pop(next(iter(self._weights)))
            self._weights[component, key] = found
        return found

    def known_source(self, component: str, path: str) -> SourceRead | None:
        """The code of a module's class, where it was asked for before."""
        return self._sources.get((component, path))

    async def source(self, component: str, path: str) -> SourceRead:
        """The code of a module's class. Raises `InspectorError`."""
        found = self.known_source(component, path)
        if found is None:
            name = self._names.of(component, path)
            ask = ReadSource(request=0, model=self.outline.anatomy.source, component=component, path=name)
            found = await self._inspector().request(ask)
            if len(self._sources) >= _MOST:
                self._sources.pop(next(iter(self._sources)))
            self._sources[component, path] = found
        return found
