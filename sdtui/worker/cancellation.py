"""Stopping within a step: a flag that is looked at before every block of the networks.

On a CPU one step of a large model takes many seconds; a block takes a hundredth of that.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sdtui.worker.errors import STOPS, Cancelled, Stop

if TYPE_CHECKING:
    import torch

_BLOCK_LISTS: Final = frozenset({"resnets", "attentions", "transformer_blocks", "single_transformer_blocks", "layers", "block"})
"""How diffusers and transformers name the lists of blocks in U-Nets, transformers, VAEs, CLIP and T5."""
_NETWORKS: Final = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "safety_checker")


class CancelToken:
    """Whether and how a job is to stop, and when that was said; `token()` is True when it is to stop at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wanted: Stop | None = None
        self.requested_at = 0.0

    def request(self, stop: Stop) -> None:
        """Ask the job to stop, from any thread; a wish weaker than the one before changes nothing."""
        with self._lock:
            if self.wanted is None or STOPS.index(stop) > STOPS.index(self.wanted):
                self.requested_at = time.perf_counter()
                self.wanted = stop

    def cancel(self) -> None:
        """Ask the job to stop at once."""
        self.request("now")

    def __call__(self) -> bool:
        return self.wanted == "now"

    def stop_between_steps(self) -> None:
        """Raise `Cancelled` when the job is to stop now, or where the next step would begin."""
        if self.wanted is not None and self.wanted != "after_image":
            raise Cancelled(self.wanted)

    def stop_between_batches(self) -> None:
        """Raise `Cancelled` when the job is to stop in any way: a batch is saved, and the next one has not begun."""
        if self.wanted is not None:
            raise Cancelled(self.wanted)

    @property
    def latency_s(self) -> float:
        """Seconds since the request."""
        return time.perf_counter() - self.requested_at if self.wanted is not None else 0.0


class _Watching(CancelToken):
    """A token that also asks a function."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        super().__init__()
        self._cancelled = cancelled

    def __call__(self) -> bool:
        if self._cancelled():
            self.cancel()
        return super().__call__()

    def stop_between_steps(self) -> None:
        self()
        super().stop_between_steps()

    def stop_between_batches(self) -> None:
        self()
        super().stop_between_batches()


def token_of(cancelled: Callable[[], bool]) -> CancelToken:
    """A token as it is, or one that follows a plain function."""
    return cancelled if isinstance(cancelled, CancelToken) else _Watching(cancelled)


def raise_if(cancelled: Callable[[], bool]) -> None:
    """Raise `Cancelled` when the job is to stop."""
    if cancelled():
        raise Cancelled


def blocks(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules before which a job may stop: members of block lists that hold modules of their own.

    A block that another one runs first thing is left out; it would look twice.
    """
    found: list[torch.nn.Module] = []
    for name, module in network.named_modules():
        holder, _, index = name.rpartition(".")
        listed, within = holder.rpartition(".")[2], ".attentions." in f".{holder}"
        first_inside = within and listed == "transformer_blocks" and index == "0"
        if index.isdecimal() and listed in _BLOCK_LISTS and not first_inside and any(True for _ in module.children()):
            found.append(module)
    return found


@contextmanager
def stoppable(pipe: Any, cancelled: Callable[[], bool]) -> Iterator[None]:
    """While this lasts, the networks of a pipeline raise `Cancelled` before their next block once `cancelled()` is true.

    Their `forward` is wrapped on the instance, as accelerate does it: a hook of torch's would send every call the slow
    way through `Module._call_impl`, a hundredth of a step of a small model.
    """
    networks = (getattr(pipe, name, None) for name in _NETWORKS)
    guarded = [block for network in networks if network is not None for block in blocks(network)]
    before = [(block, vars(block).get("forward")) for block in guarded]
    try:
        for block in guarded:
            vars(block)["forward"] = _guarded(block.forward, cancelled)
        yield
    finally:
        for block, forward in before:
            if forward is None:
                vars(block).pop("forward", None)
            else:
                vars(block)["forward"] = forward


def _guarded(forward: Callable[..., Any], cancelled: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def look_first(*args: Any, **kwargs: Any) -> Any:
        if cancelled():
            raise Cancelled
        return forward(*args, **kwargs)

    return look_first
