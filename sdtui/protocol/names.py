"""Names of jobs."""

from __future__ import annotations

import time


def new_job_id(now: float | None = None) -> str:
    """A job's name: the UTC time and four random hex digits, so names sort by age and can be typed."""
    import secrets  # late: it brings hashlib along, and an app that starts needs no job id

    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{stamp}-{secrets.token_hex(2)}"
