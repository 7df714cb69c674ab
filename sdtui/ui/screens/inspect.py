"""The Inspect screen: what a model is made of, module by module, from its files alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple, get_args

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.events import Paste
from textual.getters import query_one
from textual.message import Message as UiMessage
from textual.widget import Widget
from textual.widgets import Input, Static
from textual.worker import Worker, WorkerState

from sdtui.anatomy.find import classes
from sdtui.text import format_bytes, safe_text
from sdtui.ui.feed import Feed, FeedEvent, FeedState
from sdtui.ui.module_rows import count_text
from sdtui.ui.outline import MODEL, Key, Order, Outline
from sdtui.ui.screens import SCREENS, inspect_find, inspect_live, inspect_lora, inspect_open, inspect_page, inspect_words
from sdtui.ui.screens.inspect_models import ModelSuggester
from sdtui.ui.screens.inspect_page import PagedScreen
from sdtui.ui.widgets.header import HeaderLine
from sdtui.ui.widgets.key_line import KeyLine
from sdtui.ui.widgets.module_pages import ModulePages
from sdtui.ui.widgets.module_tree import ModuleLines
from sdtui.ui.widgets.schematic import Schematic
from sdtui.ui.widgets.table_box import TableBox
from sdtui.ui.widgets.words_view import WordsView

if TYPE_CHECKING:
    from sdtui.protocol import RunDry
    from sdtui.server.inspector import Inspector
    from sdtui.ui.screens.inspect_dry import DryRun

Asked = Literal["find", "open", "compare", "lora"]
View = Literal["tree", "schematic", "words"]
VIEWS: Final[tuple[View, ...]] = get_args(View)
_PLACEHOLDERS: Final[dict[Asked, str]] = {
    "find": "a part of a name, a class or a shape: attn2, Conv2d, [320, …",
    "open": "a model's folder, file or hub id; → completes",
    "compare": "the model to compare with; → completes",
    "lora": "a LoRA's file, to be shown on this model; → completes",
}
_SORTS: Final[tuple[tuple[Order | None, str], ...]] = (
    (None, "as the model runs"),
    ("time", "by time in the last inspected job"),
    ("parameters", "by parameters"),
    ("bytes", "by size"),
    ("name", "by name"),
)
_LONGEST_ENTRY: Final = 1_000
_REMEMBERED: Final = 50
"""Models of which is remembered what was unfolded."""


class Kept(NamedTuple):
    """What was unfolded and selected in a model."""

    unfolded: frozenset[Key]
    selected: Key


class EntryLine(Input):
    """Where a search or a model is typed."""

    def _on_paste(self, event: Paste) -> None:
        """One line, and nothing that a terminal would act on. Textual then calls Input's own handler."""
        event.text = safe_text(event.text.strip(), limit=_LONGEST_ENTRY)


class InspectScreen(PagedScreen):
    """Owns what is open and what was found in it; the tree and the page show what they are given."""

    CSS_PATH = "inspect.tcss"
    AUTO_FOCUS = "#module-lines"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "find", "Find", key_display="/", id="inspect.find", tooltip="Find by name, class or shape"),
        Binding("o", "open", "Open", id="inspect.open", tooltip="Open another model: a folder, a file or a hub id"),
        Binding("v", "turn_view", "View", id="inspect.view", tooltip="Tree, schematic of the network, or where the words act"),
        *inspect_page.BINDINGS,
        Binding("L", "toggle_live", "Live", id="inspect.live", tooltip="Show what modules did in the last inspected job"),
        Binding("i", "show_log", "Log", id="inspect.log", tooltip="Show the module's last line in the log of Create"),
        Binding("n", "next_hit(True)", "Next", id="inspect.next", tooltip="The next that was found"),
        Binding("N", "next_hit(False)", "Back", id="inspect.previous", tooltip="The one before that was found"),
        Binding("f", "choose_class", "Class", id="inspect.class", tooltip="Show only modules of one class"),
        Binding("s", "sort", "Sort", id="inspect.sort", tooltip="Sort by parameters, size or name, or as the model runs"),
        Binding("D", "compare", "Compare", id="inspect.compare", tooltip="Mark in what another model differs"),
        Binding("a", "lora", show=False, id="inspect.lora", tooltip="Mark what a LoRA changes in this model"),
        Binding("W", "compare_weights", show=False, id="inspect.weights", tooltip="Compare the numbers of what is selected, too"),
        Binding("X", "read_pickle", show=False, id="inspect.pickle", tooltip="Read a refused pickle's shapes all the same"),
        Binding("t", "look_closer", "Shapes", id="inspect.shapes", tooltip="Exact classes; shapes and work of one forward"),
        Binding("y", "copy_path", "Copy", id="inspect.copy", tooltip="Copy the module's path"),
        Binding("r", "reopen", "Reread", show=False, id="inspect.reopen", tooltip="Read the model's files again"),
        Binding(
            "escape", "leave", "Leave", show=False, id="inspect.leave", tooltip="Leave the search, the filter, the comparison"
        ),
        Binding("f8", "reconnect", show=False, id="inspect.reconnect", tooltip="Try to reach the server now"),
    ]
    header = query_one("#header", HeaderLine)
    box = query_one("#modules", TableBox)
    tree_lines = query_one("#module-lines", ModuleLines)
    schematic = query_one("#schematic", Schematic)
    words = query_one("#words", WordsView)
    say = query_one("#say", Static)
    entry = query_one("#entry", EntryLine)

    class Shown(UiMessage):
        """The screen is in view: whoever knows the form says which model that names."""

        def __init__(self, screen: InspectScreen) -> None:
            super().__init__()
            self.screen = screen

    class LogWanted(UiMessage):
        """The log's last line about a module is wanted; whoever knows the log shows it."""

        def __init__(self, screen: InspectScreen, key: Key) -> None:
            super().__init__()
            self.screen = screen
            self.key = key

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed, classes=f"-view-{VIEWS[0]}")
        self.live = inspect_live.Live()
        self.view: View = VIEWS[0]
        self.outline: Outline | None = None
        self.source = self.opening = ""
        self.hits: list[int] = []
        self.differences: dict[int, list[str]] = {}
        self.compared_with = ""
        self.refused_pickle = ""
        self.form_job: RunDry | None = None
        self._followed = ""
        self._asked: Asked = "find"
        self._began_at: int | None = None
        self._kept: dict[str, Kept] = {}
        self._suggester = ModelSuggester()
        self._doing = ""
        self._inspector: Inspector | None = None
        self.dry_run: DryRun | None = None

    async def on_unmount(self) -> None:
        """The process that looks closer ends with the screen."""
        if self._inspector is not None:
            self.workers.cancel_group(self, "files")  # else its next question would start another process
            await self._inspector.close()

    def compose(self) -> ComposeResult:
        """The tree, and beside or below it the page of the selected module."""
        yield HeaderLine(SCREENS, "inspect", id="header")
        with Container(id="inspect-body"):
            box = TableBox(ModuleLines(id="module-lines"), id="modules")
            box.border_title = "Modules"
            yield box
            yield Schematic(id="schematic")
            yield WordsView(id="words")
            yield ModulePages(id="page")
        yield Static(id="say", markup=False)
        yield EntryLine(compact=True, max_length=_LONGEST_ENTRY, id="entry")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """The header shows what the server says."""
        self.feed.listen(self)
        self.page.inspector = lambda: self.inspector

    def on_screen_resume(self) -> None:
        """The form may name another model by now."""
        self.post_message(self.Shown(self))
        inspect_live.resumed(self)
        inspect_words.resumed(self)
        inspect_page.resumed(self)

    def on_screen_suspend(self) -> None:
        """Another screen, or a dialog over this one."""
        if self not in self.app.screen_stack:
            self.words.put_away()
            self.page.put_away()

    def on_feed_state(self, message: FeedState) -> None:
        """The connection changed."""
        self.header.take_state(message)

    def on_feed_event(self, message: FeedEvent) -> None:
        """The server told something."""
        self.header.take_event(message.event)
        if not message.replayed:
            inspect_live.take_event(self, message.event)
            inspect_words.take_event(self, message.event)
            inspect_page.take_event(self, message.event)

    def on_words_view_told(self, message: WordsView.Told) -> None:
        """What the words view has to say."""
        self.show_notice(message.words, message.tone)

    # --- opening ----------------------------------------------------------------------------------------------------

    def follow(self, model: str, job: RunDry | None = None) -> None:
        """Open the model that the form names, where it is another than the last time; `job`: what the form would run."""
        self.form_job = job
        if model.strip() and model.strip() != self._followed:
            self._followed = model.strip()
            self.open_model(self._followed)

    def open_model(self, source: str) -> None:
        """Take a model apart, beside everything else; what is shown stays until that is done."""
        self.opening, self.live.wanted = source, None
        self.show_notice(f"Reading {_shown(source)} …")
        self._work(inspect_open.open_model(self, source), f"{_shown(source)} cannot be shown")

    def show_outline(self, source: str, outline: Outline, dry_run: DryRun | None = None) -> None:
        """Show a tree, with what was unfolded and selected in it before."""
        self._remember()
        self.source, self.outline, self.dry_run = source, outline, dry_run
        self.hits, self.differences = [], {}
        kept = self._kept.get(source)
        node = None
        if kept is not None:
            outline.unfold_keys(kept.unfolded)
            node = outline.find_key(kept.selected)
        self.tree_lines.show(outline, node or MODEL)
        inspect_live.opened(self)
        self.show_title()
        self.refresh_bindings()

    @property
    def inspector(self) -> Inspector:
        """The process that looks closer: started when it is asked, ended with the screen."""
        if self._inspector is None:
            from sdtui.server.inspector import Inspector

            self._inspector = Inspector()
        return self._inspector

    def _remember(self) -> None:
        if self.outline is not None and self.tree_lines.selected is not None:
            self._kept.pop(self.source, None)
            self._kept[self.source] = Kept(self.outline.unfolded_keys(), self.outline.key(self.tree_lines.selected))
            while len(self._kept) > _REMEMBERED:
                self._kept.pop(next(iter(self._kept)))

    def _work(self, work: object, doing: str) -> None:
        self._doing = doing
        self.run_worker(work, group="files", exclusive=True, exit_on_error=False)  # type: ignore[arg-type]

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Reading failed in a way that nobody foresaw; that is said, and what was shown stays."""
        if event.state is WorkerState.ERROR and event.worker.group in ("files", "find"):
            error = event.worker.error
            self.show_notice(f"{self._doing}: {type(error).__name__} {safe_text(str(error), limit=200)}", "error")

    # --- what is shown ----------------------------------------------------------------------------------------------

    def show_title(self) -> None:
        """Which model it is, and how the tree is ordered and filtered, in the border."""
        if self.outline is None:
            return
        anatomy = self.outline.anatomy
        self.box.border_title = Content(_shown(self.outline.name(MODEL)))
        family = f"{safe_text(anatomy.family, limit=40)}, {anatomy.sure * 100:.0f} % sure" if anatomy.sure else ""
        sort = next(label for by, label in _SORTS if by == self.outline.sorted_by) if self.outline.sorted_by else ""
        only = f"only {safe_text(self.outline.only_class, limit=40)}" if self.outline.only_class else ""
        size = f"{count_text(anatomy.parameters)} parameters"
        parts = (only, sort, anatomy.kind, family, size, format_bytes(anatomy.bytes))
        self.box.border_subtitle = Content(" · ".join(part for part in parts if part))

    def show_notice(self, words: str, tone: str = "muted") -> None:
        """The line below, up to three for what is wrong; `words` are safe."""
        self.say.set_class(tone in ("error", "warning"), "-fault")
        self.say.update(Content.styled(words, f"${tone}"))

    @on(ModuleLines.Selected)
    def show_page(self) -> None:
        """The page of what is selected."""
        if self.outline is not None and self.tree_lines.selected is not None:
            node = self.tree_lines.selected
            runs = self.dry_run.facts(self.outline, node) if self.dry_run is not None else ()
            self.page.show(self.outline, node, self.differences.get(node, ()), runs, inspect_live.told(self, node))
            self.schematic.show(self.outline, node)

    @on(Schematic.Picked)
    def _take_block(self, event: Schematic.Picked) -> None:
        if event.opened:
            self.show_view("tree")
        self.tree_lines.go_to(event.node)

    # --- what the user does -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is impossible now is shown, but dim; what is about the model is not there while words are shown."""
        if self.view == "words" and action in inspect_words.OF_A_MODEL | inspect_page.ACTIONS:
            return False
        if action in inspect_page.ACTIONS:
            return self.is_possible(action) or None
        if action in ("find", "choose_class", "sort", "compare", "lora", "copy_path", "reopen", "look_closer"):
            return self.outline is not None or None
        if action == "next_hit":
            return bool(self.hits) or inspect_live.has_fault(self) or None
        return super().check_action(action, parameters)

    def action_open(self) -> None:
        """Type a model."""
        self._ask("open")

    def action_compare(self) -> None:
        """Type the model to compare with."""
        self._ask("compare")

    def action_read_pickle(self) -> None:
        """Read the shapes of the pickle that was refused, with torch's `weights_only`."""
        if self.refused_pickle:
            self.show_notice("Reading the pickle with weights_only in a process beside; torch takes some seconds to start …")
            self._work(inspect_open.read_pickle(self, self.refused_pickle), "The pickle cannot be read")

    def action_compare_weights(self) -> None:
        """Compare numbers with the model that was compared in structure."""
        if self.compared_with:
            self.show_notice("Reading the numbers of both models; large ones take a minute …")
            self._work(inspect_find.compare_weights(self), "The numbers cannot be compared")
        else:
            self.show_notice("D compares with another model first.")

    def action_lora(self) -> None:
        """Type the LoRA to show on this model."""
        self._ask("lora")

    def action_find(self) -> None:
        """Type what to find."""
        self._began_at = self.tree_lines.selected
        self._ask("find")

    def action_look_closer(self) -> None:
        """Have the classes built and run once, without weights and numbers, in a process beside."""
        if self.outline is not None:
            self.show_notice("Building the classes and running them without numbers; torch takes some seconds to start …")
            self._work(inspect_open.look_closer(self, self.outline), "The model cannot be looked at closer")

    def action_reopen(self) -> None:
        """Read the files again; what is unfolded stays."""
        self.open_model(self.source)

    def action_reconnect(self) -> None:
        """Try to reach the server now."""
        self.feed.retry()

    def action_turn_view(self) -> None:
        """The next view: the tree, the schematic, the words."""
        self.show_view(VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)])

    def show_view(self, view: View) -> None:
        """Show one of the views, and go to it; all of them share the selected module."""
        self.view = view
        self.set_class(False, "-zoomed")
        self.update_classes({f"-view-{name}": name == view for name in VIEWS})
        shown: dict[View, Widget] = {"tree": self.tree_lines, "schematic": self.schematic, "words": self.words}
        shown[view].focus()
        self.refresh_bindings()

    def action_toggle_live(self) -> None:
        """Show or hide what the modules did."""
        inspect_live.toggle(self)

    def action_show_log(self) -> None:
        """Go to what the log says of the selected module."""
        key = inspect_live.selected_key(self)
        if key is not None:
            self.post_message(self.LogWanted(self, key))

    def action_copy_path(self) -> None:
        """Put the path on the clipboard."""
        if self.outline is not None and self.tree_lines.selected is not None:
            path = safe_text(self.outline.path(self.tree_lines.selected))
            self.app.copy_to_clipboard(path)
            self.show_notice(f"Copied {safe_text(path, limit=200)}")

    def action_sort(self) -> None:
        """The next order."""
        if self.outline is not None:
            figures = self.live.figures if self.live.on else None
            orders = [by for by, _ in _SORTS if by != "time" or figures is not None]
            before = self.outline.sorted_by if self.outline.sorted_by in orders else None
            by = orders[(orders.index(before) + 1) % len(orders)]
            self.outline.sort(by, figures.times_s() if by == "time" and figures is not None else None)
            self.tree_lines.lines_changed()
            self.show_title()
            self.show_notice(f"Sorted {dict(_SORTS)[by]}.")

    def action_choose_class(self) -> None:
        """Choose among the classes that there are."""
        if self.outline is None:
            return
        from sdtui.ui.screens.chooser import Chooser

        found = classes(self.outline.modules[1:])
        width = len(f"{max(found.values(), default=0):,}")
        choices = [("", "every class"), *((name, f"{count:>{width},}  {_shown(name)}") for name, count in found.items())]

        def take(name: str | None) -> None:
            if name is not None:
                self.keep_class(name)

        self.app.push_screen(Chooser("Show only", choices, self.outline.only_class), take)

    def keep_class(self, name: str) -> None:
        """Show only modules of a class; empty shows all."""
        if self.outline is None:
            return
        inspect_find.take_hits(self, [])  # some of them may be left out now
        self.outline.keep_class(name)
        self.tree_lines.lines_changed()
        self.show_title()
        self.show_notice(f"Only {_shown(name)}; esc shows everything." if name else "")

    def action_leave(self) -> None:
        """Leave what was begun last: typing, then the search or the comparison, then the filter."""
        if self.has_class("-asking"):
            if self._asked == "find" and self._began_at is not None:
                inspect_find.take_hits(self, [])
                self.tree_lines.go_to(self._began_at)
            self._stop_asking()
        elif self.hits:
            inspect_find.take_hits(self, [])
        elif self.outline is not None and self.outline.only_class:
            self.keep_class("")
        else:
            self.zoom_page(False)

    # --- typing -----------------------------------------------------------------------------------------------------

    def _ask(self, what: Asked) -> None:
        self._asked = what
        entry = self.entry
        with self.prevent(Input.Changed):
            entry.value = ""
        entry.placeholder = _PLACEHOLDERS[what]
        entry.suggester = None if what == "find" else self._suggester
        self.set_class(True, "-asking")
        entry.focus()

    def _stop_asking(self) -> None:
        self.set_class(False, "-asking")
        self.tree_lines.focus()

    @on(Input.Submitted, "#entry")
    def _entered(self, event: Input.Submitted) -> None:
        value = event.value.strip()
        self._stop_asking()
        if self._asked == "open" and value:
            self.open_model(value)
        elif self._asked == "lora" and value:
            self._work(inspect_lora.show_lora(self, value), f"{_shown(value)} cannot be read")
        elif self._asked == "compare" and value:
            self.show_notice(f"Comparing with {_shown(value)} …")
            self._work(inspect_find.compare_with(self, value), f"{_shown(value)} cannot be compared")

    @on(Input.Changed, "#entry")
    def _typed(self, event: Input.Changed) -> None:
        if self._asked == "find" and self.has_class("-asking"):
            self._doing = "The search failed"
            self.run_worker(inspect_find.find(self, event.value), group="find", exclusive=True, exit_on_error=False)

    # --- what was found ---------------------------------------------------------------------------------------------

    def action_next_hit(self, forward: bool) -> None:
        """The next that was found, in the tree's order and round its ends."""
        if self.hits or not inspect_live.go_to_fault(self):
            inspect_find.next_hit(self, forward=forward)


def _shown(text: str) -> str:
    return safe_text(text[:1000], limit=120)
