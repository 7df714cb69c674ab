"""Ask the terminal this runs in and write what it said: `python tests/terminal/record.py FILE`; for `recorded/*.json`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sdtui.terminal.probe import start_probe


def main() -> None:
    probe = start_probe(os.environ)
    report = probe.collect(2.0)
    left = probe.finish()
    path = Path(sys.argv[1])
    part = path.with_suffix(".part")
    part.write_bytes(report.to_json() + b"\n")
    part.with_suffix(".left").write_bytes(left)
    part.rename(path)


if __name__ == "__main__":
    main()
