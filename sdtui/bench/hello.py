"""The base of `bench start`: the least Textual app that shows something and answers a key."""

from __future__ import annotations

from textual import events
from textual.app import App, ComposeResult
from textual.widgets import Static


class Hello(App[None]):
    """Says hello, and what was typed."""

    def compose(self) -> ComposeResult:
        """One line of text."""
        yield Static("Hello, world")

    def on_key(self, event: events.Key) -> None:
        """Show the key."""
        self.query_one(Static).update(f"You typed {event.character}")


if __name__ == "__main__":
    Hello().run()
