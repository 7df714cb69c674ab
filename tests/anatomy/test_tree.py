"""The tree over a component's modules: what it finds is what paths say, whatever the names."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sdtui.anatomy.build import build_component
from sdtui.anatomy.order import depth_first
from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Component, Weight
from sdtui.anatomy.tree import ModuleTree, parent_path

NAMES = st.lists(st.text("a1.[\x1b", max_size=8), max_size=30, unique=True)


def component_of(names: list[str]) -> Component:
    """A component whose tensors have these names, each of two numbers in half precision."""
    tensors = []
    for name in names:
        module, _, tensor = name.rpartition(".")
        tensors.append((module, Weight(tensor, (2,), "F16", 4, key=name)))
    return build_component("any", tensors)


@settings(deadline=None)
@given(names=NAMES)
def test_every_tensor_is_in_the_tree_once_and_totals_add_up(names: list[str]) -> None:
    tree = ModuleTree(component_of(names))
    found = [weight.key for _, module in tree.walk() for weight in module.weights]
    assert sorted(found) == sorted(names)
    for module in tree.modules:
        below = tree.children(module.path)
        assert module.total_parameters == module.own_parameters + sum(child.total_parameters for child in below)
        assert module.bytes == 2 * module.total_parameters
    assert tree.root.total_parameters == 2 * len(names)


@settings(deadline=None)
@given(names=NAMES)
def test_parents_children_and_branches_agree_with_the_paths(names: list[str]) -> None:
    tree = ModuleTree(component_of(names))
    for module in tree.modules:
        children = tree.children(module.path)
        assert tree.has_children(module.path) == bool(children)
        assert [child.path for child in children] == [
            other.path for other in tree.modules if other.path and parent_path(other.path) == module.path
        ]
        for child in children:
            assert tree.parent(child.path) == module
            assert tree.ancestors(child.path)[-1] == module
        assert len(tree.branch(module.path)) == 1 + sum(len(tree.branch(child.path)) for child in children)
    assert [module for _, module in tree.walk()] == list(tree.modules)


@given(paths=st.lists(st.text("ab.", max_size=6)))
def test_depth_first_puts_each_path_right_behind_its_elder_relatives(paths: list[str]) -> None:
    found = depth_first(paths)
    assert found[0] == "" and len(set(found)) == len(found)
    assert set(paths) <= set(found)
    for index, path in enumerate(found[1:], 1):
        assert parent_path(path) in found[:index]


def test_modules_stand_as_the_forward_pass_meets_them_and_numbers_by_value() -> None:
    names = ["conv_out.weight", "up_blocks.0.x.weight", *(f"down_blocks.{n}.x.weight" for n in (10, 2, 0)), "conv_in.weight"]
    tree = ModuleTree(component_of([*names, "mid_block.x.weight"]))
    assert [module.path for module in tree.children("")] == ["conv_in", "down_blocks", "mid_block", "up_blocks", "conv_out"]
    assert [module.name for module in tree.children("down_blocks")] == ["0", "2", "10"]


def test_depth_is_counted_from_where_the_walk_begins() -> None:
    unet = open_anatomy("scenes-128").component("unet")
    assert unet
    tree = ModuleTree(unet)
    found = [(depth, module.path) for depth, module in tree.walk("mid_block", depth=1)]
    assert found == [(0, "mid_block"), (1, "mid_block.resnets"), (1, "mid_block.attentions")]
    assert list(tree.walk("nothing")) == [] and tree.children("nothing") == [] and tree.module("nothing") is None
    assert tree.nearest("mid_block.resnets.0.conv7.x").path == "mid_block.resnets.0"
    assert tree.nearest("nothing").path == ""
