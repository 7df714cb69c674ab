"""The memory that a job as the form has it would need, told under the form before it is queued.

The inspector process follows one forward of each network without weights; that takes seconds, so it is asked when the form
has stood still and nothing is at work, and what it answered is kept on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, get_args

from textual.content import Content
from textual.timer import Timer

from sdtui.params import check_size
from sdtui.protocol import DryDtype, Heartbeat, Message, RunDry
from sdtui.settings import cache_dir, write_atomically
from sdtui.text import format_bytes

if TYPE_CHECKING:
    from sdtui.server.inspector import Inspector
    from sdtui.ui.screens.create import CreateScreen

FIELDS: Final = frozenset({"model", "width", "height", "batch_size", "guidance_scale", "dtype"})
"""What changes the memory of a job."""
TYPING_S: Final = 1.5
IDLE_S: Final = 5.0
"""After a model was loaded the first thing is often a job."""
_KEPT: Final = 500


class Need(NamedTuple):
    """What a job would need."""

    peak_bytes: int
    weight_bytes: int


class Estimate:
    """Asks when it is quiet, and says what it knows in the form's border."""

    def __init__(self, screen: CreateScreen, *, wanted: bool) -> None:
        self._screen, self._wanted = screen, wanted
        self._timer: Timer | None = None
        self._inspector: Inspector | None = None
        self._known: dict[RunDry, Need] = {}
        self._device_bytes = 0
        self.need: Need | None = None

    # --- what it is told --------------------------------------------------------------------------------------------

    def take_event(self, event: Message) -> None:
        """A heartbeat tells how much memory the device has."""
        if isinstance(event, Heartbeat) and event.device_total_bytes != self._device_bytes:
            self._device_bytes = event.device_total_bytes
            self.show()

    def form_changed(self) -> None:
        """What was known is not so any more; ask again once the form stands still."""
        request = self.request()
        self.need = self._known.get(request) if request is not None else None
        self.show()
        if self.need is None and request is not None:
            self._ask_in(TYPING_S)

    def model_loaded(self) -> None:
        """Sizes that were left open, dtype and device are known now."""
        self._ask_in(IDLE_S)

    def _ask_in(self, seconds: float) -> None:
        if not self._wanted:
            return
        if self._timer is not None:
            self._timer.stop()
        self._timer = self._screen.set_timer(seconds, self._ask)

    async def close(self) -> None:
        """End the process."""
        if self._inspector is not None:
            await self._inspector.close()

    # --- asking -----------------------------------------------------------------------------------------------------

    def request(self) -> RunDry | None:
        """The job of the form as a dry run; None where a field is wrong, or the dtype is not known yet."""
        values, problems = self._screen.form.values()
        info = self._screen.model
        if any(problem.field in FIELDS for problem in problems):
            return None
        here = info if info is not None and info.model == str(values["model"]).strip() else None
        dtype = values["dtype"] if values["dtype"] != "auto" else here.dtype if here is not None else ""
        width, height = values["width"] or 0, values["height"] or 0
        multiple = here.size_multiple_px if here is not None else 8
        if dtype not in get_args(DryDtype) or any(check_size("width", size, multiple) for size in (width, height) if size):
            return None
        return RunDry(
            request=0,
            model=str(values["model"]).strip(),
            width_px=width,
            height_px=height,
            batch_size=values["batch_size"],
            guidance=values["guidance_scale"] > 1,
            dtype=cast(DryDtype, dtype),
        )

    def _ask(self) -> None:
        """Not beside a job: it would take time from it."""
        if self._screen.following.at_work or self._screen.running is not None:
            self._ask_in(IDLE_S)
            return
        request = self.request()
        if request is not None and request not in self._known:
            self._screen.run_worker(self._find(request), group="estimate", exclusive=True, exit_on_error=False)

    async def _find(self, request: RunDry) -> None:
        from sdtui.server.inspector import Inspector, InspectorError

        need = await asyncio.to_thread(_remembered, request)
        if need is None:
            self._inspector = self._inspector or Inspector()
            with suppress(InspectorError):  # the job itself will say what is wrong with its model
                done = await self._inspector.request(request)
                need = Need(done.peak_bytes, done.weight_bytes)
                await asyncio.to_thread(_remember, request, need)
        if need is not None:
            self._known[request] = need
        if request == self.request():
            self.need = need
            self.show()

    # --- saying -----------------------------------------------------------------------------------------------------

    @property
    def total_bytes(self) -> int:
        """The memory that there is on the device; 0 where it is not known."""
        info = self._screen.model
        if info is None:
            return 0
        if info.device != "cpu":
            return self._device_bytes
        import psutil

        return int(psutil.virtual_memory().total)

    @property
    def shortage(self) -> str:
        """A sentence where the job will not fit; empty where it may."""
        total = self.total_bytes
        if self.need is None or not total or self.need.peak_bytes <= total:
            return ""
        return (
            f"This job needs at least {format_bytes(self.need.peak_bytes)} of memory, and the device has {format_bytes(total)}. "
            "It is made to fit where that is possible, which is slower; a smaller picture, batch size 1 or float16 need less."
        )

    def show(self) -> None:
        """The figure in the form's border, in the warning's colour where there is not so much."""
        need = f"≥ {format_bytes(self.need.peak_bytes)}" if self.need is not None else ""
        look = self._screen.look_words()
        text = f"{need} · {look}" if need and look else f"memory {need}" if need else f"looks at {look}" if look else ""
        self._screen.form.border_subtitle = Content.styled(text, "$warning" if self.shortage else "$muted")


# --- what is kept ---------------------------------------------------------------------------------------------------


def _path() -> Path:
    return cache_dir() / "memory.json"


def _key(request: RunDry) -> str | None:
    """Of the request and the state of the model's files; None for a model that is not here."""
    from sdtui.checkpoint import CheckpointError, resolve_model  # late: it is not needed for the first frame

    with suppress(CheckpointError, OSError):
        path = resolve_model(request.model)
        if isinstance(path, Path):
            told = (*(getattr(request, name) for name in request.__struct_fields__), str(path), path.stat().st_mtime_ns)
            return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()
    return None


def _read() -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(_path().read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


def _remembered(request: RunDry) -> Need | None:
    found = _read().get(_key(request) or "")
    if isinstance(found, list) and len(found) == len(Need._fields) and all(isinstance(figure, int) for figure in found):
        return Need(*found)
    return None


def _remember(request: RunDry, need: Need) -> None:
    key = _key(request)
    if key is None:
        return
    kept = {**_read(), key: list(need)}
    with suppress(OSError):
        write_atomically(_path(), json.dumps(dict(list(kept.items())[-_KEPT:])).encode())
