"""`sdtui view` between the lines of a shell, in real terminal emulators."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sdtui.terminal.picture import CellSize, fit

from .demo import compare
from .demo_app import SIZES_PX, scene
from .real import CELL_PX, wait_for
from .test_real_terminals import CASES, Case, ids, need

pytestmark = [pytest.mark.xdist_group("real_terminals"), pytest.mark.timeout(240)]
COLUMNS, ROWS, HIGH = 80, 36, 12


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_pictures_stand_between_the_lines_of_the_shell_and_scroll_with_them(case: Case, home: Path) -> None:
    need(case.kind)
    for number, name in enumerate(SIZES_PX):
        scene(name, number).save(home / f"{name}.png")
    view = f"{sys.executable} -m sdtui view {home}/one.png {home}/two.png --height {HIGH}"
    shell = f"seq 30; {view}; printf end; : > {home}/done; read _"
    with case.kind(["sh", "-c", shell], columns=COLUMNS, rows=ROWS, env={"PYTHONPATH": str(Path.cwd())}) as terminal:
        wait_for((home / "done").exists, "the pictures", 60)
        screen = terminal.settled(home / "screen.png")
    width, height = CELL_PX
    # From below: "end", and under each picture a line about it.
    for name, number, first_row in (("one", 0, ROWS - 2 * HIGH - 3), ("two", 1, ROWS - HIGH - 2)):
        columns, rows = fit(*SIZES_PX[name], COLUMNS, HIGH, CellSize(width, height))
        assert rows == HIGH
        seen = screen.crop((0, first_row * height, columns * width, (first_row + rows) * height))
        assert compare(seen, scene(name, number), width).difference < case.tolerance + 3
        for row in (first_row - 1, first_row + rows):
            line = screen.crop((0, row * height, COLUMNS * width, (row + 1) * height)).getcolors(1 << 24) or []
            assert max(count for count, _ in line) > COLUMNS * width * height * 0.6, "text, and no picture, is in this row"
