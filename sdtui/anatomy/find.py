"""Finding modules: by parts of their names, by class, by shape; and bringing them into another order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from sdtui.anatomy.structs import Component, Module

SortBy = Literal["parameters", "bytes", "name"]

_EXACT, _BEGINS, _NAME, _PATH, _CLASS, _SHAPE, _SCATTERED = range(7)
_AFTER_COMMA: Final = re.compile(r",\s+")
_TIMES: Final = re.compile(r"(?<=\d)[x×](?=\d)")


class Hit(NamedTuple):
    """A module that was found. The lower the score, the better; `place` is its index in `Component.modules`."""

    score: int
    place: int


class Finder:
    """Looks for modules of one component. What is looked through is prepared once, at the first search."""

    def __init__(self, component: Component) -> None:
        self._modules = component.modules
        self._texts: list[tuple[str, str, str]] | None = None

    def find(self, query: str) -> list[Hit]:
        """All modules in which every word of the query occurs, in the tree's order.

        A word is a part of a path, a class or a shape ("attn2", "Conv2d", "[320,", "320x4x3x3"); one that occurs nowhere may
        also be scattered over a path, its characters in order ("dbatt").
        """
        words = _words(query)
        if not words:
            return []
        scores = [0] * len(self._modules)
        for word in words:
            for index, score in enumerate(self._scores(word)):
                scores[index] = -1 if score < 0 or scores[index] < 0 else scores[index] + score
        return [Hit(score, index) for index, score in enumerate(scores) if score >= 0]

    def best(self, query: str, limit: int = 50) -> list[Hit]:
        """The best of what `find` finds, best first."""
        return sorted(self.find(query))[:limit]

    def _scores(self, word: str) -> list[int]:
        scores = [_score(word, *texts) for texts in self._prepared()]
        if any(score >= 0 for score in scores) or not any(character.isalnum() for character in word):
            return scores
        return [_gaps(word, path) for path, _, _ in self._prepared()]

    def _prepared(self) -> list[tuple[str, str, str]]:
        if self._texts is None:
            self._texts = [(module.path.lower(), module.class_name.lower(), _shapes(module)) for module in self._modules]
        return self._texts


def _words(query: str) -> list[str]:
    return _AFTER_COMMA.sub(",", query.lower()).split()


def _shapes(module: Module) -> str:
    return " ".join(f"[{','.join(map(str, weight.shape))}]" for weight in module.weights)


def _score(word: str, path: str, class_name: str, shapes: str) -> int:
    """How well a word fits, -1 for not at all."""
    if word in path:
        name = path.rpartition(".")[2]
        return _EXACT if word in (name, path) else _BEGINS if name.startswith(word) else _NAME if word in name else _PATH
    if word in class_name:
        return _CLASS
    return _SHAPE if shapes and _TIMES.sub(",", word) in shapes and any(character.isdigit() for character in word) else -1


def _gaps(word: str, path: str) -> int:
    """The worse, the longer the first stretch over which the characters are scattered; -1 where they are not all there."""
    end = 0
    for character in word:
        end = path.find(character, end) + 1
        if not end:
            return -1
    begin = end
    for character in reversed(word):
        begin = path.rfind(character, 0, begin)
    return _SCATTERED + end - begin


def step(hits: Sequence[Hit], index: int, forward: bool = True) -> int | None:
    """The next hit behind a module, or the last before it, round the ends; None where there is none."""
    if not hits:
        return None
    places = sorted(hit.place for hit in hits)
    if forward:
        return next((place for place in places if place > index), places[0])
    return next((place for place in reversed(places) if place < index), places[-1])


def of_class(modules: Iterable[Module], class_name: str) -> list[Module]:
    """The modules of a class, upper or lower case alike."""
    wanted = class_name.lower()
    return [module for module in modules if module.class_name.lower() == wanted]


def classes(modules: Iterable[Module]) -> dict[str, int]:
    """How many modules of each class there are, the most frequent first."""
    found: dict[str, int] = {}
    for module in modules:
        if module.class_name:
            found[module.class_name] = found.get(module.class_name, 0) + 1
    return dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))


def in_order(modules: Iterable[Module], by: SortBy | None) -> list[Module]:
    """Modules by parameters or bytes, most first, or by path; as they stand for None."""
    if by is None:
        return list(modules)
    if by == "name":
        return sorted(modules, key=lambda module: module.path)
    if by == "bytes":
        return sorted(modules, key=lambda module: module.bytes, reverse=True)
    return sorted(modules, key=lambda module: module.total_parameters, reverse=True)
