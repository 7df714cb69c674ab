"""What to set in ssh, tmux or the terminal to see more: plain sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sdtui.terminal.capabilities import Colours
from sdtui.terminal.identity import Identity
from sdtui.terminal.report import Report

_KITTY_LIKE: Final = ("kitty", "ghostty")
_SIXEL_LIKE: Final = ("foot", "mlterm", "konsole", "wezterm", "contour", "mintty", "xterm.js", "xterm", "iterm2")
_SIXEL: Final = 4


def advice(report: Report, identity: Identity, colours: Colours) -> tuple[str, ...]:
    """What the user can do, the most useful first."""
    known = report.capabilities
    if not known.is_terminal:
        return ()
    sentences: list[str] = []
    if known.term in ("", "dumb", "unknown"):
        sentences.append("Set TERM to the terminal's own name, as in: export TERM=xterm-256color")
    if not known.utf8:
        sentences.append("Pictures and frames need UTF-8: export LANG=C.UTF-8")
    if known.colours_from == "NO_COLOR":
        sentences.append("NO_COLOR is set: unset it to see pictures in colour.")
    if known.multiplexer == "tmux":
        sentences.extend(_for_tmux(report, identity))
    elif known.multiplexer == "screen":
        sentences.append("GNU screen shows pictures as half cells only; tmux passes kitty's pictures on.")
    else:
        sentences.extend(_for_terminal(report, identity))
    sentences.extend(_for_colours(report, colours))
    return tuple(sentences)


def _for_tmux(report: Report, identity: Identity) -> Iterator[str]:
    tmux = report.tmux
    if tmux is None:
        return
    kitty_like = identity.name in _KITTY_LIKE
    old_kitty = identity.name == "kitty" and bool(identity.version) and not identity.since(0, 28)
    if old_kitty:
        yield "Pictures inside tmux need kitty 0.28 or newer."
    elif tmux.passthrough == "off" and (kitty_like or not identity.name):
        yield "To see kitty's pictures in tmux, put into ~/.tmux.conf: set -g allow-passthrough on"
    if tmux.clients > 1 and kitty_like:
        yield "Pictures need the tmux session to be shown by one terminal only: detach the others (tmux detach -a)."
    if identity.name in _SIXEL_LIKE and "sixel" not in tmux.features:
        if _SIXEL in (report.answers.device_attributes or ()):
            yield "For sixel inside tmux: set -as terminal-features ',*:sixel' in ~/.tmux.conf, and --image-protocol sixel here."
        else:
            yield "For sixel inside tmux, tmux 3.4 or newer is needed, built with sixel."
    if "RGB" not in tmux.features and not kitty_like:  # their terminfo says it to tmux
        yield "For 24-bit colours in tmux, put into ~/.tmux.conf: set -as terminal-features ',*:RGB'"


def _for_terminal(report: Report, identity: Identity) -> Iterator[str]:
    attributes = report.answers.device_attributes
    if identity.name == "xterm" and attributes is not None and _SIXEL not in attributes:
        yield "xterm shows pictures when started as a VT340: xterm -ti vt340, or XTerm*decTerminalID: vt340 in ~/.Xresources"
    if identity.name == "xterm.js" and attributes is not None and _SIXEL not in attributes:
        yield 'VS Code shows pictures with "terminal.integrated.enableImages": true in its settings.'
    if report.asked and not report.complete:
        yield "The terminal did not answer in time; if you know what it can show, say so with --image-protocol."


def _for_colours(report: Report, colours: Colours) -> Iterator[str]:
    known = report.capabilities
    if known.over_ssh and colours == "truecolor" and known.colours_from != "COLORTERM":
        yield "ssh lost COLORTERM: SendEnv COLORTERM in ~/.ssh/config here, AcceptEnv COLORTERM in the server's sshd_config."
    if colours in ("16", "256") and known.multiplexer != "tmux":
        yield "If the terminal can show 24-bit colours, say so: export COLORTERM=truecolor"
