"""What stands around the words view: its titles, and the sentences where there is nothing to see."""

from __future__ import annotations

from typing import Final

from textual.content import Content

from sdtui.text import safe_text
from sdtui.ui.inspected_words import InspectedWords, Look

_HOW: Final = "Choose words under F7 in Create, or run `sdtui generate --words`."
NO_JOB: Final = f"No job was inspected yet.\n{_HOW}"
_NO_MAPS: Final = f"Job {{job}} kept no maps of its words.\n{_HOW}\nModels without cross-attention to the prompt have none."
_NO_WORDS: Final = "The prompt of job {job} has no words."


def sentence(opened: InspectedWords) -> str:
    """Why a job has no words to show."""
    words = _NO_MAPS if opened.facts.words is None else _NO_WORDS
    return words.format(job=safe_text(opened.facts.job, limit=80))


def title(opened: InspectedWords | None, look: Look | None, heat: str) -> Content:
    """What is seen and how strongly: two words in the hues in which they are seen."""
    if opened is None or look is None:
        return Content("Words")
    if look.step is not None:
        return Content(f"Guidance · step {look.step + 1} of {opened.facts.steps} · {heat}")
    shown = [safe_text(opened.words[word].text, limit=30) for word in look.words]
    if len(shown) == 1:
        return Content(f"Words · {shown[0]} · {heat}")
    return Content.assemble("Words · ", (shown[0], opened.hues[0]), " and ", (shown[1], opened.hues[1]), f" · {heat}")


def subtitle(opened: InspectedWords | None, look: Look | None) -> Content:
    """Of which job that is."""
    if opened is None:
        return Content("")
    facts = opened.facts
    parts = [safe_text(facts.job, limit=40), safe_text(facts.model, limit=40)]
    if facts.batch_index:
        parts.append(f"batch {facts.batch_index + 1}")
    if look is not None and opened.images > 1:
        parts.append(f"picture {look.image + 1} of {opened.images}")
    parts.append(f"{facts.steps} steps")
    if look is not None and look.step is None:
        parts.append(" + ".join(f"{high}×{wide}" for high, wide in look.resolutions) or "all maps")
    return Content(" · ".join(part for part in parts if part))
