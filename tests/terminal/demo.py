"""The demo app, running in a real terminal: what it says, and what is to be seen."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import numpy as np
from PIL import Image

from .demo_app import DIALOG_COLOUR, SIZES_PX, State, scene
from .real import Emulator, wait_for

COLUMNS, ROWS = 110, 36
APP = Path(__file__).with_name("demo_app.py")
XDG = ("CONFIG", "DATA", "STATE", "CACHE")
LOOKS = 4
GRAIN = 0.3
"""Of characters' edges in xterm, which are not sharp, there is less; of single pixels, more."""


class Look(NamedTuple):
    """How a part of the screen compares with the picture that should be there."""

    difference: float
    """The mean of all pixels and channels, of 255."""
    grain: float
    """How much neighbours in a row differ within a cell; nothing where the picture is made of half cells."""


class Demo:
    """Two pictures in a terminal of one kind; failures leave what was seen and what was wanted in `evidence`."""

    def __init__(self, kind: type[Emulator], evidence: Path, *, tolerance: float, grainy: bool | None = None) -> None:
        """`tolerance`: the largest difference; `grainy`: whether single pixels are to be seen."""
        self._home = Path(tempfile.mkdtemp(prefix="sdtui-d-"))
        self._state = self._home / "state.json"
        self._evidence = evidence
        self._tolerance = tolerance
        self._grainy = grainy
        (self._home / "run").mkdir(mode=0o700)
        directories = {f"XDG_{name}_HOME": str(self._home / name.lower()) for name in XDG}
        env = {"HOME": str(self._home), "XDG_RUNTIME_DIR": str(self._home / "run"), **directories, "PYTHONPATH": str(Path.cwd())}
        command = [sys.executable, str(APP), str(self._state)]
        try:
            self.terminal = kind(command, columns=COLUMNS, rows=ROWS, env=env)
        except BaseException:
            shutil.rmtree(self._home, ignore_errors=True)
            raise

    @property
    def state(self) -> State:
        """What the app believes."""
        return msgspec.json.decode(self._state.read_bytes(), type=State)

    def wait(self, condition: Callable[[State], object], what: str, deadline_s: float = 20) -> State:
        """Wait until the app believes something."""
        wait_for(self._state.exists, f"the demo app in {self.terminal.name}", 30)
        try:
            wait_for(lambda: condition(self.state), what, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.state}; the screen: {self._save('screen', self.terminal.image())}") from None
        return self.state

    def crop(self, spot: tuple[int, int, int, int]) -> Image.Image:
        """A part of the screen, given in cells."""
        column, row, columns, rows = spot
        (width, height), (left, top) = self.cell_px(), self.terminal.origin_px
        corners = (column * width + left, row * height + top, (column + columns) * width + left, (row + rows) * height + top)
        return self.terminal.image().crop(tuple(map(round, corners)))

    def cell_px(self) -> tuple[float, float]:
        """How large a cell is on the screen."""
        return self.terminal.cell_px(*self.state.size)

    def look(self, name: str) -> Look:
        """Compare a picture on the screen with its source."""
        return compare(self.crop(self.state.spots[name]), scene(name, self.state.shown[name]), int(self.cell_px()[0]))

    def wait_to_see(self, *names: str, deadline_s: float = 20) -> dict[str, Look]:
        """Wait until the pictures, both if none is named, are on the screen as in their files, and stay."""
        chosen = names or tuple(SIZES_PX)
        looks: dict[str, Look] = {}
        good = 0

        def there() -> bool:
            nonlocal good
            looks.update({name: self.look(name) for name in chosen if name in self.state.spots})
            good = good + 1 if len(looks) == len(chosen) and all(map(self._is_good, looks.values())) else 0
            return good >= LOOKS

        self.wait(lambda _: True, "the app")
        try:
            wait_for(there, f"the pictures {', '.join(chosen)} in {self.terminal.name}", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {looks}; {self.state}; {self._compared(chosen)}") from None
        return looks

    def _is_good(self, look: Look) -> bool:
        return look.difference <= self._tolerance and (self._grainy is None or self._grainy == (look.grain > GRAIN))

    def is_covered(self, spot: tuple[int, int, int, int]) -> bool:
        """Whether the dialog, and nothing else, is to be seen in these cells."""
        return all(
            abs(got - wanted) <= 3 for _, colour in self._colours(spot) for got, wanted in zip(colour, DIALOG_COLOUR, strict=True)
        )

    def share_of_one_colour(self, spot: tuple[int, int, int, int]) -> float:
        """How much of these cells has the colour that most of them have."""
        counts = [count for count, _ in self._colours(spot)]
        return max(counts) / sum(counts)

    def _colours(self, spot: tuple[int, int, int, int]) -> list[tuple[int, tuple[int, int, int]]]:
        part = self.crop(spot)
        if self.cell_px()[0] % 1:  # the edges of the cells are within pixels
            part = part.crop((1, 1, part.width - 1, part.height - 1))
        return part.getcolors(1 << 24) or []

    def wait_to_be_covered(self, spot: tuple[int, int, int, int]) -> None:
        """Wait until the dialog hides all that is below it."""
        self.wait(lambda _: self.is_covered(spot), "the dialog on the screen", 10)

    def must_be_covered(self, spot: tuple[int, int, int, int]) -> None:
        """Raises `AssertionError` where a picture was drawn over the dialog."""
        assert self.is_covered(spot), f"a picture was drawn over the dialog; saved: {self._save('over', self.terminal.image())}"

    def is_untouched(self) -> bool:
        """Whether the app is as it was when it started."""
        if self.terminal.ended():
            return False
        state = self.state
        whole = len(state.spots) == len(SIZES_PX) and not state.scrolled and state.size == (COLUMNS, ROWS)
        return whole and not state.dialog and not state.toast and self.cell_px() == (8, 17)

    def _compared(self, names: tuple[str, ...]) -> str:
        paths = [self._save("screen", self.terminal.image())]
        for name in names:
            if name in self.state.spots:
                seen = self.crop(self.state.spots[name])
                wanted = scene(name, self.state.shown[name]).resize(seen.size)
                paths += [self._save(f"{name}-seen", seen), self._save(f"{name}-wanted", wanted)]
        return "saved: " + ", ".join(map(str, paths))

    def _save(self, name: str, image: Image.Image) -> Path:
        path = self._evidence / f"{self.terminal.name.replace(' ', '-')}-{name}.png"
        image.save(path)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.terminal.__exit__(kind, error, trace)
        shutil.rmtree(self._home, ignore_errors=True)


def compare(seen: Image.Image, source: Image.Image, cell_width_px: int) -> Look:
    """A part of the screen, and the picture that should fill it."""
    pixels = np.asarray(seen, np.float32)
    wanted = np.asarray(source.resize(seen.size, Image.Resampling.BOX), np.float32)
    rows, columns = pixels.shape[0], pixels.shape[1] // cell_width_px * cell_width_px
    cells = pixels[:, :columns].reshape(rows, -1, cell_width_px, 3)
    return Look(float(np.abs(pixels - wanted).mean()), float(np.abs(np.diff(cells, axis=2)).mean()))
