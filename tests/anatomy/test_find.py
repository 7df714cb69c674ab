"""Searching, filtering, sorting."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdtui.anatomy.build import build_component
from sdtui.anatomy.find import Finder, Hit, classes, in_order, of_class, step
from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Component, Weight


@pytest.fixture(scope="module")
def unet() -> Component:
    """The shipped U-Net."""
    found = open_anatomy("scenes-128").component("unet")
    assert found
    return found


def found_paths(component: Component, query: str) -> list[str]:
    return [component.modules[hit.place].path for hit in Finder(component).find(query)]


def test_a_part_of_a_name_finds_all_that_have_it(unet: Component) -> None:
    assert found_paths(unet, "ATTN2") == [module.path for module in unet.modules if "attn2" in module.path]
    assert found_paths(unet, "attn2 mid_block to_q") == ["mid_block.attentions.0.transformer_blocks.0.attn2.to_q"]


def test_the_module_of_that_name_is_the_best_hit(unet: Component) -> None:
    best = Finder(unet).best("attn2", limit=3)
    assert len(best) == 3 and all(unet.modules[hit.place].name == "attn2" for hit in best)
    assert unet.modules[Finder(unet).best("mid_block")[0].place].path == "mid_block"


def test_classes_and_shapes_are_found(unet: Component) -> None:
    convolutions = found_paths(unet, "conv2d")
    assert convolutions == [module.path for module in of_class(unet.modules, "Conv2d")]
    assert found_paths(unet, "[64, 4, 3, 3]") == found_paths(unet, "64x4x3x3") == ["conv_in"]
    assert found_paths(unet, "[4, down") == []
    begin_with_64 = found_paths(unet, "[64,")
    assert begin_with_64 == [m.path for m in unet.modules if any(w.shape[0] == 64 and len(w.shape) > 1 for w in m.weights)]


def test_characters_in_order_find_what_no_word_finds(unet: Component) -> None:
    best = Finder(unet).best("dnblk0attn")
    assert best[0].score < best[-1].score and unet.modules[best[0].place].path == "down_blocks.0.attentions"
    assert found_paths(unet, "zzz") == found_paths(unet, "") == found_paths(unet, "[") == []


def test_next_and_previous_go_round_the_ends() -> None:
    hits = [Hit(0, 5), Hit(2, 9), Hit(1, 7)]
    assert [step(hits, place) for place in (0, 5, 6, 9)] == [5, 7, 7, 5]
    assert [step(hits, place, forward=False) for place in (10, 9, 5, 0)] == [9, 7, 9, 9]
    assert step([], 3) is None


def test_modules_are_sorted_and_counted(unet: Component) -> None:
    blocks = [module for module in unet.modules if module.path.count(".") == 0 and module.path]
    by_parameters = in_order(blocks, "parameters")
    assert [module.path for module in by_parameters[:3]] == ["up_blocks", "mid_block", "down_blocks"]
    assert in_order(blocks, "bytes") == by_parameters, "all weights are of one dtype"
    assert [module.path for module in in_order(blocks, "name")] == sorted(module.path for module in blocks)
    assert in_order(blocks, None) == blocks
    counts = classes(unet.modules)
    assert counts["Conv2d"] == len(of_class(unet.modules, "conv2D")) and next(iter(counts)) == max(counts, key=counts.__getitem__)


NAMES = st.lists(st.text("ab1._[", min_size=1, max_size=10), min_size=1, max_size=15, unique=True)


@settings(deadline=None)
@given(names=NAMES, query=st.text("ab1._[, ", max_size=6))
def test_whatever_is_asked_the_hits_hold_every_word(names: list[str], query: str) -> None:
    tensors = [(name.rpartition(".")[0], Weight("w", (2, 3), "F16", 12, key=name)) for name in names]
    component = build_component("any", tensors)
    hits = Finder(component).find(query)
    assert [hit.place for hit in hits] == sorted({hit.place for hit in hits})
    for hit in hits:
        module = component.modules[hit.place]
        text = f"{module.path} {module.class_name} {' '.join('[2,3]' for _ in module.weights)}".lower()
        for word in query.replace(", ", ",").split():
            rest = iter(text)
            assert all(character in rest for character in word)
    for place, module in enumerate(component.modules):
        if module.path:
            assert place in [hit.place for hit in Finder(component).find(module.path)]
