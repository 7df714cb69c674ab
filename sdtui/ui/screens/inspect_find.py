"""Finding and comparing on the Inspect screen: what was found is marked in the tree, and gone through."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from sdtui.anatomy.structs import AnatomyError
from sdtui.protocol import CompareWeights
from sdtui.text import count_noun, safe_text
from sdtui.ui.outline import Hits
from sdtui.ui.screens.inspect_models import compare, weights_told

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect import InspectScreen


async def find(screen: InspectScreen, words: str) -> None:
    """Mark what fits, and go to what fits best."""
    outline = screen.outline
    if outline is None:
        return
    found = await asyncio.to_thread(outline.find, words) if words.strip() else Hits([], None)
    if outline is not screen.outline:
        return
    take_hits(screen, found.nodes)
    if found.best is not None:
        screen.tree_lines.go_to(found.best)
    elif words.strip():
        screen.show_notice(f"Nothing fits “{safe_text(words.strip(), limit=60)}”.", "warning")
    _say_hit(screen)


async def compare_with(screen: InspectScreen, other: str) -> None:
    """Mark in what another model differs."""
    outline = screen.outline
    if outline is None:
        return
    try:
        found = await asyncio.to_thread(compare, outline, other)
    except AnatomyError as error:
        screen.show_notice(safe_text(str(error), limit=600), "error")
        return
    if outline is not screen.outline:
        return
    take_hits(screen, found.places)
    screen.differences, screen.compared_with = found.told, other
    dtypes = f", and {count_noun(found.dtypes, 'tensor')} of another dtype" if found.dtypes else ""
    shown = safe_text(other[:1000], limit=120)
    if found.structure:
        many = count_noun(found.structure, "difference")
        words = f"{many} in structure from {shown}{dtypes}; n goes on, W compares numbers, esc leaves."
    else:
        words = f"No difference in structure from {shown}{dtypes}; W compares numbers."
    if screen.hits:
        screen.tree_lines.go_to(screen.hits[0])
    screen.show_page()
    screen.show_notice(words, "accent" if screen.hits else "success")


async def compare_weights(screen: InspectScreen) -> None:
    """Read the numbers of what is selected in both models, and mark the tensors that differ."""
    from sdtui.server.inspector import InspectorError

    outline, node, other = screen.outline, screen.tree_lines.selected, screen.compared_with
    if outline is None or node is None or not other:
        return
    component = outline.component(node)
    asked = [outline.key(node)] if component is not None else [(part.name, "") for part in outline.anatomy.components]
    replies, troubles = [], []
    for name, path in asked:
        request = CompareWeights(request=0, model=screen.source, other=other, component=name, path=path)
        try:
            replies.append(await screen.inspector.request(request))
        except InspectorError as error:
            troubles.append(str(error))
    if outline is not screen.outline:
        return
    if not replies:
        screen.show_notice(safe_text(" ".join(troubles), limit=600), "error")
        return
    found = await asyncio.to_thread(weights_told, outline, replies)
    take_hits(screen, found.places)
    screen.differences, screen.compared_with = found.told, other
    compared, differing = sum(reply.compared for reply in replies), sum(reply.compared - reply.same for reply in replies)
    if screen.hits:
        screen.tree_lines.go_to(screen.hits[0])
    screen.show_page()
    where = safe_text(outline.name(node), limit=60)
    words = f"{differing:,} of {count_noun(compared, 'tensor')} of {where} have other numbers" if differing else ""
    same = f"All {count_noun(compared, 'tensor')} of {where} have the same numbers."
    screen.show_notice(f"{words}; n goes on, esc leaves." if words else same, "accent" if words else "success")


def take_hits(screen: InspectScreen, nodes: list[int]) -> None:
    """Mark these instead of what was found before."""
    had_differences = bool(screen.differences)
    screen.hits, screen.differences, screen.compared_with = nodes, {}, ""
    screen.tree_lines.mark(frozenset(nodes))
    if had_differences:
        screen.show_page()
    screen.show_notice("")
    screen.refresh_bindings()


def next_hit(screen: InspectScreen, *, forward: bool) -> None:
    """The next that was found, in the tree's order and round its ends."""
    here = screen.tree_lines.selected
    if not screen.hits or here is None:
        return
    place = bisect_right(screen.hits, here) if forward else bisect_left(screen.hits, here) - 1
    screen.tree_lines.go_to(screen.hits[place % len(screen.hits)])
    _say_hit(screen)


def _say_hit(screen: InspectScreen) -> None:
    if screen.hits and (here := screen.tree_lines.selected) is not None:
        place = bisect_right(screen.hits, here)
        what = "marked" if screen.differences else "found"
        screen.show_notice(f"{place:,} of {len(screen.hits):,} {what}", "accent")
