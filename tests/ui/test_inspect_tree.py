"""The tree of the Inspect screen: folding, finding, filtering, sorting, comparing; large models change nothing."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Anatomy
from sdtui.bench.layouts import unet, write_sparse
from sdtui.checkpoint import safetensors_header
from sdtui.ui.outline import MODEL, Outline
from sdtui.ui.screens.chooser import Chooser
from tests.ui.inspecting import anatomy, module, names, notice, open_inspect, path, type_into
from tests.ui.scripted import WEIGHTS
from tests.ui.stage import stage, until

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


def change_first_number(path: Path, key: str) -> None:
    """Write a 2 there."""
    begin, _ = safetensors_header(path)[key]["data_offsets"]
    with path.open("r+b") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little") + begin)
        file.write(np.float32(2).tobytes())


async def test_numbers_are_compared_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.ui.stage.DEADLINE_S", 150.0)  # torch is imported in another process
    one = write_sparse(tmp_path / "one.safetensors", unet(32, 64))
    two = Path(shutil.copy(one, tmp_path / "two.safetensors"))
    change_first_number(two, "input_blocks.0.0.bias")
    async with stage(size=(160, 40)) as running:
        screen = await open_inspect(running, str(one))
        await running.pilot.press("W")
        assert "D compares with another model first" in notice(screen)
        await type_into(running, "D", str(two))
        await until(lambda: "W compares numbers" in notice(screen), "the structure")
        screen.tree_lines.go_to(1)
        await running.pilot.press("W")
        await until(lambda: "1 of" in notice(screen) and "have other numbers" in notice(screen), "the numbers", within_s=90)
        assert path(screen) == "unet.input_blocks.0.0"
        told = "≠ bias: changed from 0 to a norm of 2, a number at most by 2; 3.12 % of the numbers"
        assert screen.page.text.startswith(told)
        await running.pilot.press("W")  # of this module alone
        await until(lambda: "1 of 2 tensors of 0 have other numbers" in notice(screen), "the module's numbers")
        await asyncio.to_thread(two.unlink)
        await running.pilot.press("W")
        await until(lambda: "does not exist" in notice(screen), "the reason")


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


# --- a LoRA on the tree ---------------------------------------------------------------------------------------------


def write_lora(path: Path) -> str:
    """Two changes, one of which fits nothing in the shipped model, and a tensor that is no change."""
    arrays: dict[str, np.ndarray[Any, Any]] = {"strange [/]": np.zeros(2)}
    for name, inputs in (("mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 128), ("down_blocks_7_x", 3)):
        arrays[f"lora_unet_{name}.lora_down.weight"] = np.ones((2, inputs), np.float32)
        arrays[f"lora_unet_{name}.lora_up.weight"] = np.ones((192, 2), np.float32)
        arrays[f"lora_unet_{name}.alpha"] = np.array(1.0, np.float32)
    save_file(arrays, path)
    return str(path)


async def test_a_lora_marks_what_it_changes_and_says_what_fits_nothing(tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "lora.safetensors")
    async with stage(size=(160, 40)) as running:
        screen = await open_inspect(running)
        await type_into(running, "a", lora)
        await until(lambda: "2 changes, rank 2, made for " in notice(screen), "what the LoRA is")
        assert "; 2 fit nothing here: unet.down_blocks.7.x, strange [/]; n goes on" in notice(screen)
        assert path(screen) == "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
        assert screen.page.text.startswith("+ LoRA, rank 2, alpha 1, norm of the change 157\n")
        assert screen.hits == [screen.tree_lines.selected]
        await running.pilot.press("escape")
        assert not screen.hits and not screen.page.text.startswith("+")
        for other, said in (
            (str(WEIGHTS / "vae/diffusion_pytorch_model.safetensors"), "is no LoRA"),
            ("/no/lora", "does not exist"),
        ):
            await type_into(running, "a", other)
            await until(lambda said=said: said in notice(screen), said)  # type: ignore[misc]
