"""The ladder that a job climbs when memory runs out: each rung once, with the same seeds, and undone after the job."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_args

import torch

from sdtui.params import GenerationParams
from sdtui.protocol import MemoryRanOut, Message, ModelInfo
from sdtui.worker.errors import JobProblem, Shortage, is_out_of_memory
from sdtui.worker.memory import available_bytes, free_memory
from sdtui.worker.memory_advice import Advice, job_advice, next_time, shortage_text
from sdtui.worker.memory_facts import need_of, place_of, refusal_of, scores_bytes, weight_bytes, work_of
from sdtui.worker.memory_fit import Need, Place, Refusal

Remedy = Literal["vae_slicing", "vae_tiling", "smaller_batch", "model_offload", "sequential_offload"]
_WHEN_DECODING: Final[tuple[Remedy, ...]] = ("vae_slicing", "vae_tiling", "model_offload", "sequential_offload", "smaller_batch")
"""The smaller batch last: its steps must be made again."""
_ELSE: Final[tuple[Remedy, ...]] = ("smaller_batch", "model_offload", "sequential_offload")
_DOES: Final[dict[Remedy, str]] = {
    "vae_slicing": "the pictures are decoded one after the other",
    "vae_tiling": "the picture is decoded in tiles",
    "smaller_batch": "fewer pictures are made at a time",
    "model_offload": "only the part of the model that works is kept on the device",
    "sequential_offload": "the model is kept off the device and fetched layer by layer, which is slow",
}
_log: Final = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass
class _Rung:
    """A remedy in force, and how to take it back."""

    remedy: Remedy
    undo: Callable[[], None]


class Ladder:
    """The remedies of one job: tries a stage again and again, each time in a way that needs less memory."""

    def __init__(
        self,
        *,
        job: str,
        pipe: Any,
        device: torch.device,
        info: ModelInfo,
        params: GenerationParams,
        emit: Callable[[Message], None],
    ) -> None:
        """`params` with the sizes filled in."""
        self._job, self._pipe, self._device, self._emit = job, pipe, device, emit
        self._info, self._work = info, work_of(pipe, info, params)
        self._rungs: list[_Rung] = []
        self._first: tuple[Place, Refusal] | None = None
        """Where memory ran out with nothing in force."""
        self.batch_size = params.batch_size
        """How many pictures are made at a time."""
        self.keep: Callable[[Mapping[str, Any]], None] = lambda _: None
        """Told of what is in force whenever that changes."""

    @property
    def in_force(self) -> tuple[str, ...]:
        """The remedies in force, in the order in which they came, each once."""
        return tuple(dict.fromkeys(rung.remedy for rung in self._rungs))

    @property
    def advice(self) -> str:
        """What to set for the next job; empty where memory did not run out."""
        if not self._rungs:
            return ""
        done = ", ".join(_DOES[rung] for rung in get_args(Remedy) if rung in self.in_force)
        # Where it ran out for an earlier worker, no more is known than what was in force.
        place, refusal = self._first or (Place(str(self._device)), Refusal(pictures=self._work.batch_size))
        wish = next_time(place, self._work, self._need, refusal, pictures=self.batch_size)
        return f"Memory ran out, so {done}. {wish}".strip()

    @functools.cached_property
    def _need(self) -> Need:
        """Estimated once, and only where there is something to explain."""
        return need_of(self._pipe, self._info.path, self._work)

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Take up what an earlier worker had in force, as far as it is possible here."""
        size, remedies = kept.get("batch_size"), kept.get("remedies")
        if isinstance(size, int) and 0 < size < self.batch_size:
            self._force("smaller_batch", size)
        for remedy in remedies if isinstance(remedies, list) else []:
            if remedy in _DOES and remedy != "smaller_batch" and self._can(remedy, self.batch_size):
                self._force(remedy)

    def run(
        self,
        batch_index: int,
        stage: Callable[[], str],
        size: Callable[[], int],
        attempt: Callable[[], _T],
        *,
        within: bool = False,
    ) -> _T:
        """`attempt()`, after each shortage of memory with one more remedy.

        `stage` names what runs, `size` says how many pictures it is about. Raises `JobProblem` when there is no remedy left;
        `within` another `run`, which can make the batch smaller, raises `MemoryError` for that one to go on with.
        """
        while True:
            try:
                return attempt()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                _log.warning("job %s: %s", self._job, error)
                shortage = Shortage.of(error)
            # The except block is left: its traceback kept the tensors.
            free_memory()
            remedy = self._next(stage(), size())
            if within and remedy in (None, "smaller_batch"):
                raise MemoryError(shortage.text)
            self._climb(batch_index, stage(), size(), shortage, remedy)

    def _climb(self, batch_index: int, stage: str, size: int, shortage: Shortage, remedy: Remedy | None) -> None:
        free_bytes = shortage.free_bytes or available_bytes(self._device)
        refusal = refusal_of(shortage, stage, size, self.in_force)
        refusal = dataclasses.replace(refusal, scores_bytes=scores_bytes(self._pipe, self._work, refusal))
        place = place_of(self._device, shortage, weight_bytes(self._pipe))
        if remedy is None:
            advice = self._exhausted(place, refusal)
            raise JobProblem(advice.message, advice.field)
        if not self._rungs:
            self._first = place, refusal
        self._force(remedy, max(1, size // 2))
        _log.warning("job %s, %s: memory ran out; next: %s", self._job, stage, remedy)
        what = shortage_text(place, refusal, free_now_bytes=free_bytes)
        self._emit(
            MemoryRanOut(
                job=self._job,
                batch_index=batch_index,
                stage=stage,
                remedy=remedy,
                message=f"{what} Tried again with the same seeds: {_DOES[remedy]}.",
                needed_bytes=shortage.needed_bytes,
                free_bytes=free_bytes,
            )
        )
        self.keep({"batch_size": self.batch_size, "remedies": list(self.in_force)})

    def _next(self, stage: str, size: int) -> Remedy | None:
        rungs = _WHEN_DECODING if stage == "decode" else _ELSE
        return next((remedy for remedy in rungs if self._can(remedy, size)), None)

    def _can(self, remedy: Remedy, size: int) -> bool:
        if remedy == "smaller_batch":
            return size > 1  # each time half of it, so each size is tried once
        if remedy in self.in_force:
            return False
        if remedy == "vae_slicing":
            return size > 1 and hasattr(getattr(self._pipe, "vae", None), "enable_slicing")
        if remedy == "vae_tiling":
            return hasattr(getattr(self._pipe, "vae", None), "enable_tiling")
        # One kind of offload replaces the other. On a CPU there is nothing to move the model from.
        replaced = remedy == "model_offload" and "sequential_offload" in self.in_force
        return self._device.type == "cuda" and importlib.util.find_spec("accelerate") is not None and not replaced

    def _force(self, remedy: Remedy, size: int = 0) -> None:
        pipe = self._pipe
        if remedy == "vae_slicing":
            pipe.vae.enable_slicing()
            undo = pipe.vae.disable_slicing
        elif remedy == "vae_tiling":
            pipe.vae.enable_tiling()
            undo = pipe.vae.disable_tiling
        elif remedy == "smaller_batch":
            self.batch_size = size
            undo = _nothing
        else:
            pipe.remove_all_hooks()
            pipe.to("cpu", silence_dtype_warnings=True)
            free_memory()
            offload = pipe.enable_model_cpu_offload if remedy == "model_offload" else pipe.enable_sequential_cpu_offload
            offload(device=self._device)
            undo = self._move_back
        self._rungs.append(_Rung(remedy, undo))

    def _move_back(self) -> None:
        self._pipe.remove_all_hooks()
        self._pipe.to(self._device)

    def undo(self) -> bool:
        """Take back what is in force, the last first; False where that is not possible and the model must be loaded anew."""
        well = True
        for rung in reversed(self._rungs):
            try:
                rung.undo()
            except Exception:
                _log.exception("%s could not be taken back", rung.remedy)
                well = False
        return well

    def _exhausted(self, place: Place, refusal: Refusal) -> Advice:
        tried = ", ".join(_DOES[rung] for rung in get_args(Remedy) if rung in self.in_force)
        return job_advice(place, self._work, self._need, refusal, tried=tried)


def _nothing() -> None:
    """Taking back a smaller batch: the next job has a ladder of its own."""
