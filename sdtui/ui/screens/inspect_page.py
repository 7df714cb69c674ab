"""The page of the selected module on the Inspect screen: its keys, and what happens around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textual import on
from textual.binding import Binding
from textual.getters import query_one
from textual.widget import Widget

from sdtui.protocol import JobInspected, Message
from sdtui.ui.screens.base import FeedScreen
from sdtui.ui.widgets.module_pages import ModulePages
from sdtui.ui.widgets.pages.part import Part

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect import InspectScreen

BINDINGS: Final = (
    Binding("p", "turn_page(1)", "Page", id="inspect.page", tooltip="Facts, weights, activations, code or place of it"),
    Binding("P", "turn_page(-1)", show=False, id="inspect.page_before", tooltip="The part of the page before"),
    Binding("z", "zoom_page", "Zoom", show=False, id="inspect.zoom", tooltip="The page over the whole screen, or beside again"),
    Binding("S", "decompose", show=False, id="inspect.singular", tooltip="The singular values of the tensor on the page"),
    Binding(
        "full_stop", "turn_part(1)", show=False, key_display=".", id="inspect.next_tensor",
        tooltip="On the page: the module's next tensor, or more of its channels",
    ),
    Binding(
        "comma", "turn_part(-1)", show=False, key_display=",", id="inspect.tensor_before",
        tooltip="On the page: the tensor or the channels before",
    ),
)  # fmt: skip
ACTIONS: Final = frozenset({"turn_page", "zoom_page", "decompose", "turn_part"})


class PagedScreen(FeedScreen):
    """A screen with the page of a module."""

    page = query_one("#page", ModulePages)
    _before_zoom: Widget | None = None

    def is_possible(self, action: str) -> bool:
        """Whether an action on the page makes sense with what it shows."""
        part: Part | None = self.page.part
        if action == "turn_part":
            return part is not None and part.turns
        return action != "decompose" or bool(getattr(part, "can_decompose", False))

    def action_turn_page(self, by: int) -> None:
        """The next part of the module's page."""
        self.page.turn(by)

    def action_turn_part(self, by: int) -> None:
        """The next of what a part has several of."""
        if self.page.part is not None:
            self.page.part.turn(by)

    def action_decompose(self) -> None:
        """Ask for singular values."""
        from sdtui.ui.widgets.pages.weights import WeightsPart

        if isinstance(self.page.part, WeightsPart):
            self.page.part.decompose()

    def action_zoom_page(self) -> None:
        """The page over the whole screen, or beside the rest again."""
        self.zoom_page(not self.has_class("-zoomed"))

    def zoom_page(self, zoomed: bool) -> None:
        """The page over the whole screen, with the keys, or beside the rest again."""
        if zoomed == self.has_class("-zoomed"):
            return
        before, self._before_zoom = self._before_zoom, self.focused
        self.set_class(zoomed, "-zoomed")
        if zoomed:
            self.page.target.focus()
        elif before is not None:
            self.call_after_refresh(self._give_back, before)  # what is hidden yet cannot have it

    def _give_back(self, before: Widget) -> None:
        """The keys to what had them, unless another view has taken them by now."""
        if self.focused is None or self.page.has_focus_within:
            before.focus()

    @on(ModulePages.Turned)
    def _page_turned(self, message: ModulePages.Turned) -> None:
        message.stop()
        self.refresh_bindings()


def take_event(screen: InspectScreen, event: Message) -> None:
    """A job was inspected: there are newer activations."""
    if isinstance(event, JobInspected) and event.modules:
        resumed(screen)


def resumed(screen: InspectScreen) -> None:
    """The screen is shown again: there may be a newer job, and the inspector may answer."""
    if screen.is_current:
        screen.page.again()
