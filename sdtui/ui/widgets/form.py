"""The form: every parameter but the prompts, derived from `params.FIELDS`, checked as one types."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from textual.containers import VerticalScroll
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from sdtui.params import (
    FIELDS,
    RANDOM_SEEDS,
    ParamField,
    Problem,
    check_size,
    check_strength,
    check_value,
    parse_value,
    steps_that_run,
)
from sdtui.protocol import ModelInfo
from sdtui.schedulers import MODEL_DEFAULT, SIGMAS
from sdtui.text import count_noun

if TYPE_CHECKING:
    from sdtui.ui.widgets.field import FieldRow

GROUPS: Final = {"main": "", "size": "", "image": "Image to image", "advanced": "Batches and text", "model": "Model"}
"""The groups in the order they are shown, with a heading where one helps."""
KEPT: Final = "fixed"
"""Behind the label of a seed that stays."""


def fields_of(group: str) -> list[ParamField]:
    """The fields of a group, in the order of the parameters."""
    return [field for field in FIELDS if field.spec.group == group]


def value_text(value: Any) -> str:
    """A value as the form writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


class Form(VerticalScroll, can_focus=False):
    """Holds the text of every field, and what is wrong with it."""

    class Changed(Message):
        """A field changed; `problem` is what is wrong with it now."""

        def __init__(self, name: str, problem: str | None) -> None:
            super().__init__()
            self.name = name
            self.problem = problem

    def __init__(self, model: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "Settings"
        self._defaults = {field.name: value_text(field.default) for field in FIELDS if field.spec.group != "prompt"}
        self._defaults["model"] = model
        self._rows: dict[str, FieldRow] = {}
        self._model: ModelInfo | None = None
        self._last_seed: int | None = None
        self._initial_size: tuple[int, int] | None = None

    async def mount_rows(self) -> None:
        """Make the fields. Called after the first frame: they are two thirds of the screen's widgets."""
        from sdtui.ui.widgets.field import FieldRow

        widgets: list[Widget] = []
        for group, heading in GROUPS.items():
            rows = [FieldRow(field, self._defaults[field.name]) for field in fields_of(group)]
            self._rows |= {row.field.name: row for row in rows}
            widgets += [Static(heading, classes="group", markup=False), *rows] if heading else rows
        await self.mount(*widgets)
        self._describe()
        self._tell_strength()

    def row(self, name: str) -> FieldRow | None:
        """The row of a parameter, None before it is mounted."""
        return self._rows.get(name)

    @property
    def focused_row(self) -> FieldRow | None:
        """The row whose editor has the focus."""
        return next((row for row in self._rows.values() if row.editor.has_focus), None)

    def text(self, name: str) -> str:
        """What is written in a field."""
        row = self._rows.get(name)
        return row.text if row is not None else self._defaults[name]

    def values(self) -> tuple[dict[str, Any], list[Problem]]:
        """The value of every field that has a good one, and every problem, in the order of the fields."""
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for name in self._defaults:
            try:
                values[name] = self._value(name)
            except ValueError as error:
                problems.append(Problem(name, str(error)))
        return values, problems

    def _value(self, name: str) -> Any:
        """The value of one field. Raises `ValueError` with a sentence for the user."""
        value = parse_value(name, self.text(name))
        problem = check_value(name, value) or self._check_with_model(name, value) or self._check_with_steps(name, value)
        if problem:
            raise ValueError(problem)
        return value

    def _check_with_model(self, name: str, value: Any) -> str | None:
        """What the loaded model cannot take; another model may, so only for the model that is named in the form."""
        info = self._model
        if info is None or self.text("model").strip() != info.model:
            return None
        if name in ("width", "height"):
            return check_size(name, value, info.size_multiple_px)
        if name == "scheduler" and value != MODEL_DEFAULT:
            choice = next((choice for choice in info.schedulers if choice.name == value), None)
            if choice is None:
                return f"{info.model} cannot be used with scheduler {value!r}."
            return f"{choice.label} needs the package {choice.missing}: pip install {choice.missing}." if choice.missing else None
        return None

    @property
    def has_initial_image(self) -> bool:
        """Whether the field for it has anything in it."""
        return bool(self.text("init_image").strip())

    def _steps(self) -> int | None:
        """The steps, where they are right."""
        try:
            return int(self._value("num_inference_steps"))
        except ValueError:
            return None

    def _check_with_steps(self, name: str, value: Any) -> str | None:
        """A strength that leaves no step to run."""
        steps = self._steps() if name == "strength" and self.has_initial_image else None
        return None if steps is None else check_strength(steps, value)

    def _tell_strength(self) -> None:
        """How many steps run, in words; without an initial image its fields are dimmed."""
        row = self._rows["strength"]
        self._check("strength")
        steps = self._steps() if self.has_initial_image and not row.error else None
        run = 0 if steps is None else steps_that_run(steps, self._value("strength"))
        row.note = "" if steps is None else f"{run} of {count_noun(steps, 'step')} will run"
        for name in ("strength", "resize"):
            self._rows[name].unused = not self.has_initial_image

    def on_field_row_changed(self, event: FieldRow.Changed) -> None:
        """Check what was typed."""
        event.stop()
        name = event.row.field.name
        if name == "scheduler":
            self._offer_sigmas()
        if name == "seed":
            event.row.mark = KEPT if event.row.text.strip() else ""
        for checked in ("width", "height", "scheduler") if name == "model" else ():
            self._check(checked)
        if name in ("num_inference_steps", "strength", "init_image"):
            self._tell_strength()
        self.post_message(self.Changed(name, self._check(name)))

    def _check(self, name: str) -> str | None:
        row = self._rows.get(name)
        if row is None:
            return None
        row.error = self._problem_with(name)
        return row.error or None

    def _problem_with(self, name: str) -> str:
        try:
            self._value(name)
        except ValueError as error:
            return str(error)
        return ""

    def set_model(self, info: ModelInfo) -> None:
        """A model is loaded: what it can take is known now."""
        self._model = info
        self._describe()
        for name in ("width", "height", "scheduler"):
            self._check(name)

    def set_initial(self, note: str = "", error: str = "", size: tuple[int, int] | None = None) -> None:
        """What was found of the initial image, and the size in pixels that the picture gets from it."""
        row = self._rows.get("init_image")
        if row is not None:
            row.note, row.error = note, self._problem_with("init_image") or error
            self._initial_size = size
            self._describe()

    def set_last_seed(self, seed: int) -> None:
        """The seed that a job uses."""
        self._last_seed = seed
        self._describe()

    def _describe(self) -> None:
        info = self._model
        placeholders: dict[str, tuple[str, int | None]] = {
            "seed": ("random", self._last_seed),
            "init_image": ("none: a path or a URL", None),
        }
        if info is not None:
            wide, high = self._initial_size or (info.default_width_px, info.default_height_px)
            placeholders["width"] = (f"{wide}", info.default_width_px)
            placeholders["height"] = (f"{high}", info.default_height_px)
            self._offer_schedulers(info)
        for name, row in self._rows.items():
            if row.field.optional:
                row.set_placeholder(*placeholders.get(name, ("model's own" if name in ("width", "height") else "none", None)))

    def _offer_schedulers(self, info: ModelInfo) -> None:
        row = self._rows.get("scheduler")
        if row is not None:
            own = next(
                (choice.label for choice in info.schedulers if choice.name == info.default_scheduler), info.default_scheduler
            )
            row.set_choices(
                [
                    (MODEL_DEFAULT, f"{own} (default)"),
                    *((choice.name, choice.label) for choice in info.schedulers if choice.missing is None),
                ]
            )
            self._offer_sigmas()

    def _offer_sigmas(self) -> None:
        """Only the spacings that the chosen scheduler has here."""
        row = self._rows.get("sigmas")
        if row is None or self._model is None:
            return
        name = self.text("scheduler")
        name = self._model.default_scheduler if name == MODEL_DEFAULT else name
        offered = next((choice.sigmas for choice in self._model.schedulers if choice.name == name), SIGMAS)
        row.set_choices([(sigmas, sigmas) for sigmas in offered])
        if row.text not in offered:
            row.text = "default"

    def show_problem(self, name: str, message: str) -> None:
        """Show a problem that was found elsewhere, and go to the field."""
        if (row := self._rows.get(name)) is not None:
            row.error = message
        self.go_to(name)

    def go_to(self, name: str) -> None:
        """Have a field focused and in view."""
        row = self._rows.get(name)
        if row is not None:
            row.editor.focus()
            self.call_after_refresh(row.scroll_visible, animate=False)  # the form may have been hidden until now

    def texts(self) -> dict[str, str]:
        """What is written in every field."""
        return {name: self.text(name) for name in self._defaults}

    def fill(self, texts: Mapping[str, str]) -> None:
        """Write into the fields that are named."""
        for name, row in self._rows.items():
            if name in texts:
                row.text = texts[name]

    def reset_field(self, name: str) -> None:
        """Back to the default."""
        if (row := self._rows.get(name)) is not None:
            row.text = self._defaults[name]

    def reset(self) -> None:
        """Every field back to its default."""
        for name in self._rows:
            self.reset_field(name)

    def randomise_seed(self) -> None:
        """Draw a seed and keep it."""
        self._rows["seed"].text = str(random.randrange(RANDOM_SEEDS))

    def toggle_seed_lock(self) -> bool:
        """Keep the last seed, or let each job draw its own; whether it is kept now."""
        row = self._rows["seed"]
        if row.text.strip():
            row.text = ""
            return False
        row.text = str(self._last_seed if self._last_seed is not None else random.randrange(RANDOM_SEEDS))
        return True
