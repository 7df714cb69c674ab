"""The page of the selected module, in parts: facts, weights, activations, code, place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.getters import query_one
from textual.message import Message
from textual.widget import Widget

from sdtui.ui.live_figures import Told
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.widgets.module_page import ModulePage
from sdtui.ui.widgets.pages.part_line import PartLine
from sdtui.ui.widgets.pages.span_view import SpanView

if TYPE_CHECKING:
    from sdtui.server.inspector import Inspector
    from sdtui.ui.widgets.pages.part import Part

PARTS: Final = ("facts", "weights", "activations", "code", "place")


class Selected(NamedTuple):
    """What is selected, and all that its facts tell."""

    outline: Outline
    node: int
    differences: Sequence[str]
    runs: Sequence[tuple[str, str]]
    live: Told | None


class ModulePages(Vertical):
    """One part is shown at a time, and stays while the selection moves; the others are not told of it until they are shown."""

    facts = query_one("#facts", ModulePage)
    line = query_one("#parts", PartLine)

    class Turned(Message):
        """Another part is shown."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.number = 0
        self.inspector: Callable[[], Inspector] | None = None
        """The process that reads weights and code; the screen has it."""
        self._selected: Selected | None = None
        self._told: Selected | None = None
        """What the facts show."""
        self._parts: dict[str, Part] = {}

    def compose(self) -> ComposeResult:
        """The names of the parts, and the facts; the other parts come when they are shown."""
        yield PartLine([name.capitalize() for name in PARTS], id="parts")
        yield ModulePage(id="facts")

    @property
    def text(self) -> str:
        """The facts, not wrapped."""
        return self.facts.text

    @property
    def shown(self) -> str:
        """The part that is shown."""
        return PARTS[self.number]

    @property
    def part(self) -> Part | None:
        """The part that is shown; None for the facts."""
        return self._parts.get(self.shown)

    @property
    def target(self) -> Widget:
        """What takes the keys of the part that is shown."""
        return next(iter(self.part.query(SpanView)), self.facts) if self.part is not None else self.facts

    def show(
        self,
        outline: Outline,
        node: int,
        differences: Sequence[str] = (),
        runs: Sequence[tuple[str, str]] = (),
        live: Told | None = None,
    ) -> None:
        """Another node, or newer figures of it."""
        title = "Model" if node == MODEL else "Component" if outline.is_component(node) else "Module"
        if title != self.border_title:
            self.border_title = title
        self._selected = Selected(outline, node, differences, runs, live)
        self._tell()

    def _tell(self) -> None:
        """Tell the part that is shown what is selected."""
        if self._selected is None:
            return
        if self.part is not None:
            self.part.take(*self._selected[:2])
        elif self._told is not self._selected:
            self._told = self._selected
            self.facts.show(*self._selected)

    def turn(self, by: int) -> None:
        """The next part, or the one before."""
        self.turn_to((self.number + by) % len(PARTS))

    def turn_to(self, number: int) -> None:
        """Show a part; what it shows is looked up again."""
        had_focus = self.has_focus_within
        before = self.part
        if before is not None:
            before.leave()
        self.number = number
        name = self.shown
        if name not in self._parts and name != PARTS[0] and self.inspector is not None:
            self._parts[name] = _make(name, self.inspector)
            self.mount(self._parts[name])
        self.facts.display = self.part is None
        for other, part in self._parts.items():
            part.display = other == name
        self.set_class(self.part is not None, "-part")
        self.line.point(number)
        self._tell()
        self.again()
        if had_focus:
            self.call_after_refresh(self._focus)
        self.post_message(self.Turned())

    def _focus(self) -> None:
        self.target.focus()

    def again(self) -> None:
        """Something may be known by now that was not."""
        if self.part is not None:
            self.part.again()

    def put_away(self) -> None:
        """Another screen is shown."""
        if self.part is not None:
            self.part.put_away()

    @on(PartLine.Chosen)
    def _chosen(self, message: PartLine.Chosen) -> None:
        message.stop()
        self.turn_to(message.number)


def _make(name: str, inspector: Callable[[], Inspector]) -> Part:
    """A part; what draws it is imported now."""
    from sdtui.ui.widgets.pages.activations import ActivationsPart
    from sdtui.ui.widgets.pages.place import PlacePart
    from sdtui.ui.widgets.pages.source_code import CodePart
    from sdtui.ui.widgets.pages.weights import WeightsPart

    kinds: dict[str, Any] = {"weights": WeightsPart, "activations": ActivationsPart, "code": CodePart, "place": PlacePart}
    made: Part = kinds[name](id=f"{name}-part", inspector=inspector)
    return made
