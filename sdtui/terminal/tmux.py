"""tmux passes what it does not know on to its terminal only inside an envelope (tmux(1), `allow-passthrough`)."""

from __future__ import annotations


def passthrough(sequence: bytes) -> bytes:
    """`sequence` for the terminal that tmux runs in. The envelope ends at the first ST, so each ESC inside is doubled."""
    return b"\x1bPtmux;" + sequence.replace(b"\x1b", b"\x1b\x1b") + b"\x1b\\"


def untouched(sequence: bytes) -> bytes:
    """`sequence` as it is, for a terminal without tmux before it."""
    return sequence
