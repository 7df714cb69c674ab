"""The server: owns the queue, the history and the worker. Never imports torch."""
