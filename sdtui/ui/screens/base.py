"""What every screen that talks to the server has in common."""

from __future__ import annotations

from textual.screen import Screen

from sdtui.protocol import Message
from sdtui.ui.feed import Feed, NotConnected


class FeedScreen(Screen[None]):
    """Sends commands without waiting for them."""

    def __init__(self, feed: Feed, *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self.feed = feed

    def send(self, *commands: Message) -> None:
        """Send commands in order, without waiting; a lost server is said."""

        async def deliver() -> None:
            try:
                for command in commands:
                    await self.feed.send(command)
            except NotConnected as error:
                self.notify(str(error), title="Not sent", severity="error", markup=False)

        self.run_worker(deliver(), exit_on_error=False)
