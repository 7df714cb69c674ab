"""The Inspect screen: what it shows of which model, what is wrong with one, and looking closer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Anatomy
from sdtui.bench.layouts import sd1, write_sparse
from sdtui.server.inspector import Inspector
from sdtui.ui.bindings import own_bindings, unknown_ids
from sdtui.ui.commands import commands
from sdtui.ui.module_rows import columns_for, count_text, head_text, line_spans
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.screens import inspect_models
from sdtui.ui.screens.inspect import InspectScreen
from sdtui.ui.screens.inspect_models import ModelSuggester
from sdtui.ui.widgets.module_page import page_spans
from sdtui.ui.widgets.module_tree import ModuleLines
from sdtui.ui.widgets.schematic import Schematic
from tests.ui.inspecting import NASTY, SHOWN, SMALL, anatomy, module, names, notice, open_inspect, path, type_into
from tests.ui.stage import stage, until

STARTS = """
import asyncio, sys
from sdtui.settings import Settings
from sdtui.ui.app import SdtuiApp
from tests.ui.scripted import ScriptedClient
from tests.ui.stage import stage, until

PARTS = ("sdtui.anatomy.read", "sdtui.anatomy.tree", "sdtui.ui.screens.inspect", "sdtui.ui.outline", "sdtui.ui.module_rows")

async def main():
    async with stage() as running:
        early = [name for name in sys.modules if name.startswith(PARTS)]
        await running.pilot.press("alt+2")
        await until(lambda: getattr(running.app.screen, "outline", None) is not None)
        heavy = [name for name in ("torch", "diffusers", "transformers", "safetensors") if name in sys.modules]
        print("early:", early, "heavy:", heavy)

asyncio.run(main())
"""


# --- what is shown --------------------------------------------------------------------------------------------------


async def test_the_forms_model_is_shown_with_its_components_and_figures() -> None:
    async with stage(size=(200, 50)) as running:
        screen = await open_inspect(running)
        text = running.screen_text()
        assert "1 Create  2 Inspect  3 Timeline  5 Queue" in text
        assert [name for name in names(screen) if name.count(".") == 1] == [
            ".unet", ".vae", ".text_encoder", ".tokenizer", ".scheduler",
        ]  # fmt: skip
        line = next(line for line in text.splitlines() if "▾ unet" in line)
        assert "UNet2DConditionModel" in line
        assert "8.8 M" in line
        assert "F16" in line
        line = next(line for line in text.splitlines() if "conv_in" in line)
        assert "[64, 4, 3, 3] [64]" in line
        assert "pipeline · 10.9 M parameters · 21 MiB" in text
        assert "10,937,755 (10.9 M)" in screen.page.text


async def test_the_page_says_all_of_a_module_and_of_a_component() -> None:
    async with stage(size=(200, 50)) as running:
        screen = await open_inspect(running)
        outline = screen.outline
        assert outline
        screen.tree_lines.go_to(outline.find_key(("unet", "conv_in")) or 0)
        await until(lambda: screen.page.text.startswith("unet.conv_in\n"), "the page")
        for told in ("class       Conv2d (guessed)", "parameters  2,368", "kernel", "3x3", "weight [64, 4, 3, 3] F16 5 kB"):
            assert told in screen.page.text
        assert "weight [64, 4, 3, 3] F16 5 kB" in running.screen_text()
        screen.tree_lines.go_to(outline.find_key(("unet", "")) or 0)
        await until(lambda: "UNet2DConditionModel" in screen.page.text, "the component's page")
        for told in (
            "80.35 % of the model",
            "cross_attention_dim",
            "holds       295 modules",
            "1 file",
            "diffusion_pytorch_model",
        ):
            assert told in screen.page.text


async def test_the_family_is_told_with_how_sure_it_is(tmp_path: Path) -> None:
    source = str(write_sparse(tmp_path / "model.safetensors", sd1()))
    async with stage(size=(160, 40)) as running:
        screen = await open_inspect(running, source)
        assert "checkpoint · SD 1.x, 95 % sure · 1.1 G parameters" in running.screen_text()
        assert "family      SD 1.x, 95 % sure" in screen.page.text
        assert "told by     cross-attention reads text that is 768 wide" in screen.page.text


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (40, 12), (20, 5), (1, 1)])
async def test_every_size_shows_what_fits_and_nothing_overlaps(size: tuple[int, int]) -> None:
    async with stage(size=size) as running:
        screen = await open_inspect(running)
        await running.pilot.press("down", "A", "end", "slash", "escape", "f1", "escape")
        if size[0] >= 80:
            tree, page = screen.box.region, screen.page.region
            assert not tree.intersection(page).area
            assert tree.height > 8
            assert page.height > 5
            assert max(tree.right, page.right) <= size[0]
            assert "unet" in running.screen_text() or "scheduler" in running.screen_text()
        await running.pilot.resize_terminal(120, 36)
        await until(lambda: "scheduler" in running.screen_text(), "shown when there is room")


@pytest.mark.parametrize("width", range(1, 260, 7))
def test_a_line_is_never_wider_than_its_columns(width: int) -> None:
    outline = Outline(open_anatomy("scenes-128"))
    outline.fold_all(MODEL)
    columns = columns_for(width)
    room = sum(column.width + 2 for column in columns) - 2
    assert room <= max(width, 1)
    assert len(head_text(columns)) == room
    for node in outline.lines:
        assert len("".join(text for text, _ in line_spans(outline, node, columns))) <= room + 8  # a mark and its fold
        assert len("".join(text for text, _ in line_spans(outline, node, columns))) <= room or width < 30


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1_000, "1.0 k"), (999_960, "1.0 M"), (859_520_964, "859.5 M"), (12_100_000_000, "12.1 G")],
)
def test_counts_are_short(count: int, text: str) -> None:
    assert count_text(count) == text


# --- which model ----------------------------------------------------------------------------------------------------


async def test_the_tree_follows_the_form_and_keeps_what_was_unfolded(tmp_path: Path) -> None:
    other = str(write_sparse(tmp_path / "other.safetensors", sd1(**SMALL)))
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("end", "up", "up", "asterisk")
        before, selected = names(screen), path(screen)
        assert selected == "text_encoder"
        await running.pilot.press("alt+1")
        running.screen.form.row("model").text = other
        await running.pilot.press("alt+2")
        await until(lambda: screen.source == other, "the form's new model")
        assert names(screen)[0] == "other.safetensors"
        await running.pilot.press("alt+1")
        running.screen.form.row("model").text = "scenes-128"
        await running.pilot.press("alt+2")
        await until(lambda: screen.source == "scenes-128", "the first model again")
        await running.pilot.pause()
        assert (names(screen), path(screen)) == (before, selected)


async def test_a_model_that_was_typed_stays_until_the_form_names_another(tmp_path: Path, monkeypatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(inspect_models, "open_anatomy", lambda source: [read.append(source), open_anatomy(source)][1])
    other = str(write_sparse(tmp_path / "other.safetensors", sd1(**SMALL)))
    async with stage() as running:
        screen = await open_inspect(running, other)
        await running.pilot.press("alt+1")
        await until(lambda: not isinstance(running.app.screen, InspectScreen), "Create")
        await running.pilot.press("alt+2")
        await until(lambda: running.app.screen is screen, "Inspect")
        await running.pilot.pause()
        running.screen.form.row("model").text = "scenes-128 "
        await running.pilot.press("alt+1", "alt+2", "r")
        await until(lambda: len(read) == 3, "read again by the key")
        assert read == ["scenes-128", other, other]
        assert screen.source == other


async def test_reading_the_files_again_shows_what_is_there_now(tmp_path: Path) -> None:
    file = write_sparse(tmp_path / "m.safetensors", {"conv_in.weight": (4, 4, 3, 3), "mid_block.a.weight": (2, 2)})
    async with stage() as running:
        screen = await open_inspect(running, str(file))
        await running.pilot.press("A", "end")
        assert names(screen)[-1] == "...a"
        write_sparse(file, {"mid_block.a.weight": (2, 2), "mid_block.b.weight": (2, 2)})
        first = screen.outline
        await running.pilot.press("r")
        await until(lambda: screen.outline is not first, "read again")
        assert names(screen)[-3:] == ["..mid_block", "...a", "...b"]
        assert path(screen).endswith("mid_block.a")


async def test_a_model_is_taken_apart_in_a_thread(monkeypatch) -> None:
    seen: list[threading.Thread] = []

    def read(source: str) -> Anatomy:
        seen.append(threading.current_thread())
        return open_anatomy(source)

    monkeypatch.setattr(inspect_models, "open_anatomy", read)
    async with stage() as running:
        await open_inspect(running)
    assert len(seen) == 1
    assert seen[0] is not threading.main_thread()


def test_nothing_of_it_is_imported_before_it_is_opened_and_torch_never() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTS], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip().endswith("early: [] heavy: []")


async def test_known_models_and_paths_are_completed(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "notes.txt").touch()
    (tmp_path / "models" / "\x1b[31mred.safetensors").touch()
    (tmp_path / "models" / "sd.safetensors").touch()
    complete = ModelSuggester().get_suggestion
    assert await complete("sce") == "scenes-128"
    assert await complete("nothing-like-it") is None
    assert await complete(f"{tmp_path}/mo") == f"{tmp_path}/models/"
    assert await complete(f"{tmp_path}/models/s") == f"{tmp_path}/models/sd.safetensors"
    assert await complete(f"{tmp_path}/models/n") is None
    assert await complete(f"{tmp_path}/models/\x1b") is None
    assert await complete(f"{tmp_path}/no such folder/x") is None
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("o")
        await running.type("scen")
        await until(lambda: screen.entry._suggestion == "scenes-128", "the suggestion")
        await running.pilot.press("right")
        assert screen.entry.value == "scenes-128"


# --- what is wrong --------------------------------------------------------------------------------------------------


async def test_what_cannot_be_opened_is_one_line_and_the_tree_stays(tmp_path: Path) -> None:
    pickle = tmp_path / "evil.ckpt"
    pickle.write_bytes(b"\x80\x04\x95" + bytes(100))
    cut = write_sparse(tmp_path / "cut.safetensors", {"a.weight": (64, 64)})
    with cut.open("r+b") as file:
        file.truncate(cut.stat().st_size - 1)
    async with stage(size=(200, 40)) as running:
        screen = await open_inspect(running)
        before = names(screen)
        for source, fault in (
            (pickle, "it can run any code when it is read"),
            (cut, "truncated"),
            (tmp_path / "none", "not exist"),
        ):
            await type_into(running, "o", str(source))
            await until(lambda fault=fault: fault in notice(screen), fault)
            assert "\n" not in notice(screen)
            await running.pilot.pause()
            assert fault in running.screen_text()
            assert names(screen) == before
            assert screen.source == "scenes-128"


async def test_a_reader_that_fails_is_said_and_ends_nothing(monkeypatch) -> None:
    async with stage(size=(120, 36)) as running:
        screen = await open_inspect(running)

        def fail(source: str) -> Anatomy:
            raise RecursionError("a [/] fault")

        monkeypatch.setattr(inspect_models, "open_anatomy", fail)
        await type_into(running, "o", "scenes-128")
        await until(lambda: "scenes-128 cannot be shown: RecursionError a [/] fault" in notice(screen), "said")
        assert running.app.is_running


async def test_problems_are_marked_on_the_way_to_them_and_told_at_the_module(tmp_path: Path) -> None:
    shapes = {
        "mid_block.a.weight": (4, 4),
        "mid_block.a.bias": (3,),
        "mid_block.b.weight": (4, 4),
        "conv_in.weight": (4, 4, 3, 3),
    }
    source = str(write_sparse(tmp_path / "odd.safetensors", shapes))
    async with stage(size=(160, 36)) as running:
        screen = await open_inspect(running, source)
        fault = "weight has 4 outputs, and bias the shape [3]"
        assert f"mid_block.a: {fault}" in notice(screen)
        lines = running.screen_text().splitlines()
        assert any("mid_block !" in line for line in lines)
        assert not any("conv_in !" in line for line in lines)
        outline = screen.outline
        assert outline
        screen.tree_lines.go_to(next(node for node in range(len(outline.modules)) if outline.name(node) == "a"))
        await until(lambda: f"! {fault}" in screen.page.text, "told at the module")


async def test_hostile_names_are_plain_text_everywhere(tmp_path: Path) -> None:
    long = "x" * 900
    shapes = {f"{NASTY}.weight": (4, 4), f"{long}.weight": (4, 4), f"mid_block.{NASTY}": (3,)}
    source = str(write_sparse(tmp_path / f"{SHOWN.replace('/', '')}.safetensors", shapes, **{NASTY: NASTY * 100}))
    async with stage(size=(240, 60)) as running:
        screen = await open_inspect(running, source)
        await running.pilot.press("A")
        for _ in names(screen):
            await running.pilot.press("down")
            await running.pilot.pause()
            assert running.screen_text().replace("\n", "").isprintable()
            assert screen.page.text.replace("\n", "").isprintable()
            if path(screen) == f"weights.{NASTY}":
                assert SHOWN in running.screen_text()
                assert f"weights.{SHOWN}" in screen.page.text
                await running.pilot.press("y")
                assert running.app.clipboard == f"weights.{SHOWN}"
        await type_into(running, "slash", "[bold red]")
        assert "of" in notice(screen)
        assert notice(screen).isprintable()


async def test_pasted_text_cannot_act_on_the_terminal() -> None:
    from textual.events import Paste

    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("o")
        screen.entry.post_message(Paste(f" {NASTY}\nsecond"))
        await until(lambda: screen.entry.value, "pasted")
        assert screen.entry.value == f"{SHOWN} second"


def test_any_settings_weights_and_problems_make_a_page() -> None:
    hostile = module("a", settings={NASTY: NASTY * 50}, problems=(NASTY,), class_name=NASTY)
    outline = Outline(anatomy(hostile, problems=(NASTY,), family=NASTY, why=NASTY, metadata={NASTY: NASTY}))
    for node in range(len(outline.modules)):
        text = "".join(text for text, _ in page_spans(outline, node))
        assert text.replace("\n", "").isprintable()
        assert SHOWN in text or node == 1


# --- looking closer -------------------------------------------------------------------------------------------------


async def test_looking_closer_tells_exact_classes_shapes_and_work(monkeypatch) -> None:
    monkeypatch.setattr("tests.ui.stage.DEADLINE_S", 150.0)  # torch is imported in another process
    async with stage(size=(200, 60)) as running:
        running.screen.form.fill({"width": "256", "batch_size": "3"})
        screen = await open_inspect(running)
        first = screen.outline
        assert first
        screen.tree_lines.go_to(first.find_key(("unet", "conv_in")) or 0)
        unfolded = names(screen)
        await running.pilot.press("t")
        assert "Building the classes" in notice(screen)
        await until(lambda: screen.outline is not first, "exact classes")
        await until(lambda: "in one forward" in screen.page.text, "the page")
        assert path(screen) == "unet.conv_in"
        assert set(unfolded) <= set(names(screen))
        for told in ("class       Conv2d\n", "input       [6, 4, 16, 32]", "output      [6, 64, 16, 32]", "padding"):
            assert told in screen.page.text
        assert f"work        {count_text(6 * 16 * 32 * 64 * 4 * 9)} multiply-adds" in screen.page.text
        await running.pilot.press("home")
        await until(lambda: "256×128 px, 3 pictures, float32, with guidance" in screen.page.text, "the whole job")
        assert "Classes are exact now" in notice(screen)
        await running.pilot.press("r")
        await until(lambda: screen.dry_run is None, "from the files again")
        assert screen._inspector is not None
    assert screen._inspector.pid is None


async def test_an_inspector_that_dies_is_said_and_the_tree_stays(monkeypatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.buffer.read(1); sys.stderr.write('a [/] fault\\n')"]
    monkeypatch.setattr("sdtui.server.inspector.Inspector", partial(Inspector, command))
    async with stage(size=(160, 36)) as running:
        screen = await open_inspect(running)
        before = screen.outline
        await running.pilot.press("t")
        await until(lambda: "The inspector ended. Its log ends with: a [/] fault" in notice(screen), "said")
        assert screen.outline is before


async def test_leaving_while_the_inspector_is_asked_waits_for_nothing(monkeypatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.buffer.read()"]
    monkeypatch.setattr("sdtui.server.inspector.Inspector", partial(Inspector, command))
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("t")
        await until(lambda: screen._inspector is not None and screen._inspector.pid is not None, "asked")
        inspector = screen._inspector
    assert inspector is not None
    assert inspector.pid is None


# --- keys -----------------------------------------------------------------------------------------------------------


async def test_every_key_has_an_id_is_in_the_help_and_in_the_palette() -> None:
    async with stage() as running:
        await open_inspect(running)
        offered = [command.help for command in commands(running.app, running.app.screen, running.app._settings)]
        assert any("Find by name, class or shape (/)" in text for text in offered)
        assert not any("The next that was found" in text for text in offered)  # nothing was searched for
        await running.pilot.press("f1")
        await until(lambda: len(running.app.screen_stack) == 2, "help")
        text = str(running.app.screen.query_one("#help-box Static").content)
        ids = []
        for kind in (InspectScreen, ModuleLines, Schematic):
            assert len(own_bindings(kind)) == len(vars(kind)["BINDINGS"]), f"a key of {kind.__name__} has no id"
            for binding in own_bindings(kind):
                ids.append(binding.id or "")
                assert binding.tooltip
                assert binding.tooltip in text
        assert len(ids) == len(set(ids))
        assert unknown_ids(dict.fromkeys(ids, "f12")) == []


async def test_what_is_impossible_now_is_dim() -> None:
    async with stage() as running:
        screen = await open_inspect(running)

        def enabled() -> set[str]:
            return {entry.binding.id for entry in screen.active_bindings.values() if entry.enabled and entry.binding.id}

        assert "inspect.next" not in enabled()
        assert {"inspect.find", "inspect.sort", "inspect.class", "inspect.compare", "inspect.copy"} <= enabled()
        await type_into(running, "slash", "conv")
        await until(lambda: "inspect.next" in enabled(), "something was found")
        screen.outline = None
        screen.refresh_bindings()
        assert "inspect.find" not in enabled()
        assert "inspect.open" in enabled()


async def test_a_refused_pickle_is_read_on_request(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.ui.stage.DEADLINE_S", 150.0)  # torch is imported in another process
    path = tmp_path / "v1.ckpt"
    write = "import sys, torch; torch.save({'state_dict': {'down.a.weight': torch.zeros(2, 3)}}, sys.argv[1])"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", write, str(path)], check=True)
    async with stage(size=(160, 36)) as running:
        screen = await open_inspect(running)
        before = screen.outline
        await type_into(running, "o", str(path))
        await until(lambda: "X reads its shapes, and runs no code of it" in notice(screen), "the offer")
        assert screen.outline is before
        await running.pilot.press("X")
        await until(lambda: screen.source == str(path), "the pickle's tree")
        assert "read with weights_only" in notice(screen)
        await running.pilot.press("A")
        assert "...a" in names(screen) and screen.outline and screen.outline.anatomy.parameters == 6
