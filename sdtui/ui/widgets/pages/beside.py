"""Work of a widget beside the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from textual.widget import Widget


def run_beside(widget: Widget, work: Callable[[], Coroutine[Any, Any, None]], group: str, *, exclusive: bool = False) -> None:
    """Begin some work; `exclusive` ends what the group does. Its coroutine is only made when it begins, so none is left over."""
    made: Any = work  # Textual's types do not know functions that make a coroutine of None
    widget.run_worker(made, group=group, exclusive=exclusive, exit_on_error=False)
