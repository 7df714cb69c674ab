"""A component's modules as a tree whose nodes are made when they are asked for: ends of branches, and nothing else, up front."""

from __future__ import annotations

from collections.abc import Iterator

from sdtui.anatomy.structs import Component, Module


def parent_path(path: str) -> str:
    """The path of the module that holds this one; the component's own is empty."""
    return path.rpartition(".")[0]


class ModuleTree:
    """Finds parents and children among a component's modules, which stand in depth-first order.

    For each module the index behind its branch is kept, so the children of one are found by leaping from branch to branch,
    and a module by its path in one look.
    """

    def __init__(self, component: Component) -> None:
        self.component = component
        self.modules = component.modules
        self._index = {module.path: index for index, module in enumerate(self.modules)}
        self._ends, self._parents = _branches(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    @property
    def root(self) -> Module:
        """The component as a module."""
        return self.modules[0]

    def module(self, path: str) -> Module | None:
        """The module at a path; None where there is none."""
        index = self._index.get(path)
        return None if index is None else self.modules[index]

    def children(self, path: str) -> list[Module]:
        """The modules right below one, in order; none for a path that does not exist."""
        index = self._index.get(path)
        if index is None:
            return []
        found, child, end = [], index + 1, self._ends[index]
        while child < end:
            found.append(self.modules[child])
            child = self._ends[child]
        return found

    def has_children(self, path: str) -> bool:
        """Whether anything stands below a module."""
        index = self._index.get(path)
        return index is not None and self._ends[index] > index + 1

    def branch(self, path: str) -> tuple[Module, ...]:
        """A module and all below it, depth first."""
        index = self._index.get(path)
        return () if index is None else self.modules[index : self._ends[index]]

    def parent(self, path: str) -> Module | None:
        """The module that holds this one; None for the component itself."""
        index = self._index.get(path)
        above = -1 if index is None else self._parents[index]
        return self.modules[above] if above >= 0 else None

    def ancestors(self, path: str) -> list[Module]:
        """Those that hold a module, the component first; what must be unfolded to see it."""
        found: list[Module] = []
        above = self.parent(path)
        while above is not None:
            found.append(above)
            above = self.parent(above.path)
        return found[::-1]

    def nearest(self, path: str) -> Module:
        """The module at a path, or the closest above it that exists."""
        while path and path not in self._index:
            path = parent_path(path)
        return self.module(path) or self.root

    def walk(self, path: str = "", *, depth: int | None = None) -> Iterator[tuple[int, Module]]:
        """A branch depth first, each module with its depth below the first, down to `depth`."""
        start = self._index.get(path)
        if start is None:
            return
        ends: list[int] = []
        index = start
        while index < self._ends[start]:
            while ends and ends[-1] <= index:
                ends.pop()
            level = len(ends)
            yield level, self.modules[index]
            if depth is not None and level >= depth:
                index = self._ends[index]
            else:
                ends.append(self._ends[index])
                index += 1


def _branches(modules: tuple[Module, ...]) -> tuple[list[int], list[int]]:
    """For each module the index behind its branch, and that of its parent, -1 for the first."""
    ends, parents = [len(modules)] * len(modules), [-1] * len(modules)
    open_branches: list[int] = []
    for index, module in enumerate(modules):
        above = parent_path(module.path)
        while len(open_branches) > 1 and modules[open_branches[-1]].path != above:
            ends[open_branches.pop()] = index
        if open_branches:
            parents[index] = open_branches[-1]
        open_branches.append(index)
    return ends, parents
