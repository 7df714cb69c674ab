"""The Inspect screen: what it shows of a model, what each key does, and that large and hostile ones change nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Anatomy, Component, Module
from sdtui.server.inspector import Inspector
from sdtui.ui.bindings import own_bindings, unknown_ids
from sdtui.ui.commands import commands
from sdtui.ui.module_rows import columns_for, count_text, head_text, line_spans
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.screens import inspect_models
from sdtui.ui.screens.chooser import Chooser
from sdtui.ui.screens.inspect import InspectScreen
from sdtui.ui.screens.inspect_models import ModelSuggester
from sdtui.ui.widgets.module_page import page_spans
from sdtui.ui.widgets.module_tree import ModuleLines
from tests.anatomy.layouts import sd1, unet, write_sparse
from tests.ui.stage import Stage, stage, until

NASTY = "a [/] cat [bold red]x[/] \\[y] \u202ertl \x1b[31mred\x1b]0;title\x07 \x9b2J end"
SHOWN = "a [/] cat [bold red]x[/] \\[y] rtl red  end"
SMALL = {"channels": 32, "context": 64, "vae_channels": 32, "words": 100}
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


def inspect(running: Stage) -> InspectScreen:
    screen = running.app._made["inspect"]
    assert isinstance(screen, InspectScreen)
    return screen


async def open_inspect(running: Stage, source: str = "") -> InspectScreen:
    """Go to the screen, and open another model than the form's where one is named."""
    await running.pilot.press("alt+2")
    await until(lambda: isinstance(running.app.screen, InspectScreen) and inspect(running).outline is not None, "a model")
    screen = inspect(running)
    if source:
        await type_into(running, "o", source)
        await until(lambda: screen.source == source, source)
    await running.pilot.pause()
    return screen


async def type_into(running: Stage, key: str, text: str) -> None:
    """Press a key that asks for something, type it, and enter it."""
    await running.pilot.press(key)
    await until(lambda: running.app.focused is inspect(running).entry, "the line to type in")
    await running.type(text)
    await running.pilot.press("enter")
    await running.pilot.pause()


def names(screen: InspectScreen) -> list[str]:
    """The names of all lines, each behind a dot for each level."""
    outline = screen.outline
    assert outline
    return [f"{'.' * outline.depths[node]}{outline.name(node)}" for node in outline.lines]


def path(screen: InspectScreen) -> str:
    """The selected module's path."""
    assert screen.outline
    assert screen.tree_lines.selected is not None
    return screen.outline.path(screen.tree_lines.selected)


def notice(screen: InspectScreen) -> str:
    return str(screen.say.content)


def module(name: str, parameters: int = 1, **more: object) -> Module:
    return Module(path=name, own_parameters=parameters, total_parameters=parameters, bytes=4 * parameters, **more)  # type: ignore[arg-type]


def anatomy(*modules: Module, **more: object) -> Anatomy:
    whole = Component(name="unet", modules=(module("", 0), *modules))
    return Anatomy(source="x", kind="unet", components=(whole,), **more)  # type: ignore[arg-type]


# --- what is shown --------------------------------------------------------------------------------------------------


async def test_the_forms_model_is_shown_with_its_components_and_figures() -> None:
    async with stage(size=(200, 50)) as running:
        screen = await open_inspect(running)
        text = running.screen_text()
        assert "1 Create  2 Inspect  5 Queue" in text
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


# --- folding --------------------------------------------------------------------------------------------------------


async def test_arrows_and_enter_fold_and_unfold() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        before = names(screen)
        await running.pilot.press("down", "down")
        assert path(screen) == "unet.time_embedding"
        await running.pilot.press("right")
        assert names(screen)[2:5] == ["..time_embedding", "...linear_1", "...linear_2"]
        await running.pilot.press("right")
        assert path(screen) == "unet.time_embedding.linear_1"
        await running.pilot.press("right", "enter")
        assert path(screen) == "unet.time_embedding.linear_1"
        await running.pilot.press("left")
        assert path(screen) == "unet.time_embedding"
        await running.pilot.press("left")
        assert names(screen) == before
        await running.pilot.press("enter")
        assert "...linear_1" in names(screen)
        await running.pilot.press("space")
        assert names(screen) == before
        await running.pilot.press("left", "left", "left", "left")
        assert (path(screen), names(screen)) == ("scenes-128", ["scenes-128"])
        await running.pilot.press("left")
        assert path(screen) == "scenes-128"


async def test_a_branch_or_the_whole_model_is_unfolded_and_folded_again() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        assert screen.outline
        before = names(screen)
        await running.pilot.press("down", "down", "down", "down", "asterisk")
        assert path(screen) == "unet.down_blocks"
        assert "......conv1" in names(screen)
        assert "....linear_1" not in names(screen)
        await running.pilot.press("asterisk")
        assert names(screen) == before
        await running.pilot.press("A")
        assert screen.tree_lines.line_count == 1 + sum(len(part.modules) for part in screen.outline.anatomy.components)
        assert path(screen) == "unet.down_blocks"
        await running.pilot.press("A")
        assert [name for name in names(screen) if name.count(".") > 1] == []
        assert path(screen) == "unet"  # where the selected module went


async def test_a_click_selects_and_a_click_on_the_mark_folds() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.click("#module-lines", offset=(30, 4))
        await until(lambda: path(screen) == "unet.down_blocks", "selected")
        assert "...0" not in names(screen)
        await running.pilot.click("#module-lines", offset=(2, 4))
        await until(lambda: "...0" in names(screen), "unfolded")


async def test_ten_thousand_tensors_cost_no_widget_and_are_all_there(tmp_path: Path) -> None:
    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "norm")
    shapes = {f"blocks.{block}.{layer}.{part}.weight": (2, 2) for block in range(50) for layer in range(50) for part in parts}
    source = str(write_sparse(tmp_path / "big.safetensors", shapes))
    async with stage() as running:
        screen = await open_inspect(running, source)
        widgets = len(list(screen.query("*")))
        await running.pilot.press("A", "end")
        assert screen.tree_lines.line_count == 1 + 1 + 1 + 50 + 2500 * (1 + 1 + 4)
        assert len(list(screen.query("*"))) == widgets
        assert path(screen).endswith("blocks.49.49.attn.to_v")
        await until(lambda: "to_v" in running.screen_text(), "the last line is in view")
        await running.pilot.press("home")
        await until(lambda: "big.safetensors" in running.screen_text().splitlines()[3], "the first line is in view")


PATHS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), max_size=25)


def random_anatomy(paths: Iterable[str]) -> Anatomy:
    every = {".".join(path.split(".")[:end]) for path in paths for end in range(1, path.count(".") + 2)}
    return anatomy(
        *(module(path, len(path), class_name=path[-1].upper()) for path in sorted(every, key=lambda path: path.split(".")))
    )


@given(PATHS, st.lists(st.tuples(st.sampled_from(["fold", "all", "sort", "class", "reveal"]), st.integers(0, 50)), max_size=15))
def test_the_lines_are_what_is_unfolded_in_order(paths: list[str], doings: list[tuple[str, int]]) -> None:
    outline = Outline(random_anatomy(paths))
    count = len(outline.modules)
    for what, number in doings:
        line = number % len(outline.lines)
        match what:
            case "fold":
                outline.fold(line, folded=outline.is_unfolded(outline.lines[line]))
            case "all":
                outline.fold_all(outline.lines[line])
            case "sort":
                outline.sort((None, "name", "bytes", "parameters")[number % 4])
            case "class":
                outline.keep_class(("", "A", "B")[number % 3])
            case "reveal":
                outline.reveal(number % count)

        def expected(node: int) -> list[int]:
            below = [inner for child in outline.children(node) for inner in expected(child)] if outline.is_unfolded(node) else []
            return [node, *below]

        assert outline.lines == expected(MODEL)
        for node in outline.lines[1:]:
            parent = outline.parent(node)
            assert parent is not None
            assert outline.path(node).rpartition(".")[0] in (outline.path(parent), "" if outline.is_component(node) else None)
    outline.keep_class("")
    outline.sort(None)
    outline.unfold_keys([outline.key(node) for node in range(count)])
    assert outline.lines == list(range(count))


# --- finding, filter, order -----------------------------------------------------------------------------------------


async def test_a_search_goes_to_the_best_and_n_to_the_others_round_the_ends() -> None:
    async with stage(size=(120, 36)) as running:
        screen = await open_inspect(running)
        await running.pilot.press("slash")
        await running.type("conv_out")
        await until(lambda: notice(screen).startswith("1 of 3 found"), "hits")
        await running.pilot.press("enter")
        paths = [path(screen)]
        for _ in range(3):
            await running.pilot.press("n")
            paths.append(path(screen))
        assert paths == ["unet.conv_out", "vae.encoder.conv_out", "vae.decoder.conv_out", "unet.conv_out"]
        await running.pilot.press("N")
        assert path(screen) == "vae.decoder.conv_out"
        assert notice(screen) == "3 of 3 found"
        assert "conv_out" in running.screen_text()
        await running.pilot.press("escape")
        assert screen.hits == []
        await running.pilot.press("n")
        assert path(screen) == "vae.decoder.conv_out"


@pytest.mark.parametrize(
    ("words", "best"),
    [
        ("[4, 64, 3, 3]", "unet.conv_out"),
        ("BasicTransformer", "unet.down_blocks.0.attentions.0.transformer_blocks.0"),
        ("vae", "vae"),
        ("vae.decoder.conv_in", "vae.decoder.conv_in"),
        ("CLIPTok", "tokenizer"),
        ("timbed", "unet.time_embedding"),
    ],
)
def test_names_classes_shapes_and_components_are_found(words: str, best: str) -> None:
    outline = Outline(open_anatomy("scenes-128"))
    found = outline.find(words)
    assert found.best is not None
    assert outline.path(found.best) == best
    assert found.nodes == sorted(set(found.nodes))


def test_what_lies_in_a_module_that_is_found_is_not_found_once_more() -> None:
    outline = Outline(open_anatomy("scenes-128"))
    found = [outline.path(node) for node in outline.find("attn2").nodes]
    assert len(found) == 7
    assert {path.rpartition(".")[2] for path in found} == {"attn2"}
    found = [outline.path(node) for node in outline.find("attn2 to_k").nodes]
    assert {path.rpartition(".attn2.")[2] for path in found} == {"to_k"}
    found = [outline.modules[node] for node in outline.find("attention").nodes]
    assert all("attention" in each.name or "Attention" in each.class_name for each in found)
    assert [each for each in found if "Attention" in each.class_name] == [
        each for each in outline.modules if "Attention" in each.class_name
    ]


async def test_leaving_a_search_goes_back_to_where_it_began() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("down", "down", "slash")
        await running.type("to_q")
        await until(lambda: "to_q" in path(screen), "found")
        await running.pilot.press("escape")
        assert path(screen) == "unet.time_embedding"
        assert running.app.focused is screen.tree_lines
        await running.pilot.press("slash")
        await running.type("%%%")
        await until(lambda: "Nothing fits “%%%”" in notice(screen), "said")
        assert path(screen) == "unet.time_embedding"


async def test_only_modules_of_a_class_are_shown_with_what_holds_them() -> None:
    async with stage(size=(120, 50)) as running:
        screen = await open_inspect(running)
        await type_into(running, "slash", "conv_out")
        await until(lambda: screen.hits, "something that is left out then")
        before = names(screen)
        await running.pilot.press("f")
        await until(lambda: isinstance(running.app.screen, Chooser), "the classes")
        await running.pilot.pause()
        assert "every class" in running.screen_text()
        values = [value for value, _ in running.app.screen._choices]
        await running.pilot.press(*["down"] * values.index("Attention"), "enter")
        await until(lambda: screen.outline is not None and screen.outline.only_class == "Attention", "filtered")
        await running.pilot.pause()
        outline = screen.outline
        assert outline
        leaves = [node for node in outline.lines if not outline.children(node)]
        assert {outline.modules[node].class_name for node in leaves} == {"Attention"}
        wanted = sum(each.class_name == "Attention" for part in outline.anatomy.components for each in part.modules)
        assert len(leaves) == wanted
        assert "only Attention" in running.screen_text()
        assert screen.hits == []
        await running.pilot.press("escape")
        assert names(screen) == before


async def test_sorting_orders_what_stands_beside_each_other() -> None:
    async with stage(size=(120, 50)) as running:
        screen = await open_inspect(running)
        before = names(screen)
        await running.pilot.press("down", "down", "s")
        assert names(screen)[:7] == [
            "scenes-128",
            ".unet",
            "..up_blocks",
            "..mid_block",
            "..down_blocks",
            "..time_embedding",
            "..conv_in",
        ]
        assert path(screen) == "unet.time_embedding"
        assert "by parameters" in running.screen_text()
        await running.pilot.press("s", "s")
        assert names(screen)[2:5] == ["..conv_in", "..conv_norm_out", "..conv_out"]
        await running.pilot.press("s")
        assert names(screen) == before
        assert "as the model runs" in notice(screen)


# --- comparing ------------------------------------------------------------------------------------------------------


async def test_differences_from_another_model_are_marked_where_they_are(tmp_path: Path) -> None:
    shapes = unet(32, 64)
    one = str(write_sparse(tmp_path / "one.safetensors", shapes))
    changed = {name: shape for name, shape in shapes.items() if not name.startswith("time_embed.2")}
    changed["input_blocks.0.0.weight"] = (32, 9, 3, 3)
    changed["middle_block.9.extra.weight"] = (2, 2)
    other = str(write_sparse(tmp_path / "other.safetensors", changed))
    async with stage(size=(160, 40)) as running:
        screen = await open_inspect(running, one)
        await type_into(running, "D", other)
        await until(lambda: "3 differences in structure from" in notice(screen), "compared")
        told = {}
        for _ in range(3):
            told[path(screen)] = screen.page.text.splitlines()[0]
            await running.pilot.press("n")
            await running.pilot.pause()
        assert told == {
            "unet.time_embed.2": "≠ only here: unet.time_embedding.linear_2, 2 tensors",
            "unet.input_blocks.0.0": "≠ weight: [32, 4, 3, 3] here, [32, 9, 3, 3] there",
            "unet.middle_block": "≠ only there: unet.middle_block, 1 tensor",
        }
        await running.pilot.press("escape")
        assert not screen.page.text.startswith("≠")
        await type_into(running, "D", one)
        await until(lambda: "No difference in structure" in notice(screen), "the same")
        await type_into(running, "D", str(tmp_path / "none"))
        await until(lambda: "does not exist" in notice(screen), "said")


async def test_another_dtype_everywhere_does_not_hide_what_else_differs(tmp_path: Path) -> None:
    shapes = unet(32, 64)
    one = str(write_sparse(tmp_path / "one.safetensors", shapes))
    half = str(write_sparse(tmp_path / "half.safetensors", shapes, "F16"))
    wider = str(write_sparse(tmp_path / "wider.safetensors", shapes | {"input_blocks.0.0.weight": (32, 9, 3, 3)}, "F16"))
    async with stage(size=(160, 40)) as running:
        screen = await open_inspect(running, one)
        await type_into(running, "D", wider)
        told = f"1 difference in structure from {wider}, and {len(shapes) - 1} tensors of another dtype"
        await until(lambda: told in notice(screen), "compared")
        assert path(screen) == "unet.input_blocks.0.0"
        assert screen.page.text.startswith("≠ bias: F32 here, F16 there\n≠ weight: [32, 4, 3, 3] here, [32, 9, 3, 3] there\n")
        assert len(screen.hits) == 1
        await type_into(running, "D", half)
        told = f"No difference in structure from {half}, and {len(shapes)} tensors of another dtype"
        await until(lambda: told in notice(screen), "compared")
        assert path(screen) == "unet.time_embed.0"


# --- looking closer -------------------------------------------------------------------------------------------------


async def test_looking_closer_tells_exact_classes_shapes_and_work(monkeypatch) -> None:
    monkeypatch.setattr("tests.ui.stage.DEADLINE_S", 150.0)  # torch is imported in another process
    async with stage(size=(200, 60)) as running:
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
        for told in ("class       Conv2d\n", "input       [2, 4, 16, 16]", "output      [2, 64, 16, 16]", "padding"):
            assert told in screen.page.text
        assert f"work        {count_text(2 * 16 * 16 * 64 * 4 * 9)} multiply-adds" in screen.page.text
        await running.pilot.press("home")
        await until(lambda: "128×128 px, float16, with guidance" in screen.page.text, "the whole job")
        assert "973.5 M multiply-adds" in screen.page.text
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
        for kind in (InspectScreen, ModuleLines):
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
