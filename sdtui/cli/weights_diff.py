"""`sdtui inspect MODEL --diff OTHER --weights`: by how much the numbers of two models differ, tensor by tensor."""

from __future__ import annotations

import asyncio
import sys

from sdtui.anatomy.structs import Anatomy
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json
from sdtui.protocol import CompareWeights, WeightsCompared, as_json
from sdtui.server.inspector import Inspector, InspectorError
from sdtui.text import count_noun, safe_text


def run(left: Anatomy, right: Anatomy, component: str | None, *, json: bool) -> int:
    """Ask an inspector process component by component, and print the answers."""
    common = [part.name for part in left.components if any(m.weights for m in part.modules) and right.component(part.name)]
    names = [name for name in common if component in (None, name)]
    if not names:
        there = ", ".join(map(safe_text, common)) or "no component"
        asked = f"--component: {safe_text(component, limit=60)!r} is not in both models; " if component else ""
        raise CommandError(f"{asked}in both of them is {there}.", EXIT_BAD_INPUT)
    if not json and sys.stderr.isatty():
        note("Reading the numbers of both; importing torch takes a few seconds, large models take a minute.")
    try:
        replies = asyncio.run(_ask(left.source, right.source, names))
    except InspectorError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error
    for reply in replies:
        _print(reply, json=json)
    return EXIT_DONE


async def _ask(left: str, right: str, names: list[str]) -> list[WeightsCompared]:
    inspector = Inspector()
    try:
        return [await inspector.request(CompareWeights(request=0, model=left, other=right, component=name)) for name in names]
    finally:
        await inspector.close()


def _print(reply: WeightsCompared, *, json: bool) -> None:
    if json:
        result_json(as_json(reply))
        return
    component = safe_text(reply.component, limit=60)
    for entry in reply.differences:
        where = ".".join(safe_text(part, limit=200) for part in (component, entry.path, entry.name) if part)
        result(f"{where}: {entry.told}")
    differing = reply.compared - reply.same
    many = count_noun(reply.compared, "tensor")
    result(f"{component}: {differing:,} of {many} have other numbers." if differing else f"{component}: all {many} are the same.")
