"""What the tests of a module's page share: a scripted inspector, inspected jobs, and ways to the parts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdtui.inspected import Inspected, SheetFacts, inspected_path, write_inspected
from sdtui.protocol import MeasureWeight, ReadSource, SourceRead, WeightMeasured
from sdtui.server.inspector import InspectorError
from sdtui.settings import tapes_dir
from sdtui.ui.outline import MODEL
from sdtui.ui.screens.inspect import InspectScreen
from sdtui.ui.widgets.module_pages import PARTS
from sdtui.ui.widgets.pages.activations import ActivationsPart
from sdtui.ui.widgets.pages.place import PlacePart
from sdtui.ui.widgets.pages.source_code import CodePart
from sdtui.ui.widgets.pages.weights import WeightsPart
from tests.ui.inspecting import open_inspect
from tests.ui.stage import Stage, until


class ScriptedInspector:
    """Answers with figures that tell what was asked; notes the questions."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.pid: int | None = 1
        self.error = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False
        self.changes: dict[str, Any] = {}
        """Of the figures that are answered."""
        self.code = 'def forward(self, x):\n    """Doubles."""\n    return 2 * x  # twice\n'

    async def request(self, message: Any) -> Any:
        self.asked.append(message)
        await self.gate.wait()
        if self.error:
            raise InspectorError(self.error)
        if isinstance(message, MeasureWeight):
            return self.measured(message)
        assert isinstance(message, ReadSource)
        return SourceRead(
            request=0, component=message.component, path=message.path, class_name="Conv2d", python_module="torch.nn",
            file="torch/nn/modules/conv.py", line=564, signature="forward(self, x)", settings={}, source=self.code,
        )  # fmt: skip

    def measured(self, message: MeasureWeight) -> WeightMeasured:
        values = (4.0, 2.0, 1.0) if message.singular_values else None
        counts = tuple(int(1000 * math.exp(-(((number - 32) / 10) ** 2))) for number in range(64))
        figures: dict[str, Any] = {
            "minimum": -0.5, "maximum": 0.25, "mean": 0.125, "std": 0.0625, "norm": 7.5, "zeros": 0.5, "nans": 0, "infinities": 0,
        }  # fmt: skip
        return WeightMeasured(
            request=0, component=message.component, key=message.key, file="f", shape=(64, 4, 3, 3), dtype="F16", count=2304,
            histogram=counts, singular_values=values, **(figures | self.changes),
        )  # fmt: skip

    async def close(self) -> None:
        self.closed = True


async def open_page(
    running: Stage, part: str, key: tuple[str, str] = ("unet", "conv_in")
) -> tuple[InspectScreen, ScriptedInspector]:
    """A part of a module's page, with an inspector that answers at once."""
    screen = await open_inspect(running)
    inspector = ScriptedInspector()
    vars(screen)["_inspector"] = inspector
    select(screen, key)
    await running.pilot.press(*("p" for _ in range(PARTS.index(part))))
    await until(lambda: screen.page.shown == part and screen.page.part is not None and screen.page.part.children, "the part")
    await running.pilot.pause()
    return screen, inspector


def select(screen: InspectScreen, key: tuple[str, str]) -> None:
    assert screen.outline is not None
    screen.tree_lines.go_to(MODEL if key == ("", "") else screen.outline.find_key(key) or 0)


def weights(screen: InspectScreen) -> WeightsPart:
    assert isinstance(screen.page.part, WeightsPart)
    return screen.page.part


def activations(screen: InspectScreen) -> ActivationsPart:
    assert isinstance(screen.page.part, ActivationsPart)
    return screen.page.part


def code(screen: InspectScreen) -> CodePart:
    assert isinstance(screen.page.part, CodePart)
    return screen.page.part


def place(screen: InspectScreen) -> PlacePart:
    assert isinstance(screen.page.part, PlacePart)
    return screen.page.part


def one_line(text: str) -> str:
    return " ".join(text.split())


def is_settled(screen: InspectScreen) -> bool:
    """Whether a part shows all that it will show."""
    part = screen.page.part
    if isinstance(part, WeightsPart):
        return part.found is not None and part.histogram.is_drawn and bool(part.histogram.text)
    if isinstance(part, ActivationsPart):
        return part.seen is not None and part.is_painted and part.histogram.is_drawn
    if isinstance(part, CodePart):
        return part.found is not None and part.view.is_made
    return part is not None and bool(place(screen).view.text)


def write_job(
    job: str = "j-1", path: str = "conv_in", channels: int = 64, *, model: str = "scenes-128", shape: tuple[int, int] = (16, 16),
    faults: int = 0, seen: Sequence[str] | None = None,
) -> Path:  # fmt: skip
    """The file of an inspected job; in its nth channel only the nth pixel is white."""
    directory = tapes_dir() / job
    directory.mkdir(parents=True, exist_ok=True)
    kept = min(36, channels)
    sheet = np.zeros((kept, *shape), np.uint8)
    for number in range(kept):
        sheet[number].flat[number % sheet[0].size] = 255
    facts = SheetFacts(
        network="unet", path=path, class_name="Conv2d", step_index=3, shape=(2, channels, 64, 64), channels=channels,
        low=-1.0, high=2.0, mean=0.25, std=0.5, faults=faults,
    )  # fmt: skip
    sheets = (facts,) if seen is None else ()
    inspected = Inspected(
        job=job, batch_index=0, model=model, prompt="a cat", seeds=(7,), width_px=128, height_px=128, steps=4, sheets=sheets
    )
    file = inspected_path(directory, 0)
    write_inspected(file, inspected, {"sheet/0": sheet, "histogram/0": np.arange(64, dtype=np.int64)})
    return file
