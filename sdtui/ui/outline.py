"""A model's modules as the lines of a tree: which are unfolded, in which order they stand, and which are left out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, Literal, NamedTuple

from sdtui.anatomy.find import Finder, SortBy
from sdtui.anatomy.structs import Anatomy, Component, Module
from sdtui.anatomy.tree import ModuleTree

MODEL: Final = 0
"""The node of the model itself."""
Order = SortBy | Literal["time"]
Key = tuple[str, str]
"""A component's name and a path in it: the same module when the model is opened again. Both empty for the model."""


class Hits(NamedTuple):
    """What a search found: nodes in the tree's order, and the one that fits best."""

    nodes: list[int]
    best: int | None


class Outline:
    """Nodes are numbers: the model, then the modules of all components, depth first. Lists of numbers are all that is made."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.modules: list[Module] = [_whole(anatomy)]
        self.depths: list[int] = [0]
        self._firsts: list[int] = []
        for component in anatomy.components:
            self._firsts.append(len(self.modules))
            self.modules.extend(component.modules)
            self.depths.extend(depth + 1 for depth, _ in ModuleTree(component).walk())
        self._ends, self._parents = _branches(self.depths)
        self._unfolded: set[int] = {MODEL, *self._firsts[:1]}
        self._before: set[int] | None = None
        self._kept: set[int] | None = None
        self.sorted_by: Order | None = None
        self._values: Mapping[int, float] = {}
        self.only_class = ""
        self.lines: list[int] = []
        self._lay_out()

    # --- what a node is ---------------------------------------------------------------------------------------------

    def component(self, node: int) -> Component | None:
        """The component that a node lies in; None for the model."""
        return None if node == MODEL else self.anatomy.components[bisect_right(self._firsts, node) - 1]

    def is_component(self, node: int) -> bool:
        """Whether it stands for a whole component."""
        return self.depths[node] == 1

    def name(self, node: int) -> str:
        """What its line is called."""
        component = self.component(node)
        if component is None:
            return self.anatomy.source.rstrip("/").rpartition("/")[2] or self.anatomy.source
        return component.name if self.is_component(node) else self.modules[node].name

    def path(self, node: int) -> str:
        """Its whole path, with the component; for the model, what was opened."""
        component = self.component(node)
        if component is None:
            return self.anatomy.source
        return ".".join(part for part in (component.name, self.modules[node].path) if part)

    def share(self, node: int) -> float:
        """Of a component, its part of the model's parameters; of a module, its part of the component's; from 0 to 1."""
        component = self.component(node)
        if component is None:
            return 1.0
        total = self.anatomy.parameters if self.is_component(node) else component.root.total_parameters
        return self.modules[node].total_parameters / total if total else 0.0

    def has_children(self, node: int) -> bool:
        """Whether anything stands below."""
        return self._ends[node] > node + 1

    def count_below(self, node: int) -> int:
        """How many modules stand below, however deep."""
        return self._ends[node] - node - 1

    def is_unfolded(self, node: int) -> bool:
        """Whether what stands below is shown."""
        return node in self._unfolded

    def parent(self, node: int) -> int | None:
        """The node that holds this one."""
        return self._parents[node] if node != MODEL else None

    def ancestors(self, node: int) -> Iterator[int]:
        """Those that hold a node, the nearest first."""
        while node != MODEL:
            node = self._parents[node]
            yield node

    def children(self, node: int) -> list[int]:
        """Those right below, in the order and with the filter that are in force."""
        found, child, end = [], node + 1, self._ends[node]
        while child < end:
            if self._kept is None or child in self._kept:
                found.append(child)
            child = self._ends[child]
        return self._in_order(found) if node != MODEL else found

    def _in_order(self, nodes: list[int]) -> list[int]:
        modules = self.modules
        if self.sorted_by == "parameters":
            return sorted(nodes, key=lambda node: -modules[node].total_parameters)
        if self.sorted_by == "bytes":
            return sorted(nodes, key=lambda node: -modules[node].bytes)
        if self.sorted_by == "time":
            return sorted(nodes, key=lambda node: -self._values.get(node, 0.0))
        return sorted(nodes, key=lambda node: modules[node].name) if self.sorted_by == "name" else nodes

    @cached_property
    def faulty(self) -> frozenset[int]:
        """The nodes with a problem, and those that hold one."""
        found: set[int] = {MODEL} if self.anatomy.problems else set()
        faulty = [node for node, module in enumerate(self.modules) if module.problems]
        faulty += [first for first, part in zip(self._firsts, self.anatomy.components, strict=True) if part.problems]
        for node in faulty:
            found.update((node, *self.ancestors(node)))
        return frozenset(found)

    # --- folding ----------------------------------------------------------------------------------------------------

    def line_of(self, node: int) -> int:
        """The line of a node, or of the nearest above it that is in view."""
        for shown in (node, *self.ancestors(node)):
            if shown in self.lines:
                return self.lines.index(shown)
        return 0

    def fold(self, line: int, *, folded: bool) -> None:
        """Fold what stands at a line, or unfold it."""
        node = self.lines[line]
        if folded == (node not in self._unfolded) or not self.has_children(node):
            return
        last = line + 1
        if folded:
            while last < len(self.lines) and self.depths[self.lines[last]] > self.depths[node]:
                last += 1
            self._unfolded.discard(node)
        else:
            self._unfolded.add(node)
        self.lines[line + 1 : last] = self._below(node)

    def fold_all(self, node: int) -> bool:
        """Unfold everything in a branch, or fold it all where all is unfolded; says whether it is unfolded now."""
        inside = {inner for inner in range(node, self._ends[node]) if self._ends[inner] > inner + 1}
        folded = inside <= self._unfolded
        if folded:
            self._unfolded -= inside - {MODEL}
        else:
            self._unfolded |= inside
        self._lay_out()
        return not folded

    def reveal(self, node: int) -> int:
        """Unfold what hides a node; its line."""
        hiding = [above for above in self.ancestors(node) if above not in self._unfolded]
        if hiding:
            self._unfolded.update(hiding)
            self._lay_out()
        return self.line_of(node)

    def _below(self, node: int) -> list[int]:
        """What is in view below a node."""
        found: list[int] = []
        waiting = self.children(node)[::-1] if node in self._unfolded else []
        while waiting:
            node = waiting.pop()
            found.append(node)
            if node in self._unfolded:
                waiting += self.children(node)[::-1]
        return found

    def _lay_out(self) -> None:
        self.lines = [MODEL, *self._below(MODEL)]

    # --- what was unfolded, for the next time -----------------------------------------------------------------------

    def key(self, node: int) -> Key:
        """What finds a node again when the model is opened anew."""
        component = self.component(node)
        return (component.name, self.modules[node].path) if component is not None else ("", "")

    def find_key(self, key: Key) -> int | None:
        """The node of a key; None where there is none any more."""
        return self._by_key.get(key)

    @cached_property
    def _by_key(self) -> dict[Key, int]:
        return {self.key(node): node for node in range(len(self.modules))}

    def unfolded_keys(self) -> frozenset[Key]:
        """What is unfolded, the filter aside."""
        return frozenset(self.key(node) for node in (self._unfolded if self._before is None else self._before))

    def unfold_keys(self, keys: Collection[Key]) -> None:
        """Unfold these and nothing else."""
        self._unfolded = {MODEL, *(self._by_key[key] for key in keys if key in self._by_key)}
        self._lay_out()

    # --- order, filter, search --------------------------------------------------------------------------------------

    def sort(self, by: Order | None, values: Mapping[int, float] | None = None) -> None:
        """Bring what stands beside each other into another order; None: as the model runs.

        For `time` it is the nodes' `values`, the greatest first; lines do not move when these change, until it is sorted again.
        """
        self.sorted_by, self._values = by, values or {}
        self._lay_out()

    def keep_class(self, class_name: str) -> None:
        """Show only modules of a class and what holds them, all unfolded; empty shows everything, folded as before."""
        if self._before is not None:
            self._unfolded, self._before, self._kept = self._before, None, None
        self.only_class = class_name
        if class_name:
            holding: set[int] = {MODEL}
            wanted = [node for node, module in enumerate(self.modules) if node and module.class_name == class_name]
            for node in wanted:
                holding.update(self.ancestors(node))
            self._before, self._unfolded, self._kept = self._unfolded, holding, holding.union(wanted)
        self._lay_out()

    def find(self, query: str) -> Hits:
        """What fits a search, of what the filter leaves; may take its time and run in a thread.

        A component's name finds it, and before a path it is where to look.
        """
        words, nodes = query.strip().lower(), range(1, len(self.modules))
        for first, component in zip(self._firsts, self.anatomy.components, strict=True):
            if words.startswith(f"{component.name.lower()}."):
                words, nodes = words[len(component.name) + 1 :], range(first, self._ends[first])
                break
        named = [first for first in self._firsts if words and first in nodes and words in self.name(first).lower()]
        scores = dict.fromkeys(named, -1)
        for score, node in self._finder.find(words):
            if node in nodes and (not named or words in self.modules[node].path.lower()) and not self._inherits(node, words):
                scores.setdefault(node, score)
        kept = sorted(node for node in scores if self._kept is None or node in self._kept)
        return Hits(kept, min(kept, key=lambda node: (scores[node], node), default=None))

    def _inherits(self, node: int, query: str) -> bool:
        """Whether a module fits a search only by the path of what holds it, which is found itself."""
        module, words = self.modules[node], query.split()
        above, _, name = module.path.lower().rpartition(".")
        return all(word in above for word in words) and not any(
            word in name or word in module.class_name.lower() for word in words
        )

    @cached_property
    def _finder(self) -> Finder:
        """Over all components at once: what is found by name in one is not guessed at in the others."""
        return Finder(Component(name="", modules=tuple(self.modules)))


def _whole(anatomy: Anatomy) -> Module:
    """The model as a module, for its line."""
    dtypes = dict.fromkeys(dtype for component in anatomy.components for dtype in component.root.dtypes)
    return Module(
        path="",
        class_name=anatomy.metadata.get("pipeline", "") if anatomy.kind == "pipeline" else "",
        total_parameters=anatomy.parameters,
        bytes=anatomy.bytes,
        dtypes=tuple(dtypes),
    )


def _branches(depths: Sequence[int]) -> tuple[list[int], list[int]]:
    """For each node the one behind its branch, and its parent."""
    ends: list[int] = []
    parents: list[int] = []
    open_branches: list[int] = []
    for node, depth in enumerate(depths):
        while len(open_branches) > depth:
            ends[open_branches.pop()] = node
        parents.append(open_branches[-1] if open_branches else MODEL)
        ends.append(0)
        open_branches.append(node)
    for node in open_branches:
        ends[node] = len(ends)
    return ends, parents
