"""Putting a function in the place of an object's method, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

_NOTHING: Final = object()


@contextmanager
def standing_in(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """While this lasts, `owner.name` is this function; afterwards the object is as it was, also where these are nested."""
    before = vars(owner).get(name, _NOTHING)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if before is _NOTHING:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
