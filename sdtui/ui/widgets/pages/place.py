"""The part of the page that says where a module stands: what holds it, what stands beside it, and its block in the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from textual.app import ComposeResult
from textual.getters import query_one

from sdtui.text import count_noun, safe_text
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.rows import Span
from sdtui.ui.schematic_plan import Block, Plan, plan_of, shown_component
from sdtui.ui.widgets.pages.part import Part
from sdtui.ui.widgets.pages.span_view import SpanView

if TYPE_CHECKING:
    from sdtui.server.inspector import Inspector

_REST_S: Final = 0.05
_BESIDE: Final = 2
"""How many of the modules before and after are named."""
_LONGEST: Final = 60
_STEP: Final = 3
"""Cells by which a block stands further in for each time that its resolution was halved."""
_DEEPEST: Final = 6


class PlacePart(Part):
    """Draws from the tree alone: nothing is asked."""

    view = query_one("#place-text", SpanView)

    def __init__(self, *, id: str, inspector: Callable[[], Inspector]) -> None:
        super().__init__(id=id, inspector=inspector)
        self._plan: tuple[Outline, int, Plan | None] | None = None

    def compose(self) -> ComposeResult:
        """The text."""
        yield SpanView(id="place-text")

    def show(self, outline: Outline) -> None:
        """Another module, when the selection has rested: it takes a few milliseconds."""
        self.ask(partial(self._show, outline, self.node))

    async def _show(self, outline: Outline, node: int) -> None:
        await asyncio.sleep(_REST_S)
        root = shown_component(outline, node)
        if root is not None and (self._plan is None or self._plan[0] is not outline or self._plan[1] != root):
            self._plan = (outline, root, plan_of(outline, root))
        plan = self._plan[2] if self._plan is not None and root is not None else None
        self.view.set_spans(place_spans(outline, node, plan), from_top=True)

    def say(self, words: str, tone: str = "muted") -> None:
        """Show a sentence."""
        self.view.set_spans([(f"{words}\n", tone)], from_top=True)


def place_spans(outline: Outline, node: int, plan: Plan | None) -> list[Span]:
    """The way to it, its neighbours, and the blocks of its network."""
    spans: list[Span] = [*_way(outline, node), *_beside(outline, node)]
    if plan is not None:
        spans += _blocks(outline, node, plan)
    return spans


def _way(outline: Outline, node: int) -> Iterator[Span]:
    """What holds it, from the model down, each a little further in."""
    way = [*reversed(list(outline.ancestors(node))), node]
    for depth, step in enumerate(way):
        before = f"{'  ' * (depth - 1)}└ " if depth else ""
        class_name = safe_text(outline.modules[step].class_name[:400], limit=_LONGEST)
        yield before, "muted"
        yield _name(outline, step), "accent" if step == node else "text"
        yield f" {class_name}\n", "muted"


def _beside(outline: Outline, node: int) -> Iterator[Span]:
    """Those before and after it in what holds it."""
    parent = outline.parent(node)
    if parent is None:
        return
    beside = _children(outline, parent)
    at = beside.index(node)
    yield f"\n{at + 1} of {count_noun(len(beside), 'module')} in {_name(outline, parent)}\n", "muted"
    first = max(0, at - _BESIDE)
    for number in range(first, min(len(beside), at + _BESIDE + 1)):
        other = beside[number]
        mark = "▸ " if number == at else "  "
        class_name = safe_text(outline.modules[other].class_name[:400], limit=_LONGEST)
        yield f"{mark}{_name(outline, other)}", "accent" if number == at else "text"
        yield f" {class_name}\n", "muted"


def _blocks(outline: Outline, node: int, plan: Plan) -> Iterator[Span]:
    """The blocks as they run, further in where the resolution is lower; in the marked one its parts, with its own marked."""
    here = plan.owner(outline, node)
    yield f"\n{safe_text(plan.component[:400], limit=_LONGEST)}, in {count_noun(len(plan.blocks), 'block')}\n", "muted"
    holding = {node, *outline.ancestors(node)}
    for number, block in enumerate(plan.blocks):
        yield "▸ " if number == here else "  ", "accent"
        yield " " * (_STEP * min(block.halvings or 0, _DEEPEST)), "muted"
        yield safe_text(block.name[:400], limit=_LONGEST), "accent" if number == here else "text"
        for part in block.parts:
            mine = number == here and part.node in holding
            yield f" {part.letter}" if not mine else f" [{part.letter}]", "accent" if mine else "muted"
        yield f"{_size(block, plan)}\n", "muted"


def _size(block: Block, plan: Plan) -> str:
    """Channels and resolution, as far as they are known."""
    side = plan.size_px >> block.halvings if plan.size_px and block.halvings is not None else 0
    parts = [f"{block.channels:,}"] * bool(block.channels) + [f"{side}×{side}"] * bool(side)
    return f"  {' · '.join(parts)}" if parts else ""


def _children(outline: Outline, node: int) -> list[int]:
    """Those right below, as the files have them, whatever is filtered or sorted."""
    end, child, found = node + 1 + outline.count_below(node), node + 1, []
    while child < end:
        found.append(child)
        child += 1 + outline.count_below(child)
    return found


def _name(outline: Outline, node: int) -> str:
    name = outline.name(node)
    return safe_text(name[:400], limit=_LONGEST) or ("the model" if node == MODEL else "·")
