"""Theme files: every shipped one is readable, bad ones are said, and a choice is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.color import Color

from sdtui.settings import General, Settings, SettingsError, config_dir, load_settings
from sdtui.ui.themes import load_theme, theme_files, theme_folders
from tests.ui.stage import stage, until

SHIPPED = theme_files(theme_folders()[:1])


def contrast(one: str, other: str) -> float:
    """WCAG 2.1 contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        channels = (value / 255 for value in Color.parse(colour).rgb)
        red, green, blue = (value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_there_are_at_least_six_dark_and_light_ones() -> None:
    themes = [load_theme(path) for path in SHIPPED]
    assert len(themes) >= 6
    assert {theme.dark for theme in themes} == {True, False}
    assert [theme.name for theme in themes] == [path.stem for path in SHIPPED]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_theme_can_be_read_by_eyes(path: Path) -> None:
    theme = load_theme(path)
    text = {"muted": theme.variables["muted"], "foreground": theme.foreground, "success": theme.success}
    text |= {"warning": theme.warning, "error": theme.error}
    for ground in (theme.background, theme.surface):
        for name, colour in text.items():
            assert contrast(colour, ground) >= 4.4, f"{name} on {ground}"
        assert contrast(theme.accent, ground) >= 3
    assert contrast(theme.background, theme.accent) >= 3  # the cursor in lists


GOOD = SHIPPED[0].read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "not valid TOML"),
        (GOOD.replace("primary", "primery"), "unknown key 'primery'; did you mean 'primary'"),
        (GOOD.replace('primary = "', 'primary = "#zz'), "is no colour"),
        (GOOD.replace("\nsuccess", "\n# success"), "success is missing"),
        (GOOD.replace("dark = true", 'dark = "yes"'), "dark must be true or false"),
        (GOOD + "\n[variables]\nmutted = '#ffffff'\n", "unknown variable 'mutted'; did you mean 'muted'"),
        (GOOD + "\n[variables]\nmuted = 3\n", "[variables]"),
    ],
)
def test_a_bad_theme_file_is_named_with_what_would_be_right(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_theme(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def write_user_theme(name: str, text: str) -> Path:
    folder = config_dir() / "themes"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


async def test_one_bad_theme_is_one_toast_and_the_others_load() -> None:
    write_user_theme("bad", "name = [/]")
    write_user_theme("mine", GOOD.replace(f'name = "{SHIPPED[0].stem}"', 'name = "mine"'))
    async with stage(settings=Settings(general=General(theme="mine"))) as running:
        await until(lambda: "bad.toml" in running.toasts(), "toast")
        assert running.app.theme == "mine"
        assert len(running.app.own_themes) == len(SHIPPED) + 1


async def test_an_unknown_theme_falls_back_and_names_the_nearest() -> None:
    async with stage(settings=Settings(general=General(theme="nordd"))) as running:
        assert running.app.theme == "sdtui-dark"
        await until(lambda: "did you mean 'nord'" in running.toasts(), "toast")


async def test_a_theme_is_tried_live_and_remembered_when_taken() -> None:
    async with stage() as running:
        names = running.app.own_themes
        await running.pilot.press("ctrl+t")
        await until(lambda: len(running.app.screen_stack) == 2, "chooser")
        await running.pilot.pause()
        await running.pilot.press("down")
        tried = names[(names.index("sdtui-dark") + 1) % len(names)]
        await until(lambda: running.app.theme == tried, "tried")
        await running.pilot.press("escape")
        await until(lambda: running.app.theme == "sdtui-dark", "left as it was")
        await running.pilot.press("ctrl+t")
        await until(lambda: len(running.app.screen_stack) == 2, "chooser")
        await running.pilot.pause()
        await running.pilot.press("down", "enter")
        await until(lambda: load_settings().general.theme == tried, "remembered")
        assert running.app.theme == tried
