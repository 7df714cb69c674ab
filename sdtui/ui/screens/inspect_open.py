"""Opening a model on the Inspect screen: from its files, from a refused pickle, and once more with its classes built."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sdtui.anatomy.structs import AnatomyError, PickleRefused
from sdtui.text import safe_text
from sdtui.ui.outline import Outline
from sdtui.ui.screens.inspect_models import read_outline

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect import InspectScreen


async def open_model(screen: InspectScreen, source: str) -> None:
    """Read a model's files and show its tree."""
    screen.refused_pickle = ""
    try:
        outline = await asyncio.to_thread(read_outline, source)
    except PickleRefused as refused:
        screen.refused_pickle = str(refused.path)
        screen.show_notice(f"{safe_text(str(refused), limit=500)} X reads its shapes, and runs no code of it.", "error")
        return
    except AnatomyError as error:
        screen.show_notice(safe_text(str(error), limit=600), "error")
        return
    screen.show_outline(source, outline)
    screen.show_notice(*_problem_line(outline))


async def read_pickle(screen: InspectScreen, path: str) -> None:
    """Have the shapes in a pickle read by the process beside, and show their tree."""
    from sdtui.protocol import ReadPickle
    from sdtui.server.inspector import InspectorError

    try:
        reply = await screen.inspector.request(ReadPickle(request=0, model=path))
    except InspectorError as error:
        screen.show_notice(safe_text(str(error), limit=600), "error")
        return
    outline = await asyncio.to_thread(Outline, reply.anatomy)
    screen.show_outline(path, outline)
    screen.show_notice(*_problem_line(outline))


async def look_closer(screen: InspectScreen, outline: Outline) -> None:
    """Have the classes built and run once without numbers, and show the exact tree."""
    from sdtui.server.inspector import InspectorError
    from sdtui.ui.screens import inspect_dry

    try:
        exact, dry_run = await inspect_dry.look_closer(screen.inspector, outline.anatomy, screen.source, screen.form_job)
    except InspectorError as error:
        screen.show_notice(safe_text(str(error), limit=600), "error")
        return
    exact.sort(outline.sorted_by)
    screen.show_outline(screen.source, exact, dry_run)
    words, tone = _problem_line(exact)
    trouble = safe_text(dry_run.trouble, limit=400)
    done = "Classes are exact now, and the pages tell shapes and work."
    screen.show_notice(*((words, tone) if words else (trouble, "warning") if trouble else (done, "success")))


def _problem_line(outline: Outline) -> tuple[str, str]:
    """The first problem of the model and how many more there are, for the line below; empty where there is none."""
    anatomy = outline.anatomy
    found = [*anatomy.problems]
    for component in anatomy.components:
        found += [f"{component.name}: {problem}" for problem in component.problems]
        found += [f"{component.name}.{module.path}: {problem}" for module in component.modules for problem in module.problems]
    if not found:
        return "", "muted"
    more = f" (and {len(found) - 1:,} more, marked !)" if len(found) > 1 else ""
    return safe_text(found[0][:2000], limit=400) + more, "warning"
