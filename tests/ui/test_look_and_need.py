"""Create says what the next job will show of its networks, and how much memory it needs."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from textual.content import Content

from sdtui import settings
from sdtui.protocol import DryRunDone, Heartbeat, RunDry, Submit
from sdtui.server import inspector
from sdtui.settings import General, Inspect, Settings, load_settings
from sdtui.ui.screens import create_estimate
from sdtui.ui.screens.chooser import Chooser
from tests.ui.scripted import MODEL, ScriptedClient
from tests.ui.stage import Stage, stage, until

GIB = 1 << 30


class Asked:
    """In the inspector's place: a gibibyte for each picture."""

    requests: list[RunDry]

    def __init__(self) -> None:
        self.closed = False

    async def request(self, message: RunDry) -> DryRunDone:
        Asked.requests.append(message)
        if message.model == "broken":
            raise inspector.InspectorError("The model is broken.")
        return DryRunDone(
            request=0, width_px=128, height_px=128, batch_size=message.batch_size, guidance=message.guidance, dtype=message.dtype,
            stages=(), weight_bytes=GIB // 2, peak_bytes=message.batch_size * GIB, how="",
        )  # fmt: skip

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> type[Asked]:
    Asked.requests = []
    monkeypatch.setattr(inspector, "Inspector", Asked)
    monkeypatch.setattr(create_estimate, "IDLE_S", 0.05)
    monkeypatch.setattr(create_estimate, "TYPING_S", 0.05)
    return Asked


WANTED = Settings(inspect=Inspect(estimate=True))


def border(running: Stage) -> str:
    return Content.from_markup(running.screen.form.border_subtitle or "").plain


async def generate(running: Stage) -> None:
    running.screen.prompt.load_text("a cat")
    await running.pilot.press("f5")


async def set_field(running: Stage, name: str, text: str) -> None:
    row = running.screen.form.row(name)
    assert row is not None
    row.editor.focus()
    row.text = ""
    await running.type(text)
    await running.pilot.pause()


async def test_the_form_says_how_much_memory_its_job_needs(asked: type[Asked]) -> None:
    async with stage(settings=WANTED) as running:
        await until(lambda: border(running) == "memory ≥ 1.0 GiB", "the estimate")
        first = asked.requests[0]
        assert (first.model, first.width_px, first.batch_size, first.dtype) == ("scenes-128", 0, 1, "float32")
        assert first.guidance
        await set_field(running, "batch_size", "3")
        await until(lambda: border(running) == "memory ≥ 3.0 GiB", "that of three pictures")
        await set_field(running, "batch_size", "many")
        await until(lambda: border(running) == "", "nothing, for what is no batch")
        await set_field(running, "batch_size", "1")
        await until(lambda: border(running) == "memory ≥ 1.0 GiB", "what was known")
        assert len(asked.requests) == 2


async def test_what_was_estimated_is_known_the_next_time(asked: type[Asked]) -> None:
    for _ in range(2):
        async with stage(settings=WANTED) as running:
            await until(lambda: border(running) == "memory ≥ 1.0 GiB", "the estimate")
    assert len(asked.requests) == 1
    path = settings.cache_dir() / "memory.json"
    (key,) = json.loads(path.read_bytes())
    for torn in (b"", b"[", b"[1, 2]", json.dumps({key: [1, "two"]}).encode(), json.dumps({key: 7}).encode()):
        path.write_bytes(torn)
        async with stage(settings=WANTED) as running:
            await until(lambda: border(running) == "memory ≥ 1.0 GiB", f"the estimate in spite of {torn!r}")


async def test_a_job_that_will_not_fit_is_told_of_before_it_begins(asked: type[Asked]) -> None:
    client = ScriptedClient()
    on_gpu = msgspec.structs.replace(MODEL, device="cuda", dtype="float16")
    client.welcome = msgspec.structs.replace(client.welcome, model=on_gpu)
    async with stage(client, settings=WANTED) as running:
        await until(lambda: border(running), "the estimate")
        assert asked.requests[0].dtype == "float16"
        assert not running.screen.estimate.shortage
        client.emit(Heartbeat(rss_bytes=1, device_bytes=1, device_total_bytes=GIB // 4))
        await until(lambda: running.screen.estimate.shortage, "the device's memory")
        await generate(running)
        await until(lambda: "needs at least 1.0 GiB of memory, and the device has 256 MiB" in running.toasts(), "the warning")
        await running.finished()  # it is tried all the same


async def test_nothing_is_estimated_beside_a_job_or_where_it_is_not_wanted(asked: type[Asked]) -> None:
    async with stage(settings=Settings(inspect=Inspect(estimate=False))) as running:
        await set_field(running, "batch_size", "2")
        await generate(running)
        await running.finished()
        assert not asked.requests
    async with stage(settings=WANTED) as running:
        await until(lambda: border(running), "the first estimate")
        running.screen.running = "another"
        await set_field(running, "batch_size", "2")
        running.screen.estimate._ask()
        assert len(asked.requests) == 1
        running.screen.running = None
        await until(lambda: border(running) == "memory ≥ 2.0 GiB", "the estimate once that is over")


async def test_a_model_that_cannot_be_estimated_leaves_the_border_empty(asked: type[Asked]) -> None:
    async with stage(settings=Settings(general=General(model="broken"), inspect=Inspect(estimate=True))) as running:
        request = RunDry(request=0, model="broken")
        await running.screen.estimate._find(request)
        assert border(running) == ""
        assert asked.requests[-1:] == [request]


async def test_the_real_inspector_estimates_the_shipped_model() -> None:
    async with stage(settings=WANTED) as running:
        estimate = running.screen.estimate
        request = estimate.request()
        assert request is not None
        await estimate._find(request)
        assert estimate.need is not None
        assert estimate.need.weight_bytes == 4 * 10_937_755 + 8 * 77  # and the positions of CLIP's tokens
        assert estimate.need.weight_bytes < estimate.need.peak_bytes < GIB


async def test_f7_chooses_what_is_looked_at_and_keeps_it(home: Path) -> None:
    async with stage() as running:
        await running.pilot.press("f7")
        await until(lambda: isinstance(running.app.screen, Chooser), "the choices")
        assert "every module, and where the words act" in running.screen_text()
        await running.pilot.press("down", "down", "down", "enter")
        await until(lambda: border(running) == "looks at blocks and words", "what was chosen")
        await generate(running)
        await running.finished()
        (job,) = running.client.sent(Submit)
        assert (job.inspect, job.words) == ("blocks", True)
    kept = load_settings().inspect
    assert (kept.look, kept.words) == ("blocks", True)
    async with stage(settings=load_settings()) as running:
        assert border(running).startswith("looks at blocks and words")
        await running.pilot.press("f7", "home", "enter")
        await until(lambda: "looks at" not in border(running), "nothing is looked at")
        await running.pilot.press("f7", "end", "escape")
        await generate(running)
        await running.finished()
        job = running.client.sent(Submit)[-1]
        assert (job.inspect, job.words) == ("off", False)


async def test_settings_that_cannot_be_written_are_told_of(home: Path) -> None:
    path = settings.settings_path()
    path.parent.mkdir(parents=True)
    path.write_text("[general\n")
    async with stage() as running:
        await running.pilot.press("f7", "down", "enter")
        await until(lambda: "could not be written" in running.toasts(), "the reason")
        assert border(running) == "looks at words"  # for as long as this window is open
