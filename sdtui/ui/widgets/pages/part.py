"""What all parts of the page but the facts have in common."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from textual.containers import Container
from textual.worker import Worker, WorkerState

from sdtui.text import safe_text
from sdtui.ui.outline import Outline
from sdtui.ui.widgets.pages.beside import run_beside

if TYPE_CHECKING:
    from sdtui.server.inspector import Inspector


ASKING: Final = "ask"
"""The group of workers that look up what the selected module has to tell."""


class Part(Container):
    """Does nothing while it is not shown: then it only notes which module is selected."""

    def __init__(self, *, id: str, inspector: Callable[[], Inspector]) -> None:
        super().__init__(id=id)
        self.outline: Outline | None = None
        self.node = 0
        self._inspector = inspector
        self._stale = True

    def take(self, outline: Outline, node: int) -> None:
        """The module that is selected."""
        if outline is not self.outline or node != self.node:
            self.outline, self.node, self._stale = outline, node, True
        self.catch_up()

    def on_mount(self) -> None:
        """What was selected before there was anything to show it with."""
        self.catch_up()

    def catch_up(self) -> None:
        """Show the selected module, if another one is shown."""
        if self._stale and self.outline is not None and self.is_attached and self.display and self.children:
            self._stale = False
            self.show(self.outline)

    def show(self, outline: Outline) -> None:
        """Show another module."""
        raise NotImplementedError

    def ask(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Look something up beside the event loop; what was looked up before is dropped."""
        run_beside(self, work, ASKING, exclusive=True)

    def say(self, words: str, tone: str = "muted") -> None:
        """Show a sentence, which is safe, and nothing else."""
        raise NotImplementedError

    def again(self) -> None:
        """Something may be known that was not: an inspected job, or an inspector that answers."""

    @property
    def waits(self) -> bool:
        """Whether it has not yet shown what it is to show."""
        return False

    def leave(self) -> None:
        """Another part is shown: what is not answered yet is not waited for, and asked again when this one is shown again."""
        self.workers.cancel_group(self, ASKING)
        self._stale |= self.waits
        self.put_away()

    def put_away(self) -> None:
        """Another screen is shown."""

    def turn(self, by: int) -> None:
        """The next of several, or the one before."""

    @property
    def turns(self) -> bool:
        """Whether there are several."""
        return False

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Something failed in a way that nobody foresaw; that is said."""
        event.stop()
        if event.state is WorkerState.ERROR:
            error = event.worker.error
            self.say(f"{type(error).__name__}: {safe_text(str(error), limit=200)}", "error")
