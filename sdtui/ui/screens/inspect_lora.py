"""A LoRA on the tree of the Inspect screen: which modules it changes, by how much, and what of it fits nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from sdtui.anatomy.files import read_tensors
from sdtui.anatomy.lora import LoraPair, is_lora, read_lora
from sdtui.anatomy.lora_fit import Placed, change_norms, fit
from sdtui.anatomy.read import locate
from sdtui.anatomy.structs import AnatomyError
from sdtui.text import count_noun, safe_text
from sdtui.ui.outline import Outline
from sdtui.ui.screens.inspect_find import take_hits

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect import InspectScreen

_MOST_NAMES = 3


class Applied(NamedTuple):
    """What a LoRA does to a model: sentences for each node, and one about all of it."""

    told: dict[int, list[str]]
    summary: str


async def show_lora(screen: InspectScreen, source: str) -> None:
    """Mark the modules that a LoRA changes."""
    outline = screen.outline
    if outline is None:
        return
    try:
        applied = await asyncio.to_thread(apply_lora, outline, source)
    except AnatomyError as error:
        screen.show_notice(safe_text(str(error), limit=600), "error")
        return
    except OSError as error:
        screen.show_notice(f"{safe_text(source[:1000], limit=120)} cannot be read: {error.strerror}.", "error")
        return
    if outline is not screen.outline:
        return
    take_hits(screen, sorted(applied.told))
    screen.differences = applied.told
    if screen.hits:
        screen.tree_lines.go_to(screen.hits[0])
    screen.show_page()
    screen.show_notice(applied.summary, "accent" if screen.hits else "warning")


def apply_lora(outline: Outline, source: str) -> Applied:
    """Read a LoRA and find its modules. Raises `AnatomyError`, `OSError`."""
    path = locate(source)
    tensors = read_tensors(path)
    if not is_lora(tensors.entries):
        raise AnatomyError(f"{safe_text(str(path), limit=300)} is no LoRA; o opens it as a model.")
    lora = read_lora(tensors)
    found = fit(lora, outline.anatomy)
    norms = {(pair.component, pair.path): norm for pair, norm in change_norms(lora, tensors)}
    told: dict[int, list[str]] = {}
    for placed in found.placed:
        node = outline.find_key((placed.component, placed.path))
        if node is not None:
            told.setdefault(node, []).append(_sentence(placed, norms.get((placed.pair.component, placed.pair.path))))
    nowhere = [*(f"{pair.component}.{pair.path}" for pair in found.nowhere), *found.unknown]
    sure = f"{lora.family.name}, {lora.family.sure:.0%} sure".replace("%", " %") if lora.family.sure else "an unknown model"
    ranks = f", rank {', '.join(map(str, lora.ranks))}" if lora.ranks else ""
    parts = [f"{count_noun(len(lora.pairs), 'change')}{ranks}, made for {sure}", _left_over(nowhere)]
    return Applied(
        told, safe_text("; ".join(part for part in parts if part), limit=500) + ("; n goes on, esc leaves." if told else ".")
    )


def _left_over(nowhere: list[str]) -> str:
    if not nowhere:
        return ""
    named = ", ".join(safe_text(name[:300], limit=80) for name in nowhere[:_MOST_NAMES])
    more = f" and {len(nowhere) - _MOST_NAMES:,} more" if len(nowhere) > _MOST_NAMES else ""
    return f"{len(nowhere):,} fit nothing here: {named}{more}"


def _sentence(placed: Placed, norm: float | None) -> str:
    """What changes a module: kind, rank, alpha, the norm of the change, and why it does not fit, where it does not."""
    pair: LoraPair = placed.pair
    facts = [pair.kind, f"rank {pair.rank}" if pair.rank else "", f"alpha {pair.alpha:g}" if pair.alpha is not None else ""]
    facts += [f"norm of the change {norm:.3g}" if norm is not None else "", f"! {placed.problem}" if placed.problem else ""]
    return f"+ {', '.join(fact for fact in facts if fact)}"
