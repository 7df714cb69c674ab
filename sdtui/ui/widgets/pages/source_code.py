"""The part of the page with the code of a module's forward, as it stands in the installed libraries."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.getters import query_one

from sdtui.protocol import SourceRead
from sdtui.text import safe_text
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.widgets.pages.answers import ASK_AFTER_S, Answers
from sdtui.ui.widgets.pages.beside import run_beside
from sdtui.ui.widgets.pages.part import ASKING, Part
from sdtui.ui.widgets.pages.span_view import SpanView

if TYPE_CHECKING:
    from sdtui.server.inspector import Inspector

_LONGEST: Final = 200_000
"""Characters of code; the longest forward of diffusers has some 30,000."""
_HANGING: Final = 4
"""Cells by which the rest of a long line stands further in than its beginning."""
_LEAST: Final = 16
"""Cells that are left of a line however deep the code stands in."""
_STARTING: Final = "Reading the code in a process beside, which takes some seconds to start …"


class CodeView(SpanView):
    """Shows a head of spans, and code in colours below it."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._source: SourceRead | None = None
        self._made: tuple[SourceRead, int, tuple[object, ...]] | None = None

    @property
    def text(self) -> str:
        """All of it, not wrapped."""
        return super().text if self._source is None else _head(self._source) + self._source.source

    def set_source(self, source: SourceRead) -> None:
        """Show a module's code."""
        self._source = source
        if self.scroll_offset.y:
            self.scroll_to(y=0, animate=False, immediate=True, force=True)
        self._wrap()

    def set_words(self, words: str, tone: str) -> None:
        """Show a sentence instead."""
        self._source = self._made = None
        self.set_spans([(f"{words}\n", tone)], from_top=True)

    @property
    def is_made(self) -> bool:
        """Whether the lines are those of the code, the width and the theme."""
        return self._made == self._wish()

    def _wish(self) -> tuple[SourceRead, int, tuple[object, ...]] | None:
        if self._source is None or not self.size.width:
            return None
        return self._source, self.room, tuple(sorted((tone, str(style)) for tone, style in self.tones().items()))

    def _wrap(self) -> None:
        if self._source is None:
            super()._wrap()
        elif self._wish() not in (None, self._made):
            run_beside(self, self._colour, "colour", exclusive=True)

    async def _colour(self) -> None:
        wish = self._wish()
        if wish is None:
            return
        lines = await asyncio.to_thread(code_lines, wish[0], wish[1], self.tones(), self.app.console)
        if wish == self._wish():
            self._made = wish
            self.set_lines(lines)


class CodePart(Part):
    """Asks when the selection has rested; what it was answered before is there at once."""

    view = query_one("#code-text", CodeView)

    def __init__(self, *, id: str, inspector: Callable[[], Inspector]) -> None:
        super().__init__(id=id, inspector=inspector)
        self._answers: Answers | None = None
        self.found: SourceRead | None = None

    def compose(self) -> ComposeResult:
        """The code."""
        yield CodeView(id="code-text")

    def show(self, outline: Outline) -> None:
        """Another module."""
        if self._answers is None or self._answers.outline is not outline:
            self._answers = Answers(outline, self._inspector)
        self.workers.cancel_group(self, ASKING)
        if self.node == MODEL:
            self.say("The model is no module; choose one, or a component.")
            return
        name, path = outline.key(self.node)
        known = self._answers.known_source(name, path)
        if known is not None:
            self._show(known)
            return
        self.say(_STARTING if self._answers.is_starting else "Reading the code …")
        self.ask(partial(self._ask, self._answers, outline, self.node))

    @property
    def waits(self) -> bool:
        """Whether there is no code yet."""
        return self.found is None

    def again(self) -> None:
        """Ask once more where there was no answer."""
        if self.found is None and self.outline is not None and not self._stale:
            self.show(self.outline)

    async def _ask(self, answers: Answers, outline: Outline, node: int) -> None:
        from sdtui.server.inspector import InspectorError

        await asyncio.sleep(ASK_AFTER_S)
        try:
            found = await answers.source(*outline.key(node))
        except InspectorError as error:
            module = outline.modules[node]
            guessed = "Its class is guessed from names and shapes. " if module.guessed and module.class_name else ""
            self.say(f"There is no code to show. {guessed}{safe_text(str(error), limit=600)}", "text")
        else:
            self._show(found)

    def _show(self, found: SourceRead) -> None:
        self.found = found
        self.view.set_source(found)

    def say(self, words: str, tone: str = "muted") -> None:
        """Show a sentence, and no code."""
        self.found = None
        self.view.set_words(words, tone)


def _head(source: SourceRead) -> str:
    return f"{safe_text(source.class_name, limit=120)}\n{safe_text(source.file, limit=300)}:{source.line}\n"


def code_lines(source: SourceRead, room: int, tones: Mapping[str, Style], console: Console) -> list[Text]:
    """Class, place, signature and code in lines of at most so many cells; takes tenths of a second for long code."""
    head = Text(_head(source), style=tones["muted"], end="")
    head.stylize(tones["text"], 0, head.plain.index("\n"))
    head.rstrip()
    signature = coloured(safe_text(source.signature, limit=4_000), tones)
    code = coloured(safe_text(textwrap.dedent(source.source[:_LONGEST]), multiline=True), tones)
    lines = [*head.wrap(console, room, overflow="fold"), *broken(signature, room, console), Text("")]
    for line in code.split("\n"):
        lines += broken(line, room, console)
    return lines


def broken(line: Text, room: int, console: Console) -> Sequence[Text]:
    """A line of code in as many as it needs, the rest further in; `line` loses its trailing blanks."""
    line.rstrip()
    if line.cell_len <= room:
        return [line]
    indent = len(line.plain) - len(line.plain.lstrip())
    inside = min(indent, max(0, room - _LEAST - _HANGING))
    first, *rest = line[indent:].wrap(console, max(1, room - inside - _HANGING), overflow="fold")
    return [Text(" " * inside) + first, *(Text(" " * (inside + _HANGING)) + piece for piece in rest)]


def coloured(code: str, tones: Mapping[str, Style]) -> Text:
    """Python in the colours of the theme; the background stays the page's."""
    from rich.syntax import Syntax, SyntaxTheme

    by_kind = {
        "Comment": tones["muted"],
        "Literal.String": tones["success"],
        "Literal.Number": tones["warning"],
        "Keyword": tones["accent"],
        "Operator.Word": tones["accent"],
        "Name.Builtin": tones["secondary"],
        "Name.Function": tones["secondary"],
        "Name.Decorator": tones["secondary"],
    }

    class Theme(SyntaxTheme):
        def get_style_for_token(self, token_type: tuple[str, ...]) -> Style:
            for length in range(len(token_type), 0, -1):
                found = by_kind.get(".".join(token_type[:length]))
                if found is not None:
                    return found
            return tones["text"]

        def get_background_style(self) -> Style:
            return Style.null()

    return Syntax(code, "python", theme=Theme(), tab_size=4).highlight(code)
