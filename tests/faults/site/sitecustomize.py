"""Loaded by every Python that a test of faults starts with this directory on PYTHONPATH; arms the server and the worker."""

import sys

if "sdtui.server" in sys.orig_argv or "sdtui.worker" in sys.orig_argv:
    import injected_faults

    injected_faults.install("server" if "sdtui.server" in sys.orig_argv else "worker")
