"""What the tests of the Inspect screen share: opening it, typing into it, reading it, and small models."""

from __future__ import annotations

from sdtui.anatomy.structs import Anatomy, Component, Module
from sdtui.ui.screens.inspect import InspectScreen
from tests.ui.stage import Stage, until

NASTY = "a [/] cat [bold red]x[/] \\[y] \u202ertl \x1b[31mred\x1b]0;title\x07 \x9b2J end"
SHOWN = "a [/] cat [bold red]x[/] \\[y] rtl red  end"
SMALL = {"channels": 32, "context": 64, "vae_channels": 32, "words": 100}


def inspect(running: Stage) -> InspectScreen:
    screen = running.app._made["inspect"]
    assert isinstance(screen, InspectScreen)
    return screen


async def open_inspect(running: Stage, source: str = "") -> InspectScreen:
    """Go to the screen, and open another model than the form's where one is named."""
    await running.pilot.press("alt+2")
    await until(lambda: isinstance(running.app.screen, InspectScreen) and inspect(running).outline is not None, "a model")
    screen = inspect(running)
    if source:
        await type_into(running, "o", source)
        await until(lambda: screen.source == source, source)
    await running.pilot.pause()
    return screen


async def type_into(running: Stage, key: str, text: str) -> None:
    """Press a key that asks for something, type it, and enter it."""
    await running.pilot.press(key)
    await until(lambda: running.app.focused is inspect(running).entry, "the line to type in")
    await running.type(text)
    await running.pilot.press("enter")
    await running.pilot.pause()


def names(screen: InspectScreen) -> list[str]:
    """The names of all lines, each behind a dot for each level."""
    outline = screen.outline
    assert outline
    return [f"{'.' * outline.depths[node]}{outline.name(node)}" for node in outline.lines]


def path(screen: InspectScreen) -> str:
    """The selected module's path."""
    assert screen.outline
    assert screen.tree_lines.selected is not None
    return screen.outline.path(screen.tree_lines.selected)


def notice(screen: InspectScreen) -> str:
    return str(screen.say.content)


def module(name: str, parameters: int = 1, **more: object) -> Module:
    return Module(path=name, own_parameters=parameters, total_parameters=parameters, bytes=4 * parameters, **more)  # type: ignore[arg-type]


def anatomy(*modules: Module, **more: object) -> Anatomy:
    whole = Component(name="unet", modules=(module("", 0), *modules))
    return Anatomy(source="x", kind="unet", components=(whole,), **more)  # type: ignore[arg-type]
