"""Everything that is known of one module, of a component, or of the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from rich.cells import cell_len

from sdtui.anatomy.structs import Component, Module
from sdtui.text import count_noun, format_bytes, safe_text
from sdtui.ui.live_figures import Told
from sdtui.ui.module_rows import count_text
from sdtui.ui.outline import Outline
from sdtui.ui.rows import Span, shape_text
from sdtui.ui.widgets.pages.span_view import SpanView

_LABEL, _WIDEST_LABEL = 12, 26
_TEXT_LIMIT: Final = 300
_MOST: Final = 100
"""Lines of one kind: weights, files, what a file says of itself."""
_NOTHING: Final = "No model is open. o opens one."


class ModulePage(SpanView):
    """The page of the selected node."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__([(_NOTHING, "muted")], id=id)
        self._shown: tuple[Outline, int] | None = None

    def show(
        self,
        outline: Outline,
        node: int,
        differences: Sequence[str] = (),
        runs: Sequence[tuple[str, str]] = (),
        live: Told | None = None,
    ) -> None:
        """Another node, from its beginning, or newer figures of the same.

        `differences`: in what another model differs here; `runs`: how it runs; `live`: what it did in the last inspected job.
        """
        before, self._shown = self._shown, (outline, node)
        other = before is None or before[0] is not outline or before[1] != node
        self.set_spans([*_differences(differences), *page_spans(outline, node, runs, live)], from_top=other)


def page_spans(outline: Outline, node: int, runs: Sequence[tuple[str, str]] = (), live: Told | None = None) -> list[Span]:
    """The text with its tones; lines end with newlines and are wrapped by who shows them."""
    how: list[Span] = [("\nin one forward\n", "muted"), *fact_spans(runs)] if runs else []
    how += [("\nin the log\n", "muted"), *fact_spans(live.lines)] if live is not None and live.lines else []
    component = outline.component(node)
    if component is None:
        return [*_model_spans(outline), *how]
    spans: list[Span] = [(f"{_safe(outline.path(node), 2000)}\n", "text")]
    module = outline.modules[node]
    whole = outline.is_component(node)
    spans += _problems((*component.problems, *module.problems) if whole else module.problems)
    spans.append(("\n", "text"))
    if live is not None and live.figures:
        spans += [("in the last inspected job\n", "muted"), *fact_spans(live.figures), ("\n", "text")]
    spans += fact_spans(_module_facts(outline, node, component, module))
    spans += how
    if module.weights:
        spans.append((f"\n{count_noun(len(module.weights), 'tensor')}\n", "muted"))
        spans += _weights(module)
    if module.settings:
        spans.append(("\nsettings\n", "muted"))
        spans += fact_spans((_safe(name, 40), _safe(value)) for name, value in module.settings.items())
    if whole:
        spans += _list("file", component.files)
    return spans


def _module_facts(outline: Outline, node: int, component: Component, module: Module) -> Iterable[tuple[str, str]]:
    whole = outline.is_component(node)
    if module.class_name:
        yield "class", _safe(module.class_name) + (" (guessed)" if module.guessed else "")
    if whole and component.library:
        yield "library", _safe(component.library)
    if module.total_parameters:
        yield "parameters", _count(module.total_parameters)
        if module.own_parameters and module.own_parameters != module.total_parameters:
            yield "own", _count(module.own_parameters)
        of = "model" if whole else _safe(component.name, 40)
        yield "share", f"{outline.share(node):.2%} of the {of}".replace("%", " %")
    if module.bytes:
        yield "size", f"{format_bytes(module.bytes)} as {', '.join(_safe(dtype, 10) for dtype in module.dtypes)}"
    inside = outline.count_below(node)
    if inside:
        yield "holds", count_noun(inside, "module")


def _model_spans(outline: Outline) -> list[Span]:
    anatomy = outline.anatomy
    spans: list[Span] = [(f"{_safe(anatomy.source, 2000)}\n", "text"), *_problems(anatomy.problems), ("\n", "text")]
    spans += fact_spans(_model_facts(outline))
    spans.append((f"\n{count_noun(len(anatomy.components), 'component')}\n", "muted"))
    for component in anatomy.components:
        root = component.root
        size = f" {count_text(root.total_parameters):>8} {format_bytes(root.bytes):>8}" if root.bytes else ""
        name = _safe(component.name, 18)
        spans += [(f"{name:<18}", "text"), (f"{size or '  ' + _safe(component.class_name, 60)}\n", "muted")]
    if anatomy.metadata:
        spans.append(("\nthe file says\n" if anatomy.kind != "pipeline" else "\n", "muted"))
        spans += fact_spans((_safe(name, 60), _safe(value)) for name, value in islice(anatomy.metadata.items(), _MOST))
    return spans


def _model_facts(outline: Outline) -> Iterable[tuple[str, str]]:
    anatomy = outline.anatomy
    yield "kind", anatomy.kind
    sure = f", {anatomy.sure * 100:.0f} % sure" if anatomy.sure else ""
    yield "family", _safe(anatomy.family) + sure
    if anatomy.why:
        yield "told by", _safe(anatomy.why)
    yield "parameters", _count(anatomy.parameters)
    yield "size", format_bytes(anatomy.bytes)


def _count(count: int) -> str:
    return f"{count:,}" + (f" ({count_text(count)})" if count >= 1_000_000 else "")


def fact_spans(facts: Iterable[tuple[str, str]]) -> Iterable[Span]:
    """Names and values in two columns; both are safe."""
    facts = list(facts)
    width = max(_LABEL, min(_WIDEST_LABEL, max((cell_len(label) for label, _ in facts), default=0) + 1))
    for label, value in facts:
        yield label + " " * max(1, width - cell_len(label)), "muted"
        yield f"{value}\n", "text"


def _problems(problems: Sequence[str]) -> list[Span]:
    return [(f"! {_safe(problem, 600)}\n", "warning") for problem in problems[:_MOST]]


def _differences(differences: Sequence[str]) -> list[Span]:
    return [*((f"{_safe(text, 600)}\n", "accent") for text in differences[:_MOST]), *([("\n", "text")] if differences else [])]


def _weights(module: Module) -> Iterable[Span]:
    for weight in module.weights[:_MOST]:
        yield f"{_safe(weight.name, 100)} ", "text"
        yield f"{shape_text(weight.shape)} ", "secondary"
        constant = ", a constant" if weight.buffer else ""
        yield f"{_safe(weight.dtype, 10)} {format_bytes(weight.bytes)}{constant}\n", "muted"
    yield from _more(len(module.weights))


def _list(noun: str, entries: Sequence[str]) -> list[Span]:
    if not entries:
        return []
    spans: list[Span] = [(f"\n{count_noun(len(entries), noun)}\n", "muted")]
    return [*spans, *((f"{_safe(entry)}\n", "text") for entry in entries[:_MOST]), *_more(len(entries))]


def _more(count: int) -> list[Span]:
    return [(f"and {count - _MOST:,} more\n", "muted")] if count > _MOST else []


def _safe(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Text of a file that may be shown; of very long ones only the beginning is cleaned."""
    return safe_text(text[: 4 * limit], limit=limit)
