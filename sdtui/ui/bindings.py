"""Which keys a class declares, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.binding import Binding

from sdtui.settings import nearest


def own_bindings(kind: type[Any]) -> list[Binding]:
    """The bindings that a class itself declares, without those of its parents; ours all have an id."""
    return [binding for binding in vars(kind).get("BINDINGS", ()) if isinstance(binding, Binding) and binding.id]


def key_text(key: str) -> str:
    """A key as people write it: `F5`, `^X`, `alt+1`, `↑`."""
    *modifiers, name = key.split("+")
    name = _NAMES.get(name, name.upper() if len(name) > 1 and name[0] == "f" and name[1:].isdigit() else name)
    if modifiers == ["ctrl"]:
        return f"^{name.upper()}"
    return "+".join([*modifiers, name])


_NAMES = {
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "escape": "esc",
    "slash": "/",
    "comma": ",",
    "full_stop": ".",
    "asterisk": "*",
    "plus": "+",
    "minus": "-",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "pageup": "page up",
    "pagedown": "page down",
}


def _ids(*kinds: type[Any]) -> set[str]:
    return {binding.id or "" for kind in kinds for binding in own_bindings(kind)}


def unknown_ids(keymap: Mapping[str, str]) -> list[str]:
    """What is wrong with a keymap: one sentence for each id that no binding has, with the nearest that is known."""
    if not keymap:
        return []
    from sdtui.ui.app import SdtuiApp
    from sdtui.ui.screens.chooser import Chooser
    from sdtui.ui.screens.create import CreateScreen
    from sdtui.ui.screens.help import HelpScreen
    from sdtui.ui.screens.queue import QueueScreen
    from sdtui.ui.widgets.choice import Choice
    from sdtui.ui.widgets.field import FieldInput
    from sdtui.ui.widgets.job_table import JobTable
    from sdtui.ui.widgets.prompt import PromptBox
    from sdtui.ui.widgets.step_log import StepLog
    from sdtui.ui.widgets.tab_line import TabLine

    screens = (CreateScreen, QueueScreen, Chooser, HelpScreen)
    kinds = (SdtuiApp, *screens, Choice, FieldInput, JobTable, PromptBox, StepLog, TabLine)
    known = _ids(*kinds)
    if not keymap.keys() <= known:  # what most people never open is not read for them
        from sdtui.ui.screens.explain import ExplainScreen
        from sdtui.ui.screens.inspect import InspectScreen
        from sdtui.ui.screens.picture_chooser import PictureChooser
        from sdtui.ui.screens.timeline import TimelineScreen
        from sdtui.ui.screens.timeline_branch import BranchDialog
        from sdtui.ui.screens.timeline_export import ExportDialog
        from sdtui.ui.widgets.module_tree import ModuleLines
        from sdtui.ui.widgets.schematic import Schematic
        from sdtui.ui.widgets.source_lines import SourceLines
        from sdtui.ui.widgets.words_view import WordsView

        known |= _ids(ExplainScreen, InspectScreen, PictureChooser, TimelineScreen, BranchDialog, ExportDialog)
        known |= _ids(ModuleLines, Schematic, SourceLines, WordsView)
    return [f"[keymap] {name!r} is no key's id; {nearest(name, sorted(known))}" for name in keymap if name not in known]
