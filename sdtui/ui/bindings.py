"""Which keys a class declares, and how they are written."""

from __future__ import annotations

from typing import Any

from textual.binding import Binding


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
    "pageup": "page up",
    "pagedown": "page down",
}
