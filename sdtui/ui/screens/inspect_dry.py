"""What the inspector process adds to a model's tree: exact classes and settings, shapes and multiply-adds of one forward."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from sdtui.anatomy.structs import Anatomy, Component
from sdtui.protocol import DryModule, DryRunDone, DryStage, ReadModules, RunDry, TensorFact
from sdtui.server.inspector import Inspector, InspectorError
from sdtui.text import count_noun, format_bytes, safe_text
from sdtui.ui.module_rows import count_text
from sdtui.ui.outline import MODEL, Key, Outline
from sdtui.ui.rows import shape_text

_MOST_TENSORS = 4


class DryRun(NamedTuple):
    """One forward of each component, by module; None where it could not be run, and why."""

    done: DryRunDone | None
    stages: dict[str, DryStage]
    modules: dict[Key, DryModule]
    trouble: str = ""

    def facts(self, outline: Outline, node: int) -> list[tuple[str, str]]:
        """What is known of a node, as names and values."""
        component = outline.component(node)
        if self.done is None:
            return []
        if component is None:
            return list(_job_facts(self.done)) if node == MODEL else []
        stage = self.stages.get(component.name)
        if stage is None:
            return []
        if outline.is_component(node):
            return list(_stage_facts(stage))
        module = self.modules.get(outline.key(node))
        return list(_module_facts(module, stage)) if module is not None else []


async def look_closer(inspector: Inspector, anatomy: Anatomy, source: str, job: RunDry | None = None) -> tuple[Outline, DryRun]:
    """The tree with its components as their classes make them, and a dry run: of `job` where that is of this model, else at
    the model's own size. Raises `InspectorError` where nothing is known.
    """
    found: list[Component] = []
    troubles: list[str] = []
    for component in anatomy.components:
        try:
            reply = await inspector.request(ReadModules(request=0, model=source, component=component.name))
            found.append(reply.component)
        except InspectorError as error:
            if inspector.pid is None:  # it died; the next component would only start it anew
                raise
            found.append(component)
            troubles.append(str(error))
    if len(troubles) == len(found):
        raise InspectorError(troubles[0] if troubles else "The model has no components.")
    exact = msgspec.structs.replace(anatomy, components=tuple(found))
    outline = await asyncio.to_thread(Outline, exact)
    try:
        done = await inspector.request(job if job is not None and job.model == source else RunDry(request=0, model=source))
    except InspectorError as error:
        return outline, DryRun(None, {}, {}, str(error))
    stages = {stage.component: stage for stage in done.stages}
    modules = {(stage.component, module.path): module for stage in done.stages for module in stage.modules}
    return outline, DryRun(done, stages, modules, " ".join((*troubles, *done.skipped)))


def _job_facts(done: DryRunDone) -> Iterator[tuple[str, str]]:
    yield (
        "dry run",
        f"{done.width_px}×{done.height_px} px, {_batch(done)}{done.dtype}{', with guidance' if done.guidance else ''}",
    )
    for stage in done.stages:
        yield safe_text(stage.component, limit=24), f"{count_text(stage.macs)} multiply-adds"
    yield "memory", f"{format_bytes(done.peak_bytes)} at least, {format_bytes(done.weight_bytes)} of them weights"
    yield "estimate", safe_text(done.how, limit=600)


def _batch(done: DryRunDone) -> str:
    return f"{count_noun(done.batch_size, 'picture')}, " if done.batch_size > 1 else ""


def _stage_facts(stage: DryStage) -> Iterator[tuple[str, str]]:
    yield "forward", f"{count_text(stage.macs)} multiply-adds with a batch of {stage.batch_size}"
    yield "activations", f"{format_bytes(stage.activation_bytes)}, at most {format_bytes(stage.peak_bytes)} at once"


def _module_facts(module: DryModule, stage: DryStage) -> Iterator[tuple[str, str]]:
    yield from _shapes("input", module.inputs)
    yield from _shapes("output", module.outputs)
    if module.macs:
        share = f" ({module.macs / stage.macs:.1%} of the {safe_text(stage.component, limit=24)})" if stage.macs else ""
        yield "work", f"{count_text(module.macs)} multiply-adds{share}".replace("%", " %")
    yield "activation", format_bytes(module.output_bytes) + (f" in {module.calls} calls" if module.calls > 1 else "")


def _shapes(label: str, tensors: tuple[TensorFact, ...]) -> Iterator[tuple[str, str]]:
    for tensor in tensors[:_MOST_TENSORS]:
        name = f" {safe_text(tensor.name, limit=40)}" if tensor.name not in ("", "input", "output") else ""
        yield label, f"{shape_text(tensor.shape)}{name}"
