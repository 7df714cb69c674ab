"""`python -m sdtui`, and the `sdtui` command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line with the process's own arguments; the return value is the exit code.

    On a terminal and without arguments the app starts at once: Typer takes 60 ms to import and has nothing to do.
    """
    if len(sys.argv) == 1 and sys.stdin.isatty() and sys.stdout.isatty():
        from sdtui.cli.start import start

        return start()
    from sdtui.cli.app import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
