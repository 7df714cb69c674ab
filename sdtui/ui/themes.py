"""Themes are TOML files; `themes/README.md` documents the format.

They are looked for in the installed package, else in the checkout, and in the user's `themes` folder, where a theme of the
same name wins. One bad file is one message; the others still load.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from textual.color import Color, ColorParseError
from textual.theme import Theme

from sdtui.settings import SettingsError, config_dir, nearest

DEFAULT_THEME: Final = "sdtui-dark"
_COLOURS: Final = (
    "primary",
    "secondary",
    "accent",
    "background",
    "surface",
    "panel",
    "foreground",
    "success",
    "warning",
    "error",
)
_KEYS: Final = ("name", "dark", *_COLOURS, "variables")

VARIABLE_DEFAULTS: Final = {"muted": "#9aa0a8", "rule": "#4a4f57", "mat": "#1b1e24"}
"""For a theme that is not one of ours, such as the one Textual starts with."""


def theme_folders() -> list[Path]:
    """Where themes lie, the shipped ones first."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "themes"
    return [shipped if shipped.is_dir() else package.parent / "themes", config_dir() / "themes"]


def theme_files(folders: Iterable[Path] | None = None) -> list[Path]:
    """Every theme file, in the order they are to be registered."""
    return [path for folder in folders or theme_folders() for path in sorted(folder.glob("*.toml"))]


def load_theme(path: Path) -> Theme:
    """The theme in a file. Raises `SettingsError`, which names the file, the key, and what would be right."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    for key in raw:
        if key not in _KEYS:
            raise SettingsError(f"{path}: unknown key {key!r}; {nearest(key, _KEYS)}")
    missing = [key for key in ("name", "dark", *_COLOURS) if key not in raw]
    if missing:
        raise SettingsError(f"{path}: {missing[0]} is missing; a theme states {', '.join(_KEYS[:-1])}.")
    if not isinstance(raw["name"], str) or not raw["name"].strip():
        raise SettingsError(f"{path}: name must be text.")
    if not isinstance(raw["dark"], bool):
        raise SettingsError(f"{path}: dark must be true or false.")
    colours = {key: _check_colour(path, key, raw[key]) for key in _COLOURS}
    variables = derive_variables(colours, dark=raw["dark"]) | _check_variables(path, raw.get("variables", {}))
    theme = Theme(name=raw["name"], dark=raw["dark"], primary=colours["primary"], variables=variables)
    for key, colour in colours.items():
        setattr(theme, key, colour)
    return theme


def derive_variables(colours: Mapping[str, str], *, dark: bool) -> dict[str, str]:
    """Our own variables, and Textual's that must follow the theme, where the file does not state them."""
    background, foreground = Color.parse(colours["background"]), Color.parse(colours["foreground"])
    # On a light ground the eye needs more of the foreground for the same contrast.
    muted = background.blend(foreground, 0.68 if dark else 0.86).hex
    rule = background.blend(foreground, 0.26 if dark else 0.32).hex
    return {
        "muted": muted,
        "rule": rule,
        "mat": colours["surface"],
        "border": colours["accent"],
        "border-blurred": rule,
        "footer-background": colours["background"],
        "footer-foreground": muted,
        "footer-description-foreground": muted,
        "footer-key-foreground": colours["accent"],
        "input-selection-background": f"{colours['accent']} 35%",
        "block-cursor-background": colours["accent"],
        "block-cursor-foreground": colours["background"],
        "block-cursor-text-style": "none",
        "scrollbar": rule,
        "scrollbar-hover": muted,
        "scrollbar-active": colours["accent"],
        "scrollbar-background": colours["background"],
        "scrollbar-background-hover": colours["background"],
        "scrollbar-background-active": colours["background"],
        "scrollbar-corner-color": colours["background"],
    }


def _check_colour(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f'{path}: {key} must be a colour such as "#88c0d0".')
    try:
        Color.parse(value.rpartition(" ")[0] if value.endswith("%") else value)
    except ColorParseError as error:
        raise SettingsError(f'{path}: {key} = "{value}" is no colour; write it as "#88c0d0".') from error
    return value


def _check_variables(path: Path, variables: Any) -> dict[str, str]:
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise SettingsError(f'{path}: [variables] takes lines such as border-blurred = "#3b4252".')
    known = _known_variables()
    for name, value in variables.items():
        if name not in known:
            raise SettingsError(f"{path}: unknown variable {name!r}; {nearest(name, known)}")
        if not name.endswith("-style"):
            _check_colour(path, f"variables.{name}", value)
    return dict(variables)


def _known_variables() -> set[str]:
    from textual.design import ColorSystem

    return {*VARIABLE_DEFAULTS, *ColorSystem("#808080").generate()}
