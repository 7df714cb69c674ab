"""The denoiser tape: what the network says at each call is recorded, or is given from the recording instead of computed.

The pipeline, its scheduler and its generators run as ever, so a replay builds up every latent, the scheduler's history and the
generators' states anew, and goes on bit for bit where the recording ends.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers.utils import BaseOutput
from safetensors import SafetensorError
from safetensors.torch import load

from sdtui.tape import Call, Tape, TapeError, steps_done
from sdtui.worker.describe import denoiser
from sdtui.worker.recorder import Recorder, Spoken, to_host

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepSource:
    """Where a step's network answers came from."""

    replayed: bool = False
    last_replayed: bool = False
    """The recording ends with this step."""
    elapsed_s: float = 0.0
    """As recorded."""


class DenoiserTape:
    """Stands before the network of one batch; without a `tape` it only looks on."""

    def __init__(self, tape: Tape | None = None, trouble: str = "") -> None:
        self._tape = tape
        self._recorder: Recorder | None = None
        self._recorded = list(tape.calls) if tape is not None else []
        self._next = 0
        self._step = 0
        self._given = self._computed = 0
        self._replayed_s = 0.0
        self._since = time.perf_counter()
        self._trouble = trouble

    @property
    def steps_done(self) -> int:
        """Whole steps that are on the tape."""
        return steps_done(self._tape.calls) if self._tape is not None else 0

    @property
    def trouble(self) -> str:
        """Why steps are not recorded, or not any more; empty where they are, or where nobody asked for it."""
        return self._trouble or (self._recorder.trouble if self._recorder is not None else "")

    @contextmanager
    def attached(self, pipe: Any) -> Iterator[None]:
        """While this lasts, calls of the pipeline's denoiser go through the tape.

        Its `forward` is wrapped on the instance, outside of the hooks of offloading, so a replay moves no weights.
        """
        network = denoiser(pipe)
        if network is None or self._tape is None:
            yield
            return
        before = vars(network).get("forward")
        vars(network)["forward"] = self._standing_before(network, network.forward)
        try:
            yield
        finally:
            if before is None:
                vars(network).pop("forward", None)
            else:
                vars(network)["forward"] = before

    def start(self) -> None:
        """The first step begins now."""
        self._since = time.perf_counter()

    def end_step(self) -> StepSource:
        """A call of `scheduler.step` ended: where its answers came from."""
        replayed = self._given > 0 and not self._computed
        source = StepSource(replayed, replayed and self._next == len(self._recorded), self._replayed_s)
        self._step, self._given, self._computed, self._replayed_s = self._step + 1, 0, 0, 0.0
        return source

    def flush(self) -> None:
        """Wait until all that was recorded is in the file."""
        if self._recorder is not None:
            self._recorder.flush()

    def close(self, *, sync: bool = False) -> None:
        """End the recording; with `sync` it is durable then."""
        if self._recorder is not None:
            self._recorder.close(sync=sync)
        if self._tape is not None:
            self._tape.close()

    def _standing_before(self, network: Any, forward: Any) -> Any:
        @functools.wraps(forward)
        def answer(*args: Any, **kwargs: Any) -> Any:
            output = self._replay(network, args, kwargs)
            if output is None:
                self._computed += 1
                output = forward(*args, **kwargs)
                self._record(output, _timestep(args, kwargs))
            self._next += 1
            return output

        return answer

    def _replay(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The recorded answer, on the device of the question; None where there is none, or none that can be read any more."""
        if self._tape is None or self._next >= len(self._recorded):
            return None
        call = self._recorded[self._next]
        try:
            tensors = load(self._tape.read(call))
            output = _output(network, call, tensors, _device(args, kwargs))
        except (OSError, TapeError, SafetensorError, KeyError) as error:
            _log.warning("the tape ends at call %d: %s", call.index, error)
            self._cut(self._tape)
            return None
        self._given += 1
        self._replayed_s += call.elapsed_s
        self._since = time.perf_counter()
        return output

    def _cut(self, tape: Tape) -> None:
        """Go on without what cannot be read from here on."""
        del self._recorded[self._next :]
        try:
            tape.cut(self._next)
        except OSError as error:
            self._trouble = error.strerror or str(error)

    def _record(self, output: Any, timestep: Any) -> None:
        if self._tape is None or self.trouble:
            return
        form, tensors = _parts(output)
        if not tensors:
            self._trouble = f"the network answers with a {type(output).__name__}"
            return
        if self._recorder is None:
            self._recorder = Recorder(self._tape)
        now = time.perf_counter()
        facts = {"call": str(self._next), "step": str(self._step), "elapsed_s": repr(now - self._since), "form": form}
        self._since = now
        first = next(iter(tensors.values()))
        copies = {name: to_host(tensor) for name, tensor in tensors.items()}
        timestep = to_host(timestep.detach().flatten()[:1]) if isinstance(timestep, torch.Tensor) else float(timestep)
        ready = torch.cuda.current_stream(first.device).record_event() if first.device.type == "cuda" else None
        self._recorder.add(Spoken(copies, timestep, facts, ready))


def _parts(output: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """What kind of answer it is, and its tensors by name; none where it holds something else."""
    if isinstance(output, torch.Tensor):
        return "tensor", {"0": output}
    if isinstance(output, BaseOutput):
        form, named = type(output).__name__, dict(output)
    elif isinstance(output, tuple):
        form, named = "tuple", {str(index): part for index, part in enumerate(output)}
    else:
        return "", {}
    return form, named if all(isinstance(part, torch.Tensor) for part in named.values()) else {}


def _output(network: Any, call: Call, tensors: dict[str, torch.Tensor], device: torch.device) -> Any:
    """The answer as the network gave it; an output class is looked up where the network's own class was written."""
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    if call.form == "tensor":
        return moved["0"]
    if call.form == "tuple":
        return tuple(moved[str(index)] for index in range(len(moved)))
    kind = getattr(sys.modules[type(network).__module__], call.form, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseOutput)):
        raise TapeError(f"{type(network).__name__} gives no {call.form}")
    return kind(**moved)


def _timestep(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the network was asked about, by the place or the name that all denoisers of diffusers give it."""
    found = kwargs.get("timestep", args[1] if len(args) > 1 else None)
    return found if isinstance(found, (torch.Tensor, int, float)) else 0.0


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.ndim > 1)
    return next(tensors).device
