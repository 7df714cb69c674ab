"""What was learnt of a terminal: a value that can be printed, kept as JSON and judged again later."""

from __future__ import annotations

from typing import Literal

import msgspec

from sdtui.terminal.answers import Answers
from sdtui.terminal.capabilities import Capabilities

Passthrough = Literal["", "off", "on", "all"]


class Tmux(msgspec.Struct, frozen=True, kw_only=True):
    """What tmux says of itself, of the terminal around it, and of our pane (`man tmux`, FORMATS)."""

    version: str = ""
    outer_term: str = ""
    """The TERM of the terminal around tmux."""
    outer_name: str = ""
    """Its answer to XTVERSION, as in `kitty(0.41.1)`; tmux asks when it is attached."""
    features: tuple[str, ...] = ()
    """What tmux believes that terminal can do: `RGB`, `sixel`, `sync`, ..."""
    passthrough: Passthrough = ""
    """Empty for tmux before 3.3, which always passes on."""
    pane_active: bool = False
    clients: int = 0
    """How many terminals show this session."""

    @property
    def passes_on(self) -> bool:
        """Whether exactly one terminal gets, and answers, what we send through tmux."""
        return self.pane_active and self.clients == 1 and self.passthrough != "off"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the verdict needs. `Answers` can be had from `raw` again; both are kept, so that a record is readable."""

    capabilities: Capabilities
    variables: dict[str, str] = {}
    """Environment variables by which terminals make themselves known."""
    asked: bool = False
    why_not: str = ""
    """A sentence that says why the terminal was not asked, or not everything."""
    tmux: Tmux | None = None
    answers: Answers = Answers()
    raw: bytes = b""
    """The answers as they came, without the keys between them."""
    complete: bool = False
    """Whether the last answer came in time: what is missing was then refused, not late."""
    elapsed_s: float = 0.0
    """From the asking to the last answer, or to the end of the patience."""

    def to_json(self) -> bytes:
        """Indented JSON; the raw bytes in base64."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2)

    @classmethod
    def from_json(cls, data: bytes | str) -> Report:
        """The inverse of `to_json`. Raises `msgspec.DecodeError`, or `msgspec.ValidationError` for another kind of JSON."""
        return msgspec.json.decode(data, type=cls)
