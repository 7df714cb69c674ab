"""What modules did, by the nodes of a model's tree: figures, shares of the time, and how bright a line is. No Textual here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple

from sdtui.anatomy.layout import in_diffusers
from sdtui.protocol import ModuleRun, NotANumber
from sdtui.text import count_noun, format_bytes, safe_text
from sdtui.ui.module_runs import DENOISERS, ModuleRuns
from sdtui.ui.outline import MODEL, Key, Outline
from sdtui.ui.replay import Level, Replays
from sdtui.ui.rows import figure, row_text, rows_for, shape_text

_LINES = 20
"""Of the log, on a module's page."""
_LOG_CELLS = 46


class Figures(NamedTuple):
    """What a line tells of a module."""

    run: ModuleRun | None
    """Its newest run; None where it was not looked at itself."""
    elapsed_s: float
    """Of its newest run, or of those in it together."""
    share: float
    """Of the time of its network, 0 to 1."""
    fault: str
    """`nan` or `inf`, where any of its runs gave one."""


_COLUMNS: Final = (("ms", 7), ("mean", 7), ("std", 6), ("absmax", 6))
_RUN_HEAD: Final = " ".join(f"{title:>{width}}" for title, width in _COLUMNS)


class Told(NamedTuple):
    """What a module's page tells of the last inspected job, as names and values."""

    figures: list[tuple[str, str]]
    lines: list[tuple[str, str]]
    """Of the log."""


class LiveFigures:
    """Looks up in `ModuleRuns` what the nodes of one outline did."""

    def __init__(self, outline: Outline, runs: ModuleRuns, replays: Replays) -> None:
        self.outline = outline
        self._runs = runs
        self._replays = replays
        self.now_s = 0.0
        """The moment that is shown, in the clock of the replays."""

    @cached_property
    def _names(self) -> dict[str, dict[str, str]]:
        """What diffusers calls the modules of each component, where the files call them otherwise."""
        return {
            part.name: in_diffusers(part.name, {module.path: None for module in part.modules})
            for part in self.outline.anatomy.components
        }

    @cached_property
    def _paths(self) -> dict[str, dict[str, str]]:
        return {part: {name: path for path, name in names.items()} for part, names in self._names.items()}

    def key(self, node: int) -> Key:
        """A node's network and path as the worker says them."""
        part, path = self.outline.key(node)
        return part, self._names.get(part, {}).get(path, path)

    def node(self, key: Key) -> int | None:
        """The node of a network's module, or of the nearest above it that the tree has; None without such a network."""
        part, path = key
        if part in DENOISERS:
            part = next((name for name in DENOISERS if self.outline.find_key((name, "")) is not None), part)
        while True:
            found = self.outline.find_key((part, self._paths.get(part, {}).get(path, path)))
            if found is not None or not path:
                return found
            path = path.rpartition(".")[0]

    # --- figures ----------------------------------------------------------------------------------------------------

    def of(self, node: int) -> Figures | None:
        """What a node did in its network's newest step or stage; None where nothing is known."""
        network, path = self.key(node)
        forward = self._runs.forwards.get(network)
        if forward is None or node == MODEL:
            return None
        elapsed_s = forward.times_s.get(path)
        if elapsed_s is None:
            return None
        trace = self._runs.trace(network, path)
        fault = trace.fault.run.fault if trace is not None and trace.fault is not None else ""
        return Figures(trace.newest if trace is not None else None, elapsed_s, min(1.0, elapsed_s / forward.total_s), fault)

    def times_s(self) -> dict[int, float]:
        """The newest time of each node that took any."""
        nodes = ((node, self.of(node)) for node in range(1, len(self.outline.modules)))
        return {node: figures.elapsed_s for node, figures in nodes if figures is not None}

    def output_bytes(self, node: int) -> float | None:
        """The size of its output, or of the outputs of those in it."""
        network, path = self.key(node)
        forward = self._runs.forwards.get(network)
        return forward.sizes.get(path) if forward is not None else None

    def stamp(self, node: int) -> int:
        """Changes when the figures do."""
        forward = self._runs.forwards.get(self.outline.key(node)[0])
        return forward.number if forward is not None else 0

    def level(self, node: int) -> Level:
        """How bright it is at the moment that is shown."""
        return self._replays.level(*self.key(node), self.now_s) if self._replays.playing is not None else 0

    @property
    def fault(self) -> tuple[NotANumber, int | None] | None:
        """The first NaN or infinity of the job, and its node."""
        fault = self._runs.fault
        return (fault, self.node((fault.network, fault.module))) if fault is not None else None

    # --- sentences --------------------------------------------------------------------------------------------------

    def told(self, node: int) -> Told:
        """What the page tells of a node."""
        network, path = self.key(node)
        trace, figures = self._runs.trace(network, path), self.of(node)
        found = list(_figures(figures)) if figures is not None else []
        lines: list[tuple[str, str]] = []
        if trace is not None:
            found.append(("runs", f"{trace.count:,}, {ms_text(trace.mean_s)} on average"))
            if trace.known is not None:
                run = trace.known.run
                found.append(("mean, std", f"{figure(run.mean, 7, 3).strip()}, {figure(run.std, 7, 3).strip()}"))
                found.append(("absmax", f"{figure(run.absmax, 8, 2).strip()} {trace.known.when}".rstrip()))
            if trace.fault is not None:
                found.insert(0, ("first fault", f"{fault_word(trace.fault.run.fault)} {trace.fault.when}".rstrip()))
            lines = [("", _RUN_HEAD), *((seen.when or network, run_cells(seen.run)) for seen in list(trace.runs)[-_LINES:])]
        if not path:
            events = list(self._runs.lines(network))[-_LINES:]
            lines += [("log", row_text(row, _LOG_CELLS)) for event in events for row in rows_for(event)]
        return Told(found, lines)


def _figures(figures: Figures) -> Iterator[tuple[str, str]]:
    run = figures.run
    yield "time", f"{ms_text(figures.elapsed_s)}, {figures.share:.1%} of the network".replace("%", " %")
    if run is None:
        return
    if run.shape:
        yield "output", f"{shape_text(run.shape)} {safe_text(run.dtype.removeprefix('torch.'), limit=20)}"
    if run.output_bytes:
        yield "activation", format_bytes(run.output_bytes)
    if run.memory_bytes:
        yield "memory", format_bytes(run.memory_bytes)
    if run.calls > 1:
        yield "calls", count_noun(run.calls, "call")


def run_cells(run: ModuleRun) -> str:
    """A run's time and statistics, in the columns of the page's log."""
    values = (run.elapsed_s * 1000, run.mean, run.std, run.absmax)
    cells = [figure(value, width, 2) for value, (_, width) in zip(values, _COLUMNS, strict=True)]
    return f"{cells[0]}  gave {fault_word(run.fault)}" if run.fault else " ".join(cells)


def fault_word(fault: str) -> str:
    """`NaN` or `Inf`."""
    return {"nan": "NaN", "inf": "Inf"}.get(fault, "")


def ms_text(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{figure(seconds * 1000, 8, 2).strip()} ms"
