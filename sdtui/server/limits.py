"""How long the server waits and how much it keeps, each with its reason."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes. What users may want to change is in the settings instead."""

    hello_s: float = 5.0
    """A client says hello at once; who connects and stays silent would hold a place."""
    send_s: float = 30.0
    """A terminal may be suspended or its link may stall for a while; after this the client can as well connect anew."""
    outbox_bytes: int = 8 * 1024 * 1024
    """About 20,000 step events; who is further behind than that will not catch up."""
    outbox_frames: int = 50_000
    socket_check_s: float = 2.0
    """How long a new login may have to wait for the server that outlived the last one; a client waits 15 s."""
    cancel_s: float = 2.0
    """The worker stops within a step; one that has not after this is ended."""
    cancel_while_loading_s: float = 10.0
    """Imports and weights on their way into memory cannot be stopped in the middle."""
    pause_at_stop_s: float = 5.0
    """From the order to stop to the end of the worker: a step that takes longer is made again by the next server."""
    stop_s: float = 3.0
    """From the end of the worker's stdin to SIGTERM; torch takes a moment to let go of a GPU."""
    terminate_s: float = 1.0
    """From SIGTERM to SIGKILL."""
    hung_s: float = 30.0
    """The worker's heartbeat has a thread of its own; half a minute without any sign means that the process is stuck."""
    hung_while_loading_s: float = 300.0
    """Native code that loads or compiles may keep even that thread from running."""
    tidy_s: float = 30.0
    """How far tapes may be over their budget in the meantime."""
    futile_lives: int = 3
    """After so many workers in a row that died without beginning a job, another start mends nothing."""
    settled_s: float = 60.0
    """A worker that was up for so long after loading was a good one, even if nobody had a job for it."""
