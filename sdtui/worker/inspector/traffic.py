"""What goes in and out of every module of a network during a forward, by hooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sdtui.protocol import DryModule, TensorFact

_MOST_TENSORS: Final = 32
"""Of one call; the residuals of a U-Net are twelve."""


@dataclass
class _Seen:
    """One module's calls so far."""

    calls: int = 0
    macs: int = 0
    output_bytes: int = 0
    inputs: tuple[TensorFact, ...] = ()
    outputs: tuple[TensorFact, ...] = ()
    begun_at: list[int] = field(default_factory=list)


class Traffic:
    """Keeps, for each module, shapes, calls, bytes and the multiply-adds that `macs_so_far` counted while it ran."""

    def __init__(self, network: nn.Module, macs_so_far: Callable[[], int]) -> None:
        self._network = network
        self._macs_so_far = macs_so_far
        self._seen = {module: _Seen() for module in network.modules()}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open, calls are noted."""
        handles: list[RemovableHandle] = []
        try:
            for module in self._seen:
                handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
                handles.append(module.register_forward_hook(self._after))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def modules(self) -> tuple[DryModule, ...]:
        """Those that were called, in the network's order."""
        return tuple(
            DryModule(
                path=path,
                class_name=type(module).__name__,
                calls=seen.calls,
                inputs=seen.inputs,
                outputs=seen.outputs,
                macs=seen.macs,
                output_bytes=seen.output_bytes,
            )
            for path, module in self._network.named_modules()
            if (seen := self._seen[module]).calls
        )

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen = self._seen[module]
        if not seen.calls:
            names = list(inspect.signature(module.forward).parameters)
            named = {names[index] if index < len(names) else "": value for index, value in enumerate(args)}
            seen.inputs = tuple(_facts({**named, **kwargs}))[:_MOST_TENSORS]
        seen.begun_at.append(self._macs_so_far())

    def _after(self, module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        seen = self._seen[module]
        facts = tuple(_facts(output))
        if not seen.calls:
            seen.outputs = facts[:_MOST_TENSORS]
        seen.calls += 1
        seen.macs += self._macs_so_far() - seen.begun_at.pop()
        seen.output_bytes += sum(_bytes(tensor) for _, tensor in _tensors(output))


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _facts(value: Any) -> Iterator[TensorFact]:
    for name, tensor in _tensors(value):
        yield TensorFact(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in what a module takes or gives, each with the name it has there."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors(part, f"{name}.{key}".removeprefix("."))
    elif isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from _tensors(part, f"{name}[{index}]" if name else str(index) if len(value) > 1 else "")
