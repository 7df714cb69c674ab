"""The commands. Never imports torch."""
