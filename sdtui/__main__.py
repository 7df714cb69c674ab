"""`python -m sdtui`, and the `sdtui` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line with the process's own arguments; the return value is the exit code."""
    from sdtui.cli.app import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
