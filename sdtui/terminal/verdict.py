"""From a report to what can be shown, and why. Pure: the same report always gives the same verdict."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final, Literal

import msgspec

from sdtui.terminal.advice import advice
from sdtui.terminal.answers import Rgb
from sdtui.terminal.capabilities import Capabilities, Colours
from sdtui.terminal.identity import Identity, draws_itself, identify
from sdtui.terminal.picture import CellSize
from sdtui.terminal.report import Report

SinkName = Literal["kitty", "iterm2", "sixel", "sextant", "quadrant", "half"]
Placement = Literal["classic", "placeholder"]
Frames = Literal["edit", "swap"]
Layer = Literal["above", "below"]

_ORDER: Final[tuple[SinkName, ...]] = ("kitty", "iterm2", "sixel", "sextant", "quadrant", "half")
_LABELS: Final[dict[str, str]] = {"kitty": "Kitty's", "iterm2": "iTerm2's", "sixel": "Sixel"}
_ITERM2_BETTER: Final = ("konsole", "iterm2")
"""They answer kitty's question too, but know only part of the protocol."""
_ITERM2_SINCE: Final[dict[str, tuple[int, ...]]] = {
    "iterm2": (),
    "wezterm": (),
    "mlterm": (),
    "rio": (),
    "konsole": (22, 4),
    "mintty": (2, 9),
}
_SIXEL: Final = 4
_SCREEN: Final = "GNU screen passes no pictures on."
_TRUECOLOR: Final = (
    "kitty",
    "foot",
    "wezterm",
    "ghostty",
    "konsole",
    "iterm2",
    "mintty",
    "contour",
    "vte",
    "mlterm",
    "alacritty",
    "rio",
    "xterm.js",
)
_CELL_RANGE: Final = (1, 400)
"""Pixels; what is outside is nonsense."""


class Way(msgspec.Struct, frozen=True):
    """One way to show a picture: whether this terminal can, and a sentence that says how that is known."""

    name: SinkName
    usable: bool
    why: str
    sure: bool = True
    """Whether the terminal said so. Where it did not answer, or only its font decides, the user may know better."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a terminal can show, and what to set to get more."""

    terminal: str
    """As in `kitty 0.26.5`; empty where it is unknown."""
    ways: tuple[Way, ...]
    """Every way, the best first."""
    best: SinkName
    placement: Placement = "classic"
    """Of kitty's pictures; placeholders only inside tmux."""
    layer: Layer = "above"
    """Of kitty's pictures: whether they may lie below cells with a background, as is right from kitty 0.28 on."""
    tmux_limit_bytes: int | None = None
    """Inside tmux: how much goes through at once; it drops what exceeds 8 bytes for each cell of the terminal (tty.c)."""
    frames: Frames = "swap"
    """Of kitty's pictures: edited in place, or a new picture for each frame."""
    cell: CellSize | None
    cell_from: str
    """Who told the size of a cell, as `CSI 16 t`."""
    colours: Colours
    colours_from: str
    background: tuple[int, int, int] | None = None
    """The terminal's own, 8 bits a channel."""
    synchronized: bool
    """Whether mode 2026 makes an update appear at once."""
    acknowledges: bool
    """Whether `CSI 5 n` is answered: the time until then measures the line."""
    sixel_registers: int
    """How many colours a sixel picture may have; 0 where unknown."""
    sixel_limit_px: tuple[int, int] | None
    """Width and height of the largest sixel picture, where the terminal tells."""
    advice: tuple[str, ...]

    def way(self, name: SinkName) -> Way:
        """The way with this name."""
        return next(way for way in self.ways if way.name == name)


def judge(report: Report) -> Verdict:
    """What the terminal of this report can show."""
    identity = identify(report)
    colours, colours_from = _colours(report, identity)
    nothing = _nothing(report)
    ways = {
        "kitty": nothing or _kitty(report, identity),
        "iterm2": nothing or _iterm2(report, identity),
        "sixel": nothing or _sixel(report),
        **{kind: nothing or _cells(kind, report, identity, colours) for kind in ("sextant", "quadrant", "half")},
    }
    order = ("iterm2", "kitty", *_ORDER[2:]) if identity.name in _ITERM2_BETTER else _ORDER
    judged = tuple(Way(name, *ways[name]) for name in order)
    cell, cell_from = _cell(report)
    inside_tmux = report.capabilities.multiplexer == "tmux"
    answers = report.answers
    return Verdict(
        terminal=str(identity),
        ways=judged,
        best=next((way.name for way in judged if way.usable), "half"),
        placement="placeholder" if inside_tmux else "classic",
        layer="below" if _takes_pictures_below(identity) and not inside_tmux else "above",
        frames="edit" if answers.kitty_frame == "OK" and not inside_tmux else "swap",
        tmux_limit_bytes=_tmux_limit(report.capabilities) if inside_tmux else None,
        cell=cell,
        cell_from=cell_from,
        colours=colours,
        colours_from=colours_from,
        background=_eight_bits(answers.background) if answers.background is not None else None,
        synchronized=answers.synchronized in (1, 2, 3),
        acknowledges=answers.status,
        sixel_registers=answers.sixel_registers or 0,
        sixel_limit_px=answers.sixel_limit_px,
        advice=advice(report, identity, colours),
    )


def _eight_bits(colour: Rgb) -> Rgb:
    red, green, blue = colour
    return red >> 8, green >> 8, blue >> 8


def _tmux_limit(known: Capabilities) -> int:
    """Three quarters of what tmux keeps, and never so little that nothing could be seen."""
    return max(9_000, 6 * (known.width_cells or 80) * (known.height_cells or 24))


def _takes_pictures_below(identity: Identity) -> bool:
    """Seen right in kitty 0.41 and wrong in 0.26; others were not seen, and above the text is right everywhere."""
    return identity.name == "kitty" and identity.since(0, 28)


def choose(requested: str, verdict: Verdict) -> tuple[SinkName, str]:
    """The sink for `--image-protocol` (`auto` or a sink's name), and a sentence of complaint where it is another than wanted."""
    if requested in ("", "auto"):
        return verdict.best, ""
    way = next((way for way in verdict.ways if way.name == requested), None)
    if way is None:
        return verdict.best, f"There is no image protocol {requested!r}; there are auto, {', '.join(_ORDER)}."
    if way.usable or not way.sure or way.name == "half":
        return way.name, ""
    label = f"{_LABELS[way.name]} pictures" if way.name in _LABELS else f"{way.name.capitalize()} cells"
    return "half", f"{label} cannot be shown here, half cells are: {way.why[0].lower()}{way.why[1:]}"


def settle_colorterm(report: Report, environ: MutableMapping[str, str]) -> bool:
    """Set COLORTERM where it was lost on the way but the terminal has 24-bit colours; whether it was set."""
    if environ.get("COLORTERM") or environ.get("NO_COLOR"):
        return False
    if _colours(report, identify(report))[0] != "truecolor":
        return False
    environ["COLORTERM"] = "truecolor"
    return True


_Judged = tuple[bool, str, bool]


def _nothing(report: Report) -> _Judged | None:
    """Why nothing at all can be shown."""
    if not report.capabilities.is_terminal:
        return False, "Stdout is no terminal.", True
    if report.capabilities.term in ("", "dumb", "unknown"):
        return False, f"TERM={report.capabilities.term or '(nothing)'} says that this terminal shows plain text only.", True
    return None


def _unanswered(report: Report) -> _Judged:
    """No answer: refused where DA1 came, open where it did not."""
    if report.complete:
        return False, "The terminal does not answer the question for it.", not report.why_not
    if report.asked:
        return False, "The terminal did not answer in time.", False
    return False, report.why_not or "The terminal was not asked.", False


def _kitty(report: Report, identity: Identity) -> _Judged:
    answers = report.answers
    if report.capabilities.multiplexer == "tmux":
        return _kitty_in_tmux(report, identity)
    if report.capabilities.multiplexer == "screen":
        return False, _SCREEN, True
    if answers.kitty_query is None:
        return _unanswered(report)
    if answers.kitty_query != "OK":
        return False, f"The terminal refused: {answers.kitty_query}", True
    how = "frames are edited in place" if answers.kitty_frame == "OK" else "each frame is a new picture"
    return True, f"The terminal answers OK to kitty's question; {how}.", True


def _kitty_in_tmux(report: Report, identity: Identity) -> _Judged:
    """Only placeholders scroll and are covered as tmux believes; konsole says OK to them and shows none."""
    answers = report.answers
    if report.why_not:
        return False, report.why_not, report.tmux is not None
    if answers.kitty_query != "OK":
        if report.complete:
            return False, "The terminal around tmux does not answer kitty's question.", True
        return False, "The terminal around tmux did not answer in time.", False
    if answers.kitty_placeholder != "OK" or identity.name == "konsole":
        return False, "The terminal around tmux knows no placeholders, which pictures inside tmux need.", True
    return True, "The terminal around tmux answers OK to kitty's questions, and tmux passes them on.", True


def _iterm2(report: Report, identity: Identity) -> _Judged:
    if report.capabilities.multiplexer == "tmux":
        return False, "tmux does not keep track of such pictures.", True
    if report.capabilities.multiplexer == "screen":
        return False, _SCREEN, True
    if report.answers.iterm2_cell is not None:
        return True, "The terminal answers iTerm2's question for the size of a cell.", True
    if identity.name == "xterm.js" and _SIXEL in (report.answers.device_attributes or ()):
        return True, "xterm.js with its image addon knows them.", True
    since = _ITERM2_SINCE.get(identity.name)
    if since is not None and identity.since(*since):
        return True, f"{identity} knows them (by {identity.told_by}).", True
    return _unanswered(report)


def _sixel(report: Report) -> _Judged:
    attributes = report.answers.device_attributes
    if report.capabilities.multiplexer == "screen":
        return False, _SCREEN, True
    if attributes is None:
        return _unanswered(report)
    if _SIXEL not in attributes:
        return False, "The terminal's attributes (DA1) do not name sixel.", True
    if report.capabilities.multiplexer == "tmux":
        if report.tmux is None or "sixel" not in report.tmux.features:
            return False, "tmux knows sixel, but not that the terminal around it does.", True
        # Seen in 3.5a: while frames move under a dialog, it paints parts of an older one over it.
        return (
            False,
            "tmux can leave parts of sixel pictures over dialogs; asked for by name, they are drawn all the same.",
            False,
        )
    return True, "The terminal's attributes (DA1) name sixel.", True


def _cells(kind: str, report: Report, identity: Identity, colours: Colours) -> _Judged:
    if not report.capabilities.utf8:
        return False, "The locale is not UTF-8, so blocks cannot be written.", True
    if colours == "none":
        return False, "NO_COLOR asks for text without colours.", True
    if kind == "half":
        return True, "Nearly every font has half blocks.", True
    finest = draws_itself(identity)
    if finest in ("sextant", kind):
        return True, f"{identity} draws them itself, whatever the font.", True
    return False, "Only the font decides, and it cannot be asked.", False


def _colours(report: Report, identity: Identity) -> tuple[Colours, str]:
    known = report.capabilities
    if known.colours == "none" or known.colours_from == "COLORTERM":
        return known.colours, known.colours_from
    if known.multiplexer == "tmux" and report.tmux is not None:
        return ("truecolor", "tmux") if "RGB" in report.tmux.features else (known.colours, known.colours_from)
    if known.multiplexer:
        return known.colours, known.colours_from
    if report.answers.sgr and "10:20:30" in report.answers.sgr:
        return "truecolor", "DECRQSS"
    if identity.name in _TRUECOLOR:
        return "truecolor", identity.told_by
    return known.colours, known.colours_from


def _cell(report: Report) -> tuple[CellSize | None, str]:
    """The size of a cell by whoever knows it best; None where nobody does. A window may have a margin beside its cells."""
    known, answers = report.capabilities, report.answers
    columns, rows = known.width_cells, known.height_cells
    found: list[tuple[float, float, str]] = []
    if answers.cell_px is not None:
        found.append((*answers.cell_px, "CSI 16 t"))
    if columns and rows:
        if answers.window_px is not None:
            found.append((answers.window_px[0] // columns, answers.window_px[1] // rows, "CSI 14 t"))
        found.append((known.width_px // columns, known.height_px // rows, "TIOCGWINSZ"))
    if answers.iterm2_cell is not None:
        width, height, scale = answers.iterm2_cell
        found.append((width * scale, height * scale, "OSC 1337"))
    low, high = _CELL_RANGE
    for width, height, origin in found:
        if low <= width <= high and low <= height <= high:
            return CellSize(width, height), origin
    return None, ""
