"""Stopping within a step: a flag that is looked at before every block of the networks.

On a CPU one step of a large model takes many seconds; a block takes a hundredth of that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sdtui.worker.errors import Cancelled

if TYPE_CHECKING:
    import torch

_BLOCK_LISTS: Final = frozenset(
    {"down_blocks", "up_blocks", "resnets", "attentions", "transformer_blocks", "single_transformer_blocks", "layers", "block"}
)
"""How diffusers and transformers name the lists of blocks in U-Nets, transformers, VAEs, CLIP and T5."""
_NETWORKS: Final = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "safety_checker")


class CancelToken:
    """Whether a job is to stop, and when that was said."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.requested_at = 0.0

    def cancel(self) -> None:
        """Ask the job to stop; from any thread."""
        if not self._event.is_set():
            self.requested_at = time.perf_counter()
            self._event.set()

    def __call__(self) -> bool:
        return self._event.is_set()

    @property
    def latency_s(self) -> float:
        """Seconds since the request."""
        return time.perf_counter() - self.requested_at if self() else 0.0


def raise_if(cancelled: Callable[[], bool]) -> None:
    """Raise `Cancelled` when the job is to stop."""
    if cancelled():
        raise Cancelled


def blocks(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules before which a job may stop: members of block lists that hold modules of their own."""
    found: list[torch.nn.Module] = []
    for name, module in network.named_modules():
        holder, _, index = name.rpartition(".")
        if index.isdecimal() and holder.rpartition(".")[2] in _BLOCK_LISTS and any(True for _ in module.children()):
            found.append(module)
    return found


@contextmanager
def stoppable(pipe: Any, cancelled: Callable[[], bool]) -> Iterator[None]:
    """While this lasts, the networks of a pipeline raise `Cancelled` before their next block once `cancelled()` is true."""

    def look(_module: object, _arguments: object) -> None:
        if cancelled():
            raise Cancelled

    networks = (getattr(pipe, name, None) for name in _NETWORKS)
    handles = [block.register_forward_pre_hook(look) for network in networks if network is not None for block in blocks(network)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
