"""What the modules of the last inspected job did, kept as it is told. No Textual here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from sdtui.params import GenerationParams
from sdtui.protocol import (
    JOB_ENDS,
    JobInspected,
    JobStarted,
    Message,
    ModelInfo,
    ModelLoaded,
    ModuleRun,
    ModulesRan,
    NotANumber,
    PromptTokens,
    StageFinished,
    StepFinished,
    Welcome,
)

DENOISERS: Final = ("unet", "transformer")
"""What the network that denoises is called; a pipeline has one of them."""
STAGE_NETWORKS: Final = {"tokens": "text_encoder", "embeddings": "text_encoder", "decode": "vae"}
"""The network that works in a stage."""
KEPT_RUNS: Final = 64
"""Of each module, the last: with 700 modules some ten megabytes."""
_KEPT_LINES: Final = 64
_KEPT_JOBS: Final = 4
"""Whose beginning is remembered; it comes before it is known that a job is inspected."""


class Seen(NamedTuple):
    """One run of a module, and when that was; `step_index` is None outside of the steps."""

    batch_index: int
    step_index: int | None
    run: ModuleRun

    @property
    def when(self) -> str:
        """The step as people count it; empty outside of the steps."""
        return when_text(self.batch_index, self.step_index)


class Trace:
    """A module's runs over a job."""

    __slots__ = ("count", "fault", "known", "runs", "total_s")

    def __init__(self) -> None:
        self.runs: deque[Seen] = deque(maxlen=KEPT_RUNS)
        self.count = 0
        """How often it was told, in all."""
        self.total_s = 0.0
        self.fault: Seen | None = None
        """Its first run that gave a NaN or an infinity."""
        self.known: Seen | None = None
        """Its last run whose statistics were taken; in some steps they are not."""

    @property
    def newest(self) -> ModuleRun:
        """Its last run; statistics that were not taken in it are the newest there are."""
        run, known = self.runs[-1].run, self.known
        if run.mean is not None or run.fault or known is None:
            return run
        return msgspec.structs.replace(run, mean=known.run.mean, std=known.run.std, absmax=known.run.absmax)

    @property
    def mean_s(self) -> float:
        """The mean over all its runs."""
        return self.total_s / self.count


class Forward:
    """What one network did in its newest step or stage; what follows from it is worked out when it is asked for."""

    def __init__(self, number: int, batch_index: int, step_index: int | None, modules: tuple[ModuleRun, ...]) -> None:
        self.number = number
        """Grows with each forward of a job."""
        self.batch_index = batch_index
        self.step_index = step_index
        self.modules = modules

    @cached_property
    def spans(self) -> dict[str, tuple[float, float]]:
        """When each module, and each that holds one, began and ended, in seconds since the first began."""
        return timeline(self.modules)

    @cached_property
    def total_s(self) -> float:
        """How long all of it took; at least a microsecond."""
        return max(1e-6, max((end for _, end in self.spans.values()), default=0.0))

    @cached_property
    def times_s(self) -> dict[str, float]:
        """The time of each module; of one that was not looked at, that of those in it."""
        return _with_holders({run.path: run.elapsed_s for run in self.modules})

    @cached_property
    def sizes(self) -> dict[str, float]:
        """The bytes of each module's output; of one that was not looked at, of the outputs of those in it."""
        return _with_holders({run.path: run.output_bytes for run in self.modules})


class _Job:
    """What was told of a job before it is known whether it is inspected."""

    def __init__(self, params: GenerationParams | None = None) -> None:
        self.params = params
        self.lines: dict[str, deque[Message]] = {}

    def note(self, network: str, event: Message) -> None:
        """Something of the log concerns a network."""
        self.lines.setdefault(network, deque(maxlen=_KEPT_LINES)).append(event)


class ModuleRuns:
    """Takes events as they come; keys are networks and paths as the worker says them, which are those of diffusers."""

    def __init__(self) -> None:
        self.job: str | None = None
        self.model = ""
        """Which model the job named."""
        self.forwards: dict[str, Forward] = {}
        self.fault: NotANumber | None = None
        self.inspected: JobInspected | None = None
        """Where the last batch's activations and word maps are."""
        self.ended = False
        self._traces: dict[str, dict[str, Trace]] = {}
        self._jobs: dict[str, _Job] = {}
        self._loaded: frozenset[str] = frozenset()
        self._number = 0

    # --- what it is told --------------------------------------------------------------------------------------------

    def take(self, event: Message) -> None:
        """Something happened; costs half a microsecond a module."""
        match event:
            case ModulesRan():
                self._ran(event)
            case JobStarted():
                self._job(event.job).params = event.params
                self._begin_again(event.job)
            case NotANumber():
                self._begin(event.job)
                self.fault = event
            case JobInspected():
                self._begin(event.job)
                self.inspected = event
            case StepFinished():
                self._job(event.job).note("", event)
            case StageFinished() | PromptTokens():
                stage = event.stage if isinstance(event, StageFinished) else "tokens"
                if stage in STAGE_NETWORKS:
                    self._job(event.job).note(STAGE_NETWORKS[stage], event)
            case ModelLoaded():
                self._name(event.info)
            case _ if isinstance(event, JOB_ENDS):
                self.ended = self.ended or getattr(event, "job", None) == self.job

    def take_welcome(self, welcome: Welcome) -> None:
        """The connection is made: a model may be in memory and a job at work."""
        if welcome.model is not None:
            self._name(welcome.model)
        for row in welcome.jobs:
            if row.state == "running":
                self._job(row.job).params = row.params

    def _name(self, info: ModelInfo) -> None:
        """What a job names and where its model lies are the same model."""
        self._loaded = frozenset((info.model, info.path))

    def _job(self, job: str) -> _Job:
        known = self._jobs.get(job)
        if known is None:
            known = self._jobs[job] = _Job()
            while len(self._jobs) > _KEPT_JOBS:
                del self._jobs[next(other for other in self._jobs if other != self.job)]
        return known

    def _begin(self, job: str) -> None:
        """A job that tells of its modules takes the place of the one before."""
        if job == self.job:
            return
        params = self._job(job).params
        self.job, self.model = job, params.model if params is not None else ""
        self.forwards, self._traces = {}, {}
        self.fault = self.inspected = None
        self.ended = False

    def _begin_again(self, job: str) -> None:
        """It may have been interrupted, or is tried again."""
        if job == self.job:
            self.ended = False

    def _ran(self, event: ModulesRan) -> None:
        self._begin(event.job)
        traces = self._traces.setdefault(event.network, {})
        for run in event.modules:
            trace = traces.get(run.path)
            if trace is None:
                trace = traces[run.path] = Trace()
            seen = Seen(event.batch_index, event.step_index, run)
            trace.runs.append(seen)
            trace.count += 1
            trace.total_s += run.elapsed_s
            if run.mean is not None:
                trace.known = seen
            if run.fault and trace.fault is None:
                trace.fault = seen
        self._number += 1
        modules, before = event.modules, self.forwards.get(event.network)
        if before is not None and _goes_on(before, event):
            modules = before.modules + modules
        self.forwards[event.network] = Forward(self._number, event.batch_index, event.step_index, modules)

    # --- what it says -----------------------------------------------------------------------------------------------

    def is_of(self, model: str) -> bool:
        """Whether the job's model is the one that is called so."""
        return bool(self.model) and self.same(model, self.model)

    def same(self, one: str, other: str) -> bool:
        """Whether two names are of one model, as far as that is known."""
        return one == other or {one, other} <= self._loaded

    def model_of(self, job: str | None) -> str:
        """Which model a job of this connection named; empty where that is not known any more."""
        params = self._jobs[job].params if job in self._jobs else None
        return params.model if params is not None else ""

    def trace(self, network: str, path: str) -> Trace | None:
        """A module's runs; None where it was not looked at."""
        return self._traces.get(network, {}).get(path)

    @property
    def denoiser(self) -> str:
        """What the network that denoises is called."""
        return next((name for name in DENOISERS if name in self._traces), DENOISERS[0])

    def lines(self, network: str) -> Sequence[Message]:
        """What the log says of a network: its stage, or the last steps."""
        if self.job is None:
            return ()
        return tuple(self._job(self.job).lines.get("" if network in DENOISERS else network, ()))


def when_text(batch_index: int, step_index: int | None) -> str:
    """`step 3`, `batch 2, step 3`; empty outside of the steps of the first batch."""
    parts = (f"batch {batch_index + 1}" if batch_index else "", "" if step_index is None else f"step {step_index + 1}")
    return ", ".join(part for part in parts if part)


def timeline(modules: Iterable[ModuleRun]) -> dict[str, tuple[float, float]]:
    """When modules began and ended, in seconds, from how long they took and the order in which they began.

    One that lies in another begins when what ran in that one before has ended; time that none inside it took is put at its end.
    What holds modules and was not looked at lasts from the first of them to the last.
    """
    spans: dict[str, tuple[float, float]] = {}
    stack: list[list[float]] = [[0.0, float("inf")]]
    paths: list[str | None] = [None]
    for run in modules:
        while paths[-1] is not None and paths[-1] and not run.path.startswith(f"{paths[-1]}."):
            _, end = stack.pop()
            paths.pop()
            stack[-1][0] = max(stack[-1][0], end)
        at, last = stack[-1]
        end = min(last, at + run.elapsed_s)
        spans[run.path] = at, end
        stack.append([at, end])
        paths.append(run.path)
    measured = set(spans)
    for path in measured:
        for above in holders(path):
            if above in measured:
                break
            start, end = spans.get(above, spans[path])
            spans[above] = min(start, spans[path][0]), max(end, spans[path][1])
    return spans


def holders(path: str) -> Iterable[str]:
    """The paths of what holds a module, the nearest first, the network itself, which is empty, last."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _goes_on(before: Forward, event: ModulesRan) -> bool:
    """Whether it is the rest of what was told: more modules than go into one event."""
    same = (before.batch_index, before.step_index) == (event.batch_index, event.step_index)
    return same and bool(event.modules) and event.modules[0].path not in {run.path for run in before.modules}


def _with_holders(values: dict[str, float]) -> dict[str, float]:
    found = dict(values)
    for path, value in values.items():
        for above in holders(path):
            if above in values:
                break
            found[above] = found.get(above, 0) + value
    return found
