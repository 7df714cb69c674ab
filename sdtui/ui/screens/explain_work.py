"""What the Explain screen asks its process: to begin, to run lines, to save; one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from sdtui.params import BY_FIELD, Problem
from sdtui.protocol import Advance, AdvanceTo, SaveExplained, StartExplaining
from sdtui.settings import output_dir
from sdtui.text import safe_text
from sdtui.ui.explain_run import Run
from sdtui.ui.widgets.pages.beside import run_beside

if TYPE_CHECKING:
    from sdtui.server.explainer import ExplainerError
    from sdtui.ui.screens.explain import ExplainScreen

Busy = Literal["start", "line", "stage", "end", "save"]
GROUP: Final = "explain"
_GONE: Final = "The process has ended, and its run with it."
_LONGEST: Final = 800
"""Characters of what went wrong: a sentence, and the end of a log."""


def begin(screen: ExplainScreen) -> None:
    """Load the model and go to the first line; whatever runs is dropped."""
    _work(screen, "start", partial(_begin, screen))


def run_on(screen: ExplainScreen, to: AdvanceTo) -> None:
    """Run lines, unless something is at work."""
    if screen.can_run and _is_there(screen):
        _work(screen, to, partial(_run_on, screen, to))


def save(screen: ExplainScreen) -> None:
    """Save the finished picture where pictures go."""
    if _is_there(screen):
        _work(screen, "save", partial(_save, screen))


def _is_there(screen: ExplainScreen) -> bool:
    """Whether the process still has the run; asked, it would be started anew only to say that it has none."""
    if screen.explainer.pid is None:
        screen.lost = True
        screen.refresh_bindings()
        screen.show_fault(_GONE)
    return not screen.lost


def _work(screen: ExplainScreen, busy: Busy, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    screen.stopping = False
    screen.show_busy(busy)
    run_beside(screen, work, GROUP, exclusive=True)


async def _begin(screen: ExplainScreen) -> None:
    from sdtui.server.explainer import ExplainerError

    params = screen.run.started.params if screen.run is not None else screen.params  # the same seed again
    screen.problem = screen.guidance = screen.download = None
    try:
        started = await screen.explainer.request(StartExplaining(request=0, params=params))
    except ExplainerError as error:
        _fail(screen, error)
        return
    screen.lost = False
    screen.show_run(Run(started))
    screen.show_busy(None)


async def _run_on(screen: ExplainScreen, to: AdvanceTo) -> None:
    from sdtui.server.explainer import ExplainerError

    run = screen.run
    while run is not None:
        guidance = screen.guidance
        try:
            ran = await screen.explainer.request(Advance(request=0, to=to, guidance_scale=guidance))
        except ExplainerError as error:
            _fail(screen, error)
            return
        if guidance is not None:
            run.guidance, screen.guidance = guidance, None
        run.take(ran)
        if ran.stopped or ran.finished or screen.stopping:
            break
        screen.lines_ran()
    screen.show_busy(None)
    screen.lines_ran()


async def _save(screen: ExplainScreen) -> None:
    from sdtui.server.explainer import ExplainerError

    seed = screen.run.started.params.seed if screen.run is not None else None
    path = output_dir(screen.settings) / f"explained-{seed or 0}.png"
    try:
        saved = await screen.explainer.request(SaveExplained(request=0, path=str(path)))
    except ExplainerError as error:
        screen.lost = screen.explainer.pid is None
        screen.show_busy(None)
        screen.show_notice(f"Not saved: {_words(error)}", "error")
    else:
        screen.show_busy(None)
        screen.show_notice(f"Saved {safe_text(saved.path, limit=400)}", "success")


def _fail(screen: ExplainScreen, error: ExplainerError) -> None:
    """A refused guidance scale leaves the run as it is; all else ends it."""
    if screen.guidance is not None and error.field == "guidance_scale":
        screen.guidance = None
        screen.show_busy(None)
        screen.lines_ran()
        screen.show_notice(_words(error), "error")
        return
    screen.lost = True
    if error.field in BY_FIELD and screen.run is None:
        screen.problem = Problem(error.field, _words(error))
    screen.show_busy(None)
    screen.show_fault(_words(error))


def _words(error: ExplainerError) -> str:
    text = safe_text(str(error), limit=_LONGEST)
    return text if text.endswith((".", "!", "?")) else f"{text}."
