"""One parameter in the form: its label, its editor, and what is wrong with its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Paste
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static

from sdtui.params import MAX_SOURCE_CHARACTERS, ParamField, parse_value
from sdtui.schedulers import SCHEDULERS
from sdtui.text import safe_text
from sdtui.ui.widgets.choice import Choice

LONGEST_VALUE: Final = 500
"""Characters a field takes: the longest sensible path of a model or hub id."""
SOURCE: Final = "init_image"
"""The field that takes whatever a terminal writes where a file is dropped on it."""
_JOINER: Final = "\u200d"
"""It makes one emoji of two, and stands in names of files; alone it is invisible, which is why `safe_text` takes it away."""
_YES_NO: Final = (("no", "no"), ("yes", "yes"))


def first_choices(field: ParamField) -> list[tuple[str, str]]:
    """The values a field can take before the model says more; empty where anything may be typed."""
    if field.kind == "bool":
        return list(_YES_NO)
    if field.name == "scheduler":
        return [("default", "model's own"), *((spec.name, spec.label) for spec in SCHEDULERS)]
    return [(choice, choice) for choice in field.spec.choices]


class FieldInput(Input):
    """A value that is typed. In number fields the arrow keys count."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "count(1)", "More", show=False, id="field.more", tooltip="One step more"),
        Binding("down", "count(-1)", "Less", show=False, id="field.less", tooltip="One step less"),
        Binding("shift+up", "count(10)", "Much more", show=False, id="field.much_more", tooltip="Ten steps more"),
        Binding("shift+down", "count(-10)", "Much less", show=False, id="field.much_less", tooltip="Ten steps less"),
    ]

    def __init__(self, field: ParamField, value: str) -> None:
        # One more than is taken, so that too much is said and not cut off unseen.
        longest = MAX_SOURCE_CHARACTERS + 1 if field.name == SOURCE else LONGEST_VALUE
        super().__init__(value, compact=True, max_length=longest, select_on_focus=True, classes="editor")
        self._field = field
        self.start_from: int | None = None
        """Where counting begins in an empty field: the size the model was made for."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only numbers can be counted."""
        return self._field.spec.step is not None if action == "count" else super().check_action(action, parameters)

    def action_count(self, by: int) -> None:
        """Go `by` steps, within the range."""
        spec = self._field.spec
        try:
            value = parse_value(self._field.name, self.value)
        except ValueError:
            return
        step = spec.step or 1
        if value is None:
            value = self.start_from if self.start_from is not None else (spec.minimum or 0) - (step if by > 0 else 0)
        stepped = value + by * step
        low, high = spec.minimum, spec.maximum
        stepped = max(low if low is not None else stepped, min(high if high is not None else stepped, stepped))
        self.value = f"{stepped:g}" if self._field.kind == "float" else str(int(stepped))
        self.cursor_position = len(self.value)

    def _on_paste(self, event: Paste) -> None:
        """One line, nothing a terminal would act on, and not without end. Textual then calls Input's own handler."""
        if self._field.name == SOURCE:
            event.text = pasted_source(event.text)
        else:
            event.text = safe_text(event.text.strip(), limit=LONGEST_VALUE)


def pasted_source(text: str) -> str:
    """The first line of what was pasted or dropped that is not empty, with nothing that a terminal would act on."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")[: MAX_SOURCE_CHARACTERS + 1]
    return _JOINER.join(safe_text(part) for part in line.split(_JOINER))


class FieldRow(Widget):
    """The label is drawn by the row itself; the editor lies beside it, or below it where it needs the width; then what is
    known of the value, or what is wrong with it."""

    error: reactive[str] = reactive("", init=False)
    note: reactive[str] = reactive("", init=False)
    """What follows from the value; not shown beside an error."""
    unused: reactive[bool] = reactive(False, init=False)
    """Whether the value changes nothing now: the row is dimmed."""
    mark: reactive[str] = reactive("", init=False)
    """A word behind the label, such as a lock."""

    class Changed(Message):
        """The text of the field changed."""

        def __init__(self, row: FieldRow) -> None:
            super().__init__()
            self.row = row

    def __init__(self, field: ParamField, text: str) -> None:
        super().__init__(id=f"field-{field.name.replace('_', '-')}", classes="-long" if field.name == SOURCE else None)
        self.field = field
        choices = first_choices(field)
        self.editor: Choice | FieldInput = Choice(field.spec.label, choices, text) if choices else FieldInput(field, text)

    def compose(self) -> ComposeResult:
        """The editor; the error comes when there is one."""
        yield self.editor

    def render(self) -> Content:
        """The label."""
        unit = f" {self.field.spec.unit}" if self.field.spec.unit else ""
        label = Content.assemble((self.field.spec.label, ""), (unit, "$muted"))
        return Content.assemble(label, (f" {self.mark}", "$accent")) if self.mark else label

    @property
    def text(self) -> str:
        """The value as written."""
        return self.editor.value

    @text.setter
    def text(self, text: str) -> None:
        self.editor.value = text

    @property
    def help(self) -> str:
        """What the field does."""
        return self.field.spec.help

    def set_choices(self, choices: Sequence[tuple[str, str]]) -> None:
        """The loaded model knows which values there are."""
        if isinstance(self.editor, Choice):
            self.editor.set_choices(choices)

    def set_placeholder(self, text: str, start_from: int | None = None) -> None:
        """What an empty field means, and where counting begins."""
        if isinstance(self.editor, FieldInput):
            self.editor.placeholder = text
            self.editor.start_from = start_from

    def on_input_changed(self, event: Input.Changed) -> None:
        """A key was typed."""
        event.stop()
        self.post_message(self.Changed(self))

    def on_choice_changed(self, event: Choice.Changed) -> None:
        """Another value was chosen."""
        event.stop()
        self.post_message(self.Changed(self))

    def watch_error(self, error: str) -> None:
        """Show what is wrong under the field."""
        self.set_class(bool(error), "-invalid")
        self._tell("error", error)

    def watch_note(self, note: str) -> None:
        """Show what follows under the field."""
        self._tell("note", note)

    def watch_unused(self, unused: bool) -> None:
        """Dim the row."""
        self.set_class(unused, "-unused")

    def _tell(self, kind: str, text: str) -> None:
        """A line of its own, while there is something to say."""
        lines = self.query_children(f".{kind}").results(Static)
        if not self.is_attached:
            return
        line, content = next(iter(lines), None), Content(safe_text(text))
        if line is None and text:
            self.mount(Static(content, classes=kind, markup=False))
        elif line is not None and text:
            line.update(content)
        elif line is not None:
            line.remove()
        if text and self.editor.has_focus:
            self.call_after_refresh(self.scroll_visible, animate=False)
