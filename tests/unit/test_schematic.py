"""The schematic's boxes: which there are, where they stand, what is written in them."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Anatomy, Component, Module
from sdtui.bench.layouts import sd1, write_sparse
from sdtui.ui.module_rows import columns_for, head_text
from sdtui.ui.outline import Outline
from sdtui.ui.schematic_heat import Heat
from sdtui.ui.schematic_layout import Words, box_line, lay_out
from sdtui.ui.schematic_plan import Block, Part, Plan, drawable, plan_of, shown_component

SHIPPED = "scenes-128"


@pytest.fixture(scope="module")
def shipped() -> Outline:
    return Outline(open_anatomy(SHIPPED))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Outline:
    """A checkpoint in the layout of the first release, whose blocks are no modules."""
    return Outline(open_anatomy(str(write_sparse(tmp_path_factory.mktemp("sd") / "sd.safetensors", sd1()))))


def planned(outline: Outline, component: str) -> Plan:
    root = outline.find_key((component, ""))
    assert root is not None
    plan = plan_of(outline, root)
    assert plan is not None
    return plan


def letters(plan: Plan) -> dict[str, str]:
    return {block.name: "".join(part.letter for part in block.parts) for block in plan.blocks}


# --- which boxes ------------------------------------------------------------------------------------------------------


def test_a_unet_goes_down_at_the_left_and_up_at_the_right_with_skips_between(shipped: Outline) -> None:
    plan = planned(shipped, "unet")
    assert letters(plan) == {
        "conv in": "", "down 0": "RA↓", "down 1": "RA↓", "down 2": "R", "mid": "RAR",
        "up 0": "RR↑", "up 1": "RARA↑", "up 2": "RARA", "conv out": "",
    }  # fmt: skip
    rows = {block.name: (block.side, block.row) for block in plan.blocks}
    assert rows["down 0"] == ("left", 1)
    assert rows["up 2"] == ("right", 1)
    assert rows["mid"] == ("middle", 4)
    names = [(plan.blocks[one].name, plan.blocks[other].name) for one, other in plan.skips]
    assert names == [("down 0", "up 2"), ("down 1", "up 1"), ("down 2", "up 0")]
    assert [block.channels for block in plan.blocks] == [64, 64, 128, 192, 192, 192, 128, 64, 4]


def test_resolutions_halve_with_each_downsampler_by_the_configuration(shipped: Outline) -> None:
    plan = planned(shipped, "unet")
    heat = Heat(shipped, plan, "parameters")
    assert [heat.resolution(block) for block in plan.blocks[1:5]] == ["16×16", "8×8", "4×4", "4×4"]


def test_a_checkpoint_in_the_first_layout_has_the_same_boxes(original: Outline) -> None:
    plan = planned(original, "unet")
    assert letters(plan)["up 1"] == "RARARA↑"
    assert [block.channels for block in plan.blocks[1:5]] == [320, 640, 1280, 1280]
    heat = Heat(original, plan, "parameters")
    assert [heat.resolution(block) for block in plan.blocks[1:4]] == ["1/1", "1/2", "1/4"]
    parts = [original.modules[part.node].total_parameters for part in plan.blocks[1].parts]
    assert heat.blocks[1] == sum(parts)


def test_a_vae_is_a_u_whose_sides_meet_at_the_latents(shipped: Outline) -> None:
    plan = planned(shipped, "vae")
    assert [block.name for block in plan.blocks if block.row == plan.rows - 1] == ["to latents", "from latents"]
    assert plan.skips == ()
    assert [block.side for block in plan.blocks] == ["left"] * 7 + ["right"] * 7


def test_a_text_encoder_is_a_stack_with_a_cell_for_each_layer(shipped: Outline, original: Outline) -> None:
    assert letters(planned(shipped, "text_encoder")) == {"embeddings": "EE", "encoder.layers": "LL", "final_layer_norm": ""}
    assert letters(planned(original, "text_encoder"))["text_model.encoder.layers"] == "L" * 12


def transformer() -> Outline:
    paths = ["", "x_embedder", "transformer_blocks", *(f"transformer_blocks.{number}" for number in range(40)), "proj_out"]
    modules = tuple(Module(path=path, class_name="X", total_parameters=len(path)) for path in paths)
    return Outline(Anatomy(source="x", kind="transformer", components=(Component(name="transformer", modules=modules),)))


def test_a_transformer_flows_and_its_blocks_are_cells() -> None:
    plan = planned(transformer(), "transformer")
    assert [(block.name, len(block.parts)) for block in plan.blocks] == [
        ("x_embedder", 0),
        ("transformer_blocks", 40),
        ("proj_out", 0),
    ]


def test_what_is_no_network_has_no_boxes_and_the_model_shows_its_denoiser(shipped: Outline) -> None:
    scheduler = shipped.find_key(("scheduler", ""))
    assert scheduler is not None
    assert plan_of(shipped, scheduler) is None
    assert shown_component(shipped, 0) == shipped.find_key(("unet", ""))
    assert [shipped.name(root) for root in drawable(shipped)] == ["unet", "vae", "text_encoder"]


@pytest.mark.parametrize(
    ("path", "box"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", "down 1"),
        ("mid_block", "mid"),
        ("conv_in", "conv in"),
        ("time_embedding.linear_1", None),
        ("", None),
    ],
)
def test_the_box_that_holds_a_module_is_found(shipped: Outline, path: str, box: str | None) -> None:
    plan = planned(shipped, "unet")
    node = shipped.find_key(("unet", path))
    assert node is not None
    owner = plan.owner(shipped, node)
    assert (plan.blocks[owner].name if owner is not None else None) == box


# --- where they stand -------------------------------------------------------------------------------------------------


def drawn(outline: Outline, plan: Plan, width: int, height: int) -> list[str]:
    """The lines of the schematic; fails where something lies over something else, or outside."""
    layout = lay_out(plan, width, height)
    canvas = [[" "] * width for _ in range(layout.height)]
    heat = Heat(outline, plan, "parameters")

    def put(x: int, y: int, text: str) -> None:
        assert x >= 0
        assert x + len(text) <= width
        assert not "".join(canvas[y][x : x + len(text)]).strip()
        canvas[y][x : x + len(text)] = text

    for y, wires in layout.wires.items():
        for wire in wires:
            put(wire.x, y, wire.text)
    for box in layout.boxes:
        for dy in range(box.height):
            pieces = box_line(plan.blocks[box.number], box, dy, heat.words(box.number), marked=False)
            text = "".join(piece.text for piece in pieces)
            assert cell_len(text) == box.width
            put(box.x, box.y + dy, text)
    return ["".join(line) for line in canvas]


@pytest.mark.parametrize("size", [(20, 5), (40, 11), (75, 11), (90, 30), (133, 51), (300, 100)])
@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_boxes_and_wires_lie_beside_each_other_at_every_size(
    shipped: Outline, original: Outline, component: str, size: tuple[int, int]
) -> None:
    for outline in (shipped, original):
        drawn(outline, planned(outline, component), *size)


def test_a_unet_of_sd_fits_the_smallest_terminal_with_names_sizes_and_cells(original: Outline) -> None:
    lines = drawn(original, planned(original, "unet"), 75, 11)
    assert len(lines) <= 11
    down = next(line for line in lines if "down 2" in line)
    assert "1/4 · 1280" in down
    assert "RARA↓" in down
    assert "RARARA↑" in down
    assert "▶" in down


def test_a_large_terminal_is_used_with_boxes_of_several_lines(shipped: Outline) -> None:
    lines = drawn(shipped, planned(shipped, "unet"), 133, 51)
    assert len(lines) > 25
    text = "\n".join(lines)
    assert "CrossAttnDownBlock2D" in text
    assert " R   A   ↓ " in text


def test_where_not_even_flat_boxes_fit_the_schematic_is_higher_than_its_window() -> None:
    paths = ["", *(f"part{number}" for number in range(30))]
    modules = tuple(Module(path=path) for path in paths)
    outline = Outline(Anatomy(source="x", kind="weights", components=(Component(name="net", modules=modules),)))
    assert lay_out(planned(outline, "net"), 60, 10).height >= 30


@pytest.mark.parametrize("width", [12, 20, 28, 46, 92])
@pytest.mark.parametrize("height", [1, 3, 4])
def test_a_box_is_exactly_as_wide_as_it_is_whatever_is_in_it(width: int, height: int) -> None:
    from sdtui.ui.schematic_layout import Box

    name = "a [/] 猫の\x1b[31m long name that goes on and on and on, and on and on and on, and on"
    block = Block(name, 0, tuple(Part(number, "R") for number in range(30)), "left", 0, 64, 0)
    for dy in range(height):
        pieces = box_line(block, Box(0, 0, 0, width, height), dy, Words("1024×1024 · 1280", "123.4 ms", "猫" * 40), marked=True)
        text = "".join(piece.text for piece in pieces)
        assert cell_len(text) == width
        assert "\x1b" not in text


# --- columns of the live tree -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [30, 40, 60, 74, 100, 134])
def test_the_columns_of_what_modules_did_fit_and_leave_room_for_names(width: int) -> None:
    columns = columns_for(width, live=True)
    assert cell_len(head_text(columns)) == width
    assert columns[0].width >= min(28, width)


def test_the_smallest_terminal_shows_output_and_time() -> None:
    titles = [column.title for column in columns_for(74, live=True)]
    assert titles[:3] == ["module", "output", "ms"]
