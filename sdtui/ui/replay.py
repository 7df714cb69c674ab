"""A forward that is over, played again slowly: which modules are at work at a moment. No Textual here."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from sdtui.ui.module_runs import Forward

REPLAY_S: Final = 1.0
"""How long a whole forward is shown to take."""
TICK_S: Final = 0.1
"""How often what is shown is drawn anew; what was at work between two moments is bright in the later one."""
FADE_S: Final = 0.3
"""How long one that was at work can still be told from others."""
Level = Literal[0, 1, 2]
"""Dark; just was at work; at work."""


class Playing(NamedTuple):
    """A forward that is played, and since when."""

    network: str
    forward: Forward
    began_s: float


class Replays:
    """One forward at a time, to its end; of those that wait, the newest of each network."""

    def __init__(self) -> None:
        self.playing: Playing | None = None
        self._waiting: dict[str, Forward] = {}

    def take(self, network: str, forward: Forward) -> None:
        """A network has run."""
        self._waiting[network] = forward

    def clear(self) -> None:
        """Nothing is at work any more, and nothing waits."""
        self.playing = None
        self._waiting.clear()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to play."""
        return self.playing is None and not self._waiting

    def advance(self, now_s: float) -> None:
        """Time has passed."""
        if self.playing is not None and now_s - self.playing.began_s > REPLAY_S + TICK_S + FADE_S:
            self.playing = None
        over = self.playing is None or now_s - self.playing.began_s >= REPLAY_S
        if over and self._waiting:
            network = next(iter(self._waiting))
            self.playing = Playing(network, self._waiting.pop(network), now_s)

    def level(self, network: str, path: str, now_s: float) -> Level:
        """How bright a module is."""
        playing = self.playing
        if playing is None or playing.network != network:
            return 0
        span = playing.forward.spans.get(path)
        if span is None:
            return 0
        scale = REPLAY_S / playing.forward.total_s
        at = now_s - playing.began_s
        if span[0] * scale > at:
            return 0
        gone_s = at - span[1] * scale
        return 2 if gone_s < TICK_S else 1 if gone_s < TICK_S + FADE_S else 0
