"""What a large model costs in the Inspect screen: the first tree of a 4 GB file, ten thousand tensors, the loop beside a job."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final, NoReturn

from textual.pilot import Pilot

from sdtui.bench.figures import Figure, milliseconds, percentile
from sdtui.bench.isolation import environment, isolated
from sdtui.bench.layouts import sd1, write_sparse
from sdtui.bench.live import Session, run_job, watched_app
from sdtui.bench.start import APP
from sdtui.bench.terminal import in_terminal
from sdtui.bench.ticker import IdleProcess
from sdtui.params import GenerationParams
from sdtui.protocol import JobQueued, Submit, new_job_id
from sdtui.server.client import Client
from sdtui.settings import General, Inspect, Settings, load_settings, output_dir
from sdtui.ui.app import SdtuiApp
from sdtui.ui.screens.inspect import InspectScreen

OPEN_TARGET_MS: Final = 100.0
EXPAND_TARGET_MS: Final = 1000.0
KEY_TARGET_MS: Final = 20.0
GAP_TARGET_MS: Final = 25.0
TENSORS: Final = 10_000
_KEYS: Final = 60
_INSPECT: Final = "\x1b2"
"""Alt and 2."""
_PARAMS: Final = GenerationParams(prompt="a red cat in the desert", seed=1)
_NO_WORKER: Final = {"SDTUI_WORKER_COMMAND": "true"}
_TIMEOUT_S: Final = 60.0
_PATIENCE_S: Final = 30.0


def measure(rounds: int) -> list[Figure]:
    """Opening in the app in a terminal, unfolding and moving in the app without one, and gaps of its loop beside jobs."""
    with isolated() as root, environment(_NO_WORKER):
        checkpoint = write_sparse(root / "v1.safetensors", sd1())
        shown, pressed = zip(*(_opened(checkpoint) for _ in range(rounds)), strict=True)
        many = write_sparse(root / "many.safetensors", _many(), "F16")
        unfolded, keys = asyncio.run(_moved(many, rounds))
    note = f"{checkpoint_note(len(sd1()))}, {rounds} rounds"
    return [
        milliseconds("inspect", "first tree after the screen is shown, median", median(shown), OPEN_TARGET_MS, note),
        milliseconds("inspect", "first tree after the screen is shown, longest", max(shown)),
        milliseconds("inspect", "first tree after the key, median", median(pressed), note="with the screen's own first frame"),
        milliseconds("inspect", f"unfold {TENSORS:,} tensors, median", median(unfolded), EXPAND_TARGET_MS),
        milliseconds("inspect", "a key that moves the cursor, median", median(keys), KEY_TARGET_MS, f"{len(keys)} keys"),
        milliseconds("inspect", "a key that moves the cursor, 99th percentile", percentile(keys, 0.99)),
        *_gaps(rounds),
    ]


def checkpoint_note(tensors: int) -> str:
    """What was opened."""
    return f"4.27 GB in one sparse file, {tensors:,} tensors"


def _opened(checkpoint: Path) -> tuple[float, float]:
    """Seconds from the first that is drawn of the Inspect screen, and from the key that opens it, to the frame with the tree."""
    with environment({"SDTUI_GENERAL_MODEL": str(checkpoint)}), in_terminal(APP) as terminal:
        terminal.wait_for("Prompt", _TIMEOUT_S)
        terminal.wait_for("Safety checker", _TIMEOUT_S)  # the form is there; what the app begins with is done
        pressed = terminal.type(_INSPECT)
        shown = terminal.wait_for("2 Inspect", _TIMEOUT_S)  # in the other screen's line of screens it was written before
        tree = terminal.wait_for("text_encoder", _TIMEOUT_S)
        return tree - shown, tree - pressed


def _many() -> dict[str, tuple[int, ...]]:
    """Five thousand linear layers, fifty to a block."""
    found: dict[str, tuple[int, ...]] = {}
    for index in range(TENSORS // 2):
        layer = f"down_blocks.{index // 500}.attentions.{index // 50 % 10}.transformer_blocks.{index % 50}"
        found |= {f"{layer}.weight": (64, 64), f"{layer}.bias": (64,)}
    return found


async def _moved(model: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds to unfold everything and to move the cursor by a line, each until it is drawn."""
    settings = Settings(general=General(model=str(model)), inspect=Inspect(estimate=False))
    app = SdtuiApp(settings, connect=_nobody)
    unfolded, keys = [], []
    with _collecting_as_the_app():
        async with app.run_test(size=(120, 40)) as pilot:
            await app.action_show_screen("inspect")
            screen = await _inspect_screen(app, pilot)
            for _ in range(rounds):
                unfolded.append(await _drawn(screen, lambda: screen.tree_lines.action_fold_all(False)))
                keys += [await _drawn(screen, lambda: screen.tree_lines.action_move_cursor(1)) for _ in range(_KEYS)]
                await _drawn(screen, lambda: screen.tree_lines.action_fold_all(False))
    return unfolded, keys


@contextmanager
def _collecting_as_the_app() -> Iterator[None]:
    """As `SdtuiApp.run` does: garbage is collected by the app's own thresholds once it has started, and as before in the end."""
    thresholds = gc.get_threshold()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        gc.enable()


async def _inspect_screen(app: SdtuiApp, pilot: Pilot[None]) -> InspectScreen:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        await pilot.pause()
        if isinstance(app.screen, InspectScreen) and app.screen.outline is not None:
            return app.screen
    raise TimeoutError("The model was not shown.")


async def _drawn(screen: InspectScreen, action: Callable[[], object]) -> float:
    drawn = asyncio.Event()
    began = time.perf_counter()
    action()
    screen.call_after_refresh(drawn.set)
    await drawn.wait()
    return time.perf_counter() - began


async def _nobody(**_: Any) -> NoReturn:
    raise OSError("there is no server for this measurement")


def _gaps(rounds: int) -> list[Figure]:
    """The gaps of the loop while jobs in inspect mode run and the whole tree is in view, live."""
    session = _looked_at(rounds)
    gaps = [gap.wall_s for job in session.jobs for gap in job.gaps]
    busy = [gap.busy_s for job in session.jobs for gap in job.gaps]
    idle = [gap.wall_s for gap in session.idle]
    note = f"{len(gaps)} ticks, {len(session.jobs)} jobs, every module looked at"
    return [
        milliseconds("inspect", "gap of the loop, tree live, 99th percentile", percentile(gaps, 0.99), GAP_TARGET_MS, note),
        milliseconds("inspect", "gap of the loop, tree live, longest", max(gaps)),
        milliseconds("inspect", "work of the loop in a gap, 99th percentile", percentile(busy, 0.99)),
        milliseconds("inspect", "gap in an idle process meanwhile, 99th percentile", percentile(idle, 0.99)),
    ]


def _looked_at(rounds: int) -> Session:
    """Jobs that another client begins, while the app shows the tree, all of it unfolded."""
    with watched_app() as (terminal, told):
        terminal.type(_INSPECT)
        terminal.wait_for("text_encoder", _TIMEOUT_S)
        terminal.type("A")
        run_job(_submit, told)
        with IdleProcess() as idle:
            jobs = [run_job(_submit, told) for _ in range(rounds)]
            return Session(jobs, idle.gaps())


def _submit() -> float:
    """Queue a job; the monotonic time."""
    return asyncio.run(_queued())


async def _queued() -> float:
    client = await Client.connect(name="bench", subscribe=False)
    pictures = str(output_dir(load_settings()))
    began = time.monotonic()
    await client.send(Submit(job=new_job_id(), params=_PARAMS, output_dir=pictures, inspect="modules", words=True))
    async for message in client.events():
        if isinstance(message, JobQueued):
            break
    await client.close()
    return began
