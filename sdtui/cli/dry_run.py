"""`sdtui inspect MODEL --shapes WxH`: what goes through every module, what it costs, and what a job would need."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json, table
from sdtui.protocol import DryModule, DryRunDone, DryStage, RunDry, TensorFact, as_json
from sdtui.server.inspector import Inspector, InspectorError
from sdtui.text import count_noun, format_bytes, safe_text

_USUAL_DEPTH: Final = 2
_MOST_TENSORS: Final = 2
"""Of one module's inputs or outputs; a block of the U-Net's way up takes five."""
_OWN: Final = "auto"
_SIZE: Final = re.compile(r"(\d{1,9})x(\d{1,9})")
_STEPS: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def run(request: RunDry, *, component: str | None = None, depth: int | None = None, query: str = "", json: bool = False) -> int:
    """Ask an inspector process, and print the answer."""
    if not json and sys.stderr.isatty():
        note("Following one forward of each network without its weights; importing torch takes a few seconds.")
    try:
        done = asyncio.run(_ask(request))
    except InspectorError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error
    stages = [stage for stage in done.stages if component in (None, stage.component)]
    if not stages:
        there = ", ".join(stage.component for stage in done.stages)
        raise CommandError(f"--component: {safe_text(component or '')!r} is not run; these are: {there}.", EXIT_BAD_INPUT)
    if json:
        result_json(as_json(done))
        return EXIT_DONE
    for line in _lines(done, stages, depth, query):
        result(line)
    for reason in done.skipped:
        note(f"Not run: {reason}")
    return EXIT_DONE


def size_of(shapes: str) -> tuple[int, int]:
    """Width and height of `512x768`; zeros, which stand for the model's own, of `auto`. Raises `CommandError`."""
    if shapes == _OWN:
        return 0, 0
    found = _SIZE.fullmatch(shapes)
    if found is None or not int(found[1]) or not int(found[2]):
        shown = safe_text(shapes, limit=60)
        raise CommandError(f"--shapes: {shown!r} is no size such as 512x768, nor {_OWN}.", EXIT_BAD_INPUT)
    return int(found[1]), int(found[2])


async def _ask(request: RunDry) -> DryRunDone:
    inspector = Inspector()
    try:
        return await inspector.request(request)
    finally:
        await inspector.close()


def _lines(done: DryRunDone, stages: Sequence[DryStage], depth: int | None, query: str) -> Iterator[str]:
    guided = "with guidance" if done.guidance else "without guidance"
    pictures = count_noun(done.batch_size, "picture")
    yield f"{done.width_px}x{done.height_px}, {pictures}, {guided}, {done.dtype}, one forward of each network:"
    rows: list[tuple[str, ...]] = [("module", "class", "in", "out", "multiply-adds", "share", "output")]
    for stage in stages:
        rows += [_row(stage, module) for module in _shown(stage, depth, query)]
    yield from table(rows, right=(4, 5, 6))
    yield ""
    for stage in stages:
        yield (
            f"{stage.component}: {_macs(stage.macs)} multiply-adds, weights {format_bytes(stage.weight_bytes)}, "
            f"at most {format_bytes(stage.peak_bytes)} of activations alive at once"
        )
    yield f"A job needs about {format_bytes(done.peak_bytes)} of memory. {done.how}"


def _shown(stage: DryStage, depth: int | None, query: str) -> Iterator[DryModule]:
    """The stage itself, and its modules down to a depth, or, where something is searched for, those that have it."""
    words = query.casefold().split()
    deepest = depth if depth is not None else _USUAL_DEPTH
    if not words and (not stage.modules or stage.modules[0].path):
        yield DryModule(
            path="", class_name=stage.class_name, calls=1, inputs=(), outputs=(), macs=stage.macs, output_bytes=0
        )  # a VAE is asked to decode, and not to go forward
    for module in stage.modules:
        near = _level(module) <= deepest if not words or depth is not None else True
        if near and all(word in _text(stage, module) for word in words):
            yield module


def _text(stage: DryStage, module: DryModule) -> str:
    """What can be searched for."""
    shapes = f"{_shapes(module.inputs)} {_shapes(module.outputs)}"
    return f"{stage.component}.{module.path} {module.class_name} {shapes}".casefold()


def _level(module: DryModule) -> int:
    return module.path.count(".") + 1 if module.path else 0


def _row(stage: DryStage, module: DryModule) -> tuple[str, ...]:
    share = f"{module.macs / stage.macs:.1%}" if stage.macs else ""
    return (
        f"{stage.component}.{module.path}".rstrip("."),
        module.class_name if module.calls == 1 else f"{module.class_name} x{module.calls}",
        _shapes(module.inputs),
        _shapes(module.outputs),
        _macs(module.macs) if module.macs else "",
        share if module.macs else "",
        format_bytes(module.output_bytes) if module.output_bytes else "",
    )


def _shapes(facts: Sequence[TensorFact]) -> str:
    """Shapes as the tree writes those of weights; the rest of many is counted."""
    shown = ["x".join(map(str, fact.shape)) or "scalar" for fact in facts[:_MOST_TENSORS]]
    more = [f"+{len(facts) - _MOST_TENSORS}"] if len(facts) > _MOST_TENSORS else []
    return ", ".join(shown + more)


def _macs(count: int) -> str:
    for step, letter in _STEPS:
        if count >= step:
            return f"{count / step:,.1f} {letter}"
    return str(count)
