"""What a forward allocates: every storage is followed from the operation that makes it to its end, on whatever device."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that are made while it is on, and of those that live at once."""

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        """`known` are tensors, such as parameters, that are not counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = self.peak_bytes = self.made_bytes = 0
        self._seen: Any = WeakIdKeyDictionary()
        self._held = [tensor.untyped_storage() for tensor in known]
        for storage in self._held:
            self._seen[storage] = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = None
        weakref.finalize(storage, self._free, size)
        self.made_bytes += size
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _free(self, size: int) -> None:
        self.live_bytes -= size
