"""Inspect mode: what the networks' modules give while a job runs, told after each step; nothing that is computed changes.

Each module's `forward` is wrapped on the instance, as in `cancellation.py`. On a GPU its time is taken by two events and its
figures stay there until the step has ended; nothing waits for the device.

At each step every module's output has its shape, its time, and one pass over it that finds a NaN or an infinity. Statistics
take more: those of blocks are taken at each step, those of other modules in the first one and then in turn, as often as the
time of a step allows (`turns.py`); in the steps between they are None. In stages other than `denoise` all are taken. What a
module gives on from its last child, unchanged, is looked at once.
"""

from __future__ import annotations

import functools
import operator
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from sdtui.protocol import InspectMode, Message, ModulesRan, NotANumber
from sdtui.worker.memory import held_bytes
from sdtui.worker.probe_figures import Call, Fetched, Spot, fetch, first_tensor, is_sound, looked_at, settle, summed_up
from sdtui.worker.sheets import DENOISERS, Extent, Sheets
from sdtui.worker.turns import Turns

NETWORKS: Final = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
_BLOCK_LISTS: Final = frozenset(
    {
        "resnets", "attentions", "transformer_blocks", "single_transformer_blocks", "layers", "block",
        "downsamplers", "upsamplers",
    }
)  # fmt: skip
"""How diffusers and transformers name the lists of blocks in U-Nets, transformers, VAEs, CLIP and T5."""
_HALVES: Final = frozenset({"encoder", "decoder"})
"""Of a VAE, whose own `forward` is not called, and the whole of some text encoders."""
_PASS_ON: Final = (torch.nn.Dropout, torch.nn.Identity)
"""What gives back what it gets; it would only be looked at twice."""
_MAX_MODULES: Final = 4000
"""In one event: a megabyte, of the four that a frame may have."""


def is_block(path: str, module: torch.nn.Module) -> bool:
    """Whether a module counts as a block: a resnet, a transformer block, a down- or up-sampler, or the network itself."""
    holder, _, index = path.rpartition(".")
    listed = index.isdecimal() and holder.rpartition(".")[2] in _BLOCK_LISTS and any(True for _ in module.children())
    return not path or path in _HALVES or listed


def spots(pipe: Any, mode: InspectMode) -> list[tuple[Spot, torch.nn.Module]]:
    """The modules of a pipeline's networks that are looked at in a mode."""
    if mode == "off":
        return []
    found: list[tuple[Spot, torch.nn.Module]] = []
    for name in NETWORKS:
        network = getattr(pipe, name, None)
        for path, module in network.named_modules() if network is not None else ():
            block = is_block(path, module)
            if block or (mode == "modules" and not isinstance(module, _PASS_ON)):
                found.append((Spot(name, path, type(module).__name__, block), module))
    return found


@dataclass(frozen=True)
class Taken:
    """The calls of one step or stage; their figures may be on their way from the device."""

    calls: list[Call]
    fetched: Fetched
    probing_s: float


class Probe:
    """Looks at the modules of one job's pipeline; in mode `off` it does nothing at all."""

    def __init__(self, job: str, mode: InspectMode, device: torch.device, emit: Callable[[Message], None]) -> None:
        self._job, self._mode, self._device, self._emit = job, mode, device, emit
        self._on_gpu = device.type == "cuda"
        self._calls: list[Call] = []
        self._begun = 0
        self._probing_s = 0.0
        self._paused = False
        self._events: list[Any] = []
        """CUDA events that can be used again."""
        self.fault: NotANumber | None = None
        """Where the first NaN or infinity of the job came from."""
        self.sheets = Sheets()
        """Activations of the batch that is made."""
        self._turns = Turns()
        self._turned = 0
        """How many modules take turns."""
        self._asked = 0
        """How often the network that denoises was called in this step: twice where guidance does not double the batch."""
        self._asked_s = self._looking_s = self._others_s = 0.0
        """What these calls took by themselves, what looking took in them, and what of that somebody else did."""
        self._before: tuple[weakref.ref[torch.Tensor], int, bool, Any] | None = None
        """What was looked at last, its version, whether all its figures were wanted, and they."""

    @contextmanager
    def attached(self, pipe: Any) -> Iterator[None]:
        """While this lasts, the modules are looked at.

        It must last longer than a job's remedies: offloading takes their `forward` as it finds it, and puts it back.
        """
        watched = [(module, vars(module).get("forward"), spot) for spot, module in spots(pipe, self._mode)]
        self._turned = 0
        try:
            for module, _, spot in watched:
                number = None
                if spot.network in DENOISERS and not spot.is_block:
                    number, self._turned = self._turned, self._turned + 1
                if number is None or self._on_gpu:
                    vars(module)["forward"] = self._looking(module.forward, spot, number, pipe)
                else:
                    vars(module)["forward"] = self._glancing(module.forward, spot, number)
            with np.errstate(over="ignore"):  # of squares: then the extremes say whether all are numbers
                yield
        finally:
            for module, before, _ in watched:
                if before is None:
                    vars(module).pop("forward", None)
                else:
                    vars(module)["forward"] = before
            self.forget()
            self.sheets.forget()

    def begin(self, extent: Extent) -> None:
        """A batch, or a part of one, begins, or begins anew."""
        self.forget()
        self.sheets.begin(extent)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While this lasts, what the modules do is not part of the job's own work, as for a preview."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def looked(self, elapsed_s: float) -> None:
        """Somebody else looked at the modules for so long: it is no part of the time that they take."""
        self._probing_s += elapsed_s
        self._others_s += elapsed_s

    def _looking(self, forward: Callable[..., Any], spot: Spot, number: int | None, pipe: Any) -> Callable[..., Any]:
        """`number` is the place of a module among those that take turns."""
        clock, is_root, sheets, turns = time.perf_counter, not spot.path, self.sheets, self._turns
        denoises = is_root and spot.network in DENOISERS
        closes = not denoises and (is_root or (spot.network, spot.path) == ("vae", "decoder"))

        @functools.wraps(forward)
        def look(*args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return forward(*args, **kwargs)
            came = clock()
            order, self._begun = self._begun, self._begun + 1
            if denoises:
                sheets.denoise(getattr(pipe, "scheduler", None))
                if not self._asked:
                    turns.begin()
                    self._others_s = 0.0
                self._asked += 1
            if is_root:
                self._note(spot, None, order, (*args, *kwargs.values()), 0.0, given=True)
            start = self._mark() if self._on_gpu else None
            began = clock()
            self._probing_s += began - came
            probed_s = self._probing_s
            output = forward(*args, **kwargs)
            ended = clock()
            looking_s = self._probing_s - probed_s
            span = (start, self._mark()) if self._on_gpu else ended - began - looking_s
            self._note(spot, number, order, output, span)
            if denoises:
                self._asked_s += ended - began - looking_s
                self._looking_s += looking_s
            if closes:
                sheets.close(spot.network)
            self._probing_s += clock() - ended
            return output

        return look

    def _glancing(self, forward: Callable[..., Any], spot: Spot, number: int) -> Callable[..., Any]:
        """The same for the many on a CPU that have no turn, with as little as possible around the one pass over the output."""
        clock, sheets, turns = time.perf_counter, self.sheets, self._turns

        @functools.wraps(forward)
        def glance(*args: Any, **kwargs: Any) -> Any:
            if self._paused:
                return forward(*args, **kwargs)
            order = self._begun
            self._begun = order + 1
            probed_s = self._probing_s
            began = clock()
            output = forward(*args, **kwargs)
            ended = clock()
            span = ended - began - (self._probing_s - probed_s)
            if sheets.is_last or number % turns.every == turns.turn or not is_sound(output):
                self._note(spot, number, order, output, span)
            else:
                self._calls.append(Call(spot, order, (output.shape, output.dtype, output.nbytes), None, span))
            self._probing_s += clock() - ended
            return output

        return glance

    def _note(self, spot: Spot, number: int | None, order: int, output: Any, span: Any, *, given: bool = False) -> None:
        tensor = output if isinstance(output, torch.Tensor) else first_tensor(output)
        if tensor is None:
            self._calls.append(Call(spot, order, None, None, span, 0, given))
            return
        facts = (tensor.shape, tensor.dtype, tensor.nbytes)
        memory_bytes = self._memory() if spot.is_block else 0
        figures = self._figures(tensor, number)
        self._calls.append(Call(spot, order, facts, figures, span, memory_bytes, given))
        if not given and self.sheets.wants(spot.network):
            self.sheets.keep(spot, tensor)

    def _figures(self, tensor: torch.Tensor, number: int | None) -> Any:
        """What is to be known of a tensor; of one that its last child gave, what is known of it already."""
        version = 0 if tensor.is_inference() else tensor._version
        wanted = number is None or self._turns.has(number)
        before = self._before
        if before is not None and before[0]() is tensor and before[1] == version and (before[2] or not wanted):
            return before[3]
        if number is None or not wanted:
            figures = looked_at(tensor, all_figures=wanted)
        else:
            began = time.perf_counter()
            figures = looked_at(tensor, all_figures=True)
            self._turns.took(time.perf_counter() - began)
        self._before = (weakref.ref(tensor), version, wanted, figures)
        return figures

    def _mark(self) -> Any:
        event = self._events.pop() if self._events else torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _memory(self) -> int:
        if not self._on_gpu:
            return held_bytes(self._device)
        stats = torch.cuda.memory_stats_as_nested_dict(self._device)  # the flat one takes ten times as long
        return int(stats["allocated_bytes"]["all"]["current"])

    # --- telling ------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """What was noted is not told: the work it belongs to is begun anew."""
        self._calls, self._begun, self._probing_s, self._before = [], 0, 0.0, None
        self._asked, self._asked_s, self._looking_s = 0, 0.0, 0.0

    def take(self) -> Taken | None:
        """What was noted since the last time, its figures on their way to the host; None where nothing was."""
        if not self._calls:
            return None
        began, calls, probing_s = time.perf_counter(), self._calls, self._probing_s
        if self._asked:
            self._turns.end(self._asked_s, self._looking_s - self._others_s, self._turned * self._asked)
        self.forget()
        fetched = fetch(calls)
        return Taken(calls, fetched, probing_s + time.perf_counter() - began)

    def tell_stage(self, batch_index: int) -> None:
        """A stage other than `denoise` has ended: wait for its figures and tell them."""
        taken = self.take()
        if taken is not None and self._on_gpu:
            torch.cuda.current_stream(self._device).synchronize()
        self.tell(taken, batch_index, None)

    def tell(self, taken: Taken | None, batch_index: int, step_index: int | None) -> None:
        """Emit what was taken; on a GPU its figures must have arrived."""
        if taken is None:
            return
        settle(taken.fetched)
        rows: defaultdict[str, defaultdict[str, list[Call]]] = defaultdict(lambda: defaultdict(list))
        for call in sorted(taken.calls, key=operator.attrgetter("order")):
            if not call.given:
                rows[call.spot.network][call.spot.path].append(call)
        for network, paths in rows.items():
            modules = tuple(summed_up(calls) for calls in paths.values())
            for start in range(0, len(modules), _MAX_MODULES):
                self._emit(
                    ModulesRan(
                        job=self._job,
                        batch_index=batch_index,
                        step_index=step_index,
                        network=network,
                        modules=modules[start : start + _MAX_MODULES],
                        probing_s=taken.probing_s,
                    )
                )
        self._find_fault(taken.calls, batch_index, step_index)
        self._events += [event for call in taken.calls if isinstance(call.span, tuple) for event in call.span]

    def _find_fault(self, calls: list[Call], batch_index: int, step_index: int | None) -> None:
        """Calls are in the order in which they ended, so the first one with a fault lies innermost."""
        call = next((call for call in calls if call.figures is not None and call.fault), None)
        if call is None or not call.fault or self.fault is not None:
            return
        self.fault = NotANumber(
            job=self._job,
            batch_index=batch_index,
            step_index=step_index,
            network=call.spot.network,
            module=call.spot.path,
            fault=call.fault,
            given=call.given,
        )
        self._emit(self.fault)

    @property
    def blame(self) -> str:
        """Where the first fault of the job came from, as a sentence; empty where none was seen."""
        if self.fault is None:
            return ""
        what = "a NaN" if self.fault.fault == "nan" else "an infinity"
        when = f" in step {self.fault.step_index + 1}" if self.fault.step_index is not None else ""
        if self.fault.given:
            return f"The {self.fault.network} was given {what} already{when}."
        return f"The first module that gave {what} is {'.'.join(filter(None, (self.fault.network, self.fault.module)))}{when}."
