"""What it takes to make files of a job's steps: seconds with all imports, and whether memory grows with the steps."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Final

from sdtui.bench.figures import Figure
from sdtui.bench.recorded import write_recorded

BENCH: Final = "export"
STEPS: Final = 50
FEW, MANY = 25, 200
SECONDS_TARGET: Final = 3.0
MEMORY_TARGET: Final = 1.1
_TARGETS: Final = ("steps.mp4", "steps.webp", "steps.gif", "steps.safetensors", "steps/")
_PROGRAM: Final = """
import resource, sys, time
began = time.perf_counter()
from pathlib import Path
from sdtui.timeline.export import Export, export
from sdtui.trajectory import Trajectory
export(Trajectory(Path(sys.argv[1])), Export(), sys.argv[2], overwrite=True)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_TIMEOUT_S: Final = 600.0


def measure(rounds: int) -> list[Figure]:
    """Of each format the median seconds for 50 steps at 512x512 px, and the peak memory of 200 steps over that of 25."""
    with tempfile.TemporaryDirectory(prefix="sdtui-b-") as root:
        jobs = {steps: write_recorded(Path(root) / f"job-{steps}", steps) for steps in (FEW, STEPS, MANY)}
        return [figure for name in _TARGETS for figure in _of_format(jobs, str(Path(root) / name), name, rounds)]


def _of_format(jobs: dict[int, Path], target: str, name: str, rounds: int) -> list[Figure]:
    what = "PNG files" if name.endswith("/") else Path(name).suffix
    if name.endswith("/"):
        target += "/"
    seconds = median(run_export(jobs[STEPS], target)[0] for _ in range(rounds))
    few, many = run_export(jobs[FEW], target)[1], run_export(jobs[MANY], target)[1]
    note = f"{few / 1024:.0f} and {many / 1024:.0f} MiB, Python and libraries included"
    took, grew = f"{what}: {STEPS} steps, 512x512 px", f"{what}: peak memory, {MANY} steps to {FEW}"
    return [
        Figure(bench=BENCH, name=took, value=seconds, unit="s", target=SECONDS_TARGET, note="imports too"),
        Figure(bench=BENCH, name=grew, value=many / few, unit="x", target=MEMORY_TARGET, note=note),
    ]


def run_export(trajectory: Path, target: str) -> tuple[float, float]:
    """Seconds from the first import to the file, and the process's peak memory in KiB."""
    command = [sys.executable, "-c", _PROGRAM, str(trajectory), target]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S).stdout.split()
    return float(said[0]), float(said[1])
