"""A model's tree as lines: which modules are shown, what is said of each, and how terminals and pipes get them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sdtui.anatomy.find import Finder, SortBy, in_order
from sdtui.anatomy.structs import Anatomy, Component, Module, Weight
from sdtui.anatomy.tree import ModuleTree
from sdtui.cli.output import result
from sdtui.text import count_noun, format_bytes, safe_text

USUAL_DEPTH: Final = 2
"""Blocks, and what they hold; a U-Net down to its last layer is a thousand lines."""
_MOST_WEIGHTS: Final = 6
_IN_THE_SHAPE: Final = frozenset({"in", "out", "kernel", "rows", "width", "channels"})
"""Settings that the shape of the weight beside them says already."""
_LONGEST: Final = 60


@dataclass(frozen=True)
class View:
    """What of a model is shown."""

    depth: int | None = None
    """Below the component; None for the usual one, or for all where something was searched for."""
    query: str = ""
    sort: SortBy | None = None
    notes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """More to say at modules, by component and path; where there are any, only these modules are shown."""


@dataclass(frozen=True)
class Row:
    """A module that is shown."""

    level: int
    component: Component
    module: Module
    below: int
    """How many modules below it are not shown."""
    note: str = ""


def rows(component: Component, view: View) -> Iterator[Row]:
    """The modules of a component that are shown, in the tree's order or sorted among those beside them."""
    tree = ModuleTree(component)
    wanted = _wanted(tree, view)
    depth = view.depth if view.depth is not None else len(component.modules) if wanted is not None else USUAL_DEPTH
    notes = view.notes.get(component.name, {})
    waiting = [(0, tree.root)] if wanted is None or wanted else []
    while waiting:
        level, module = waiting.pop()
        children = [child for child in tree.children(module.path) if wanted is None or child.path in wanted]
        shown = in_order(children, view.sort) if level < depth else []
        below = len(tree.branch(module.path)) - 1 if not shown and wanted is None else 0
        yield Row(level, component, module, below, notes.get(module.path, ""))
        waiting += [(level + 1, child) for child in reversed(shown)]


def _wanted(tree: ModuleTree, view: View) -> Collection[str] | None:
    """The paths of what was searched for and of all that holds it; None where everything is shown."""
    component = tree.component
    if not view.query and not view.notes:
        return None
    if view.query:
        found = {tree.modules[hit.place].path for hit in Finder(component).find(view.query)}
    else:
        found = {module.path for module in tree.modules}
    if view.notes:
        found &= view.notes.get(component.name, {}).keys()
    return found | {above.path for path in found for above in tree.ancestors(path)}


# --- what is said -----------------------------------------------------------------------------------------------------


def headline(anatomy: Anatomy) -> list[str]:
    """What the model is, in a line or two."""
    source = safe_text(anatomy.source, limit=200)
    first = f"{source}: {anatomy.kind}, {_many(anatomy.parameters)} parameters, {format_bytes(anatomy.bytes)}"
    if anatomy.family != "unknown":
        return [first, f"family: {anatomy.family}, {anatomy.sure:.0%} sure: {safe_text(anatomy.why)}"]
    return [first, f"family: unknown{'; ' if anatomy.why else ''}{safe_text(anatomy.why)}"]


def _many(count: int) -> str:
    """`860 M`, `1,234`."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} G"
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def name_of(row: Row) -> str:
    """The component's name, or the last part of the module's path."""
    return safe_text(row.module.name if row.module.path else row.component.name, limit=_LONGEST) or "''"


def class_of(module: Module) -> str:
    """The class, with a question mark where it is guessed."""
    return safe_text(module.class_name, limit=_LONGEST) + ("?" if module.guessed else "")


def numbers_of(row: Row) -> tuple[str, str, str, str]:
    """Parameters, their share of the component, bytes, dtypes."""
    module = row.module
    if not module.bytes and not module.total_parameters:
        return "", "", "", ""
    dtypes = "/".join(safe_text(dtype, limit=12) for dtype in module.dtypes[:3])
    return f"{module.total_parameters:,}", f"{row.component.share(module):.1%}", format_bytes(module.bytes), dtypes


def details_of(row: Row) -> str:
    """Weights with their shapes, settings, and what is left out."""
    module = row.module
    weights = [weight for weight in module.weights if weight.shape or not weight.buffer]
    said = [", ".join(_weight(weight) for weight in weights[:_MOST_WEIGHTS])] if weights else []
    if len(weights) > _MOST_WEIGHTS:
        said.append(f"and {count_noun(len(weights) - _MOST_WEIGHTS, 'tensor')} more")
    if module.path:
        settings = {key: value for key, value in module.settings.items() if key not in _IN_THE_SHAPE}
        said += [f"{safe_text(key)} {safe_text(value, limit=_LONGEST)}" for key, value in settings.items()]
    if row.below:
        said.append(f"(+{count_noun(row.below, 'module')})")
    return "  ".join(said)


def _weight(weight: Weight) -> str:
    name = safe_text(weight.name, limit=_LONGEST)
    return f"{name} {'x'.join(map(str, weight.shape)) or 'scalar'}"


def problems_of(row: Row) -> list[str]:
    """What is wrong at a module; at the component's own, what is wrong with its files."""
    found = (*row.component.problems, *row.module.problems) if not row.module.path else row.module.problems
    return [safe_text(problem, limit=300) for problem in found]


# --- how it is shown --------------------------------------------------------------------------------------------------


def show(anatomy: Anatomy, components: Sequence[Component], view: View) -> None:
    """The model as a tree on a terminal, as aligned lines in a pipe."""
    found = [row for component in components for row in rows(component, view)]
    if sys.stdout.isatty():
        _show_tree(headline(anatomy), found)
    else:
        for line in (*headline(anatomy), *_lines(found)):
            result(line)


def _lines(found: Sequence[Row]) -> Iterator[str]:
    widths = [0] * 6
    cells = []
    for row in found:
        line = ("  " * row.level + name_of(row), class_of(row.module), *numbers_of(row))
        widths = [max(width, len(cell)) for width, cell in zip(widths, line, strict=True)]
        cells.append(line)
    for row, (name, class_name, *numbers) in zip(found, cells, strict=True):
        if row.level == 0:
            yield ""
        columns = [name.ljust(widths[0]), class_name.ljust(widths[1])]
        columns += [number.rjust(width) for number, width in zip(numbers[:3], widths[2:5], strict=True)]
        columns += [numbers[3].ljust(widths[5]), details_of(row), safe_text(row.note)]
        yield "  ".join(columns).rstrip()
        for problem in problems_of(row):
            yield f"{'  ' * (row.level + 1)}! {problem}"


def _show_tree(head: Sequence[str], found: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    console = Console(markup=False, highlight=False, emoji=False)
    console.print(Text(head[0], "bold"))
    for line in head[1:]:
        console.print(Text(line, "dim"))
    branches: list[Tree] = []
    roots: list[Tree] = []
    for row in found:
        parameters, share, size, dtypes = numbers_of(row)
        label = Text()
        label.append(name_of(row), "bold")
        for text, style in (
            (class_of(row.module), "cyan"),
            (safe_text(row.note), "magenta"),
            (parameters, "green"),
            (share if row.level else "", "dim"),
            (size, ""),
            (dtypes, "dim"),
            (details_of(row), "dim"),
        ):
            if text:
                label.append("  ").append(text, style)
        del branches[row.level :]
        branch = branches[-1].add(label) if branches else Tree(label, guide_style="dim")
        if not branches:
            roots.append(branch)
        branches.append(branch)
        for problem in problems_of(row):
            branch.add(Text(f"! {problem}", "yellow"))
    for root in roots:
        console.print(root)
