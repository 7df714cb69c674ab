"""What a running or ended inspected job tells of the modules, in the tree, on the page and in the schematic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from textual.timer import Timer

from sdtui.protocol import Message, ModulesRan, NotANumber
from sdtui.text import safe_text
from sdtui.ui.live_figures import LiveFigures, Told, fault_word
from sdtui.ui.module_runs import when_text
from sdtui.ui.outline import Key
from sdtui.ui.replay import TICK_S, Replays

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect import InspectScreen

_NOTHING: Final = "No job was inspected yet: F7 in Create, or sdtui generate --inspect, looks at the next ones."
_PAGE_S: Final = 0.5
"""Figures on the page that changed more often could not be read."""


class Live:
    """Whether a screen shows what modules did, and what of it."""

    def __init__(self) -> None:
        self.on = False
        self.figures: LiveFigures | None = None
        self.replays = Replays()
        self.wanted: Key | None = None
        """The module to go to when a model is shown."""
        self.refused: str | None = None
        """The job during which the user switched it off."""
        self.timer: Timer | None = None
        self.page_at_s = 0.0
        self.page_stamp = 0


def opened(screen: InspectScreen) -> None:
    """Another tree is shown; a module may be waited for in it."""
    live, outline = screen.live, screen.outline
    if outline is None:
        return
    live.figures = LiveFigures(outline, screen.feed.runs, live.replays)
    if live.on and not screen.feed.runs.is_of(screen.source):
        live.on = False
        live.replays.clear()
    _show(screen)
    if live.wanted is not None:
        go_to_key(screen, live.wanted)


def resumed(screen: InspectScreen) -> None:
    """The screen is in view again."""
    if screen.live.on and screen.live.timer is not None:
        screen.live.timer.resume()


def toggle(screen: InspectScreen) -> None:
    """Show or hide what the modules did."""
    live, runs = screen.live, screen.feed.runs
    if live.on:
        live.refused = runs.job
        switch(screen, on=False)
        screen.show_notice("")
    elif runs.job is None:
        screen.show_notice(_NOTHING)
    else:
        switch(screen, on=True)
        _say(screen)


def switch(screen: InspectScreen, *, on: bool) -> None:
    """Show what the modules did, or what they are made of."""
    screen.live.on = on
    if not on:
        screen.live.replays.clear()
    _show(screen)
    screen.show_page()
    screen.refresh_bindings()


def _show(screen: InspectScreen) -> None:
    live = screen.live
    screen.tree_lines.show_live(live.figures if live.on else None)
    screen.schematic.take(live.figures if live.on or screen.feed.runs.is_of(screen.source) else None, screen.dry_run)


def _say(screen: InspectScreen) -> None:
    """What is shown, or what is wrong in it."""
    if screen.live.figures is not None and screen.live.figures.fault is not None:
        _say_fault(screen)
        return
    runs = screen.feed.runs
    of = f" of {safe_text(runs.model[:1000], limit=80)}" if runs.model and not runs.is_of(screen.source) else ""
    screen.show_notice(f"What modules did in the last inspected job{of}; L shows again what they are made of.")


def take_event(screen: InspectScreen, event: Message) -> None:
    """Something happened; `feed.runs` knows it already."""
    live, runs = screen.live, screen.feed.runs
    if not isinstance(event, ModulesRan | NotANumber) or event.job != runs.job or screen.outline is None:
        return
    if not live.on and live.refused != runs.job and runs.is_of(screen.source):
        switch(screen, on=True)
        _say(screen)
    if not live.on:
        return
    if isinstance(event, NotANumber):
        _say_fault(screen)
        screen.refresh_bindings()
        return
    forward = runs.forwards.get(event.network)
    if forward is not None:
        live.replays.take(event.network, forward)
    if live.timer is None:
        live.timer = screen.set_interval(TICK_S, lambda: tick(screen))
    live.timer.resume()


def tick(screen: InspectScreen) -> None:
    """Time has passed: what was at work fades, newer figures are shown."""
    live, now_s = screen.live, time.monotonic()
    if not screen.is_current or not live.on or live.figures is None:
        live.replays.clear()
        if live.timer is not None:
            live.timer.pause()
        return
    live.replays.advance(now_s)
    live.figures.now_s = now_s
    waits = _show_page(screen, now_s)
    if screen.view == "tree":
        waits |= screen.tree_lines.live_changed()
    elif screen.view == "schematic":
        waits |= screen.schematic.live_changed(now_s)
    if live.replays.idle and not waits and live.timer is not None:
        live.timer.pause()


def _show_page(screen: InspectScreen, now_s: float) -> bool:
    """Show newer figures of the selected module, if it is time for that; says whether there are some that wait."""
    live, node = screen.live, screen.tree_lines.selected
    if live.figures is None or node is None or screen.view == "words":
        return False
    stamp = live.figures.stamp(node)
    if stamp == live.page_stamp:
        return False
    if now_s - live.page_at_s < _PAGE_S:
        return True
    live.page_at_s, live.page_stamp = now_s, stamp
    screen.show_page()
    return False


def told(screen: InspectScreen, node: int) -> Told | None:
    """What a module did, for its page."""
    figures = screen.live.figures
    return figures.told(node) if figures is not None and screen.live.on else None


# --- the first that gave no number --------------------------------------------------------------------------------------


def has_fault(screen: InspectScreen) -> bool:
    """Whether there is a module to go to."""
    figures = screen.live.figures
    return screen.live.on and figures is not None and figures.fault is not None and figures.fault[1] is not None


def go_to_fault(screen: InspectScreen) -> bool:
    """Go to the module that first gave a NaN or an infinity; says whether there is one."""
    figures = screen.live.figures
    if not screen.live.on or figures is None or figures.fault is None or figures.fault[1] is None:
        return False
    screen.tree_lines.go_to(figures.fault[1])
    _say_fault(screen)
    return True


def _say_fault(screen: InspectScreen) -> None:
    figures = screen.live.figures
    if figures is None or figures.fault is None:
        return
    fault, node = figures.fault
    when = when_text(fault.batch_index, fault.step_index) or "before or after the steps"
    path = safe_text(".".join(part for part in (fault.network, fault.module) if part)[:2000], limit=200)
    word = fault_word(fault.fault)
    words = f"{path} was given {word} in {when}" if fault.given else f"The first {word} came from {path} in {when}"
    screen.show_notice(f"{words}.{' n goes there.' if node is not None else ''}", "error")


# --- from the log and to it -----------------------------------------------------------------------------------------------


def jump(screen: InspectScreen, key: Key, model: str) -> None:
    """Select the module that a line of the log is about; `model` is what the log's job names, empty where that is not known."""
    if model and not screen.feed.runs.same(model, screen.opening):
        screen.open_model(model)
    screen.live.wanted = key
    if screen.outline is not None and screen.source == screen.opening:
        go_to_key(screen, key)


def go_to_key(screen: InspectScreen, key: Key) -> None:
    """Select a network's module, in the tree."""
    screen.live.wanted = None
    node = screen.live.figures.node(key) if screen.live.figures is not None else None
    if node is None:
        screen.show_notice(f"This model has no {safe_text(key[0], limit=60)}.", "warning")
        return
    if screen.outline is not None and screen.outline.only_class:
        screen.keep_class("")
    screen.show_view("tree")
    screen.tree_lines.go_to(node)
    if not screen.live.on and screen.feed.runs.is_of(screen.source) and screen.live.refused != screen.feed.runs.job:
        switch(screen, on=True)
        _say(screen)


def selected_key(screen: InspectScreen) -> Key | None:
    """The selected module as the log calls it; None for the model itself."""
    node, figures = screen.tree_lines.selected, screen.live.figures
    key = figures.key(node) if figures is not None and node is not None else ("", "")
    return key if key[0] else None
