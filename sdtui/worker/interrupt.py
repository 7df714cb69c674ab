"""Stopping while a model is loaded: the libraries ask nobody, but all that they do with tensors goes through torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.overrides import TorchFunctionMode

from sdtui.worker.cancellation import raise_if


class Interruptible(TorchFunctionMode):
    """While this lasts, every call of torch in this thread raises `Cancelled` once `cancelled()` is true; it changes none.

    For loading only: it costs some microseconds a call.
    """

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        super().__init__()
        self._cancelled = cancelled

    def __torch_function__(
        self, func: Callable[..., Any], _types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look at the flag, then call."""
        raise_if(self._cancelled)
        return func(*args, **(kwargs or {}))
