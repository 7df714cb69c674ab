"""The Textual application. Never imports torch."""
