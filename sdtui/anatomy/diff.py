"""What differs in structure between two models: modules that only one has, and tensors of other shapes or dtypes."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from sdtui.anatomy.layout import in_diffusers
from sdtui.anatomy.structs import Anatomy, Component, Weight
from sdtui.anatomy.tree import parent_path

What = Literal["only left", "only right", "class", "shape", "dtype"]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs, at a module; a branch that one side lacks is one difference, with all its tensors counted."""

    component: str
    path: str
    """As diffusers calls it."""
    what: What
    name: str = ""
    """The tensor's; empty for a whole branch."""
    left: str = ""
    right: str = ""
    tensors: int = 1


_Tensors = dict[str, dict[str, Weight]]
"""Each module's tensors by name."""


def diff(left: Anatomy, right: Anatomy) -> list[Difference]:
    """The differences, component by component. A model in the first layout and one in diffusers' are compared as the same.

    Constants that only one side stores, such as `position_ids`, are no difference.
    """
    found: list[Difference] = []
    names = [component.name for component in left.components]
    names += [component.name for component in right.components if component.name not in names]
    for name in names:
        one, two = left.component(name), right.component(name)
        if one is not None and two is not None:
            found += _diff_component(one, two)
            continue
        there = one or two
        tensors = sum(len(module.weights) for module in there.modules) if there else 0
        if tensors:  # a single file has no tokenizer and no scheduler
            what: What = "only left" if one else "only right"
            found.append(Difference(component=name, path="", what=what, tensors=tensors))
    return found


class Pair(NamedTuple):
    """One tensor that both models have, in the same shape."""

    component: str
    path: str
    """Of its module, as diffusers calls it."""
    left: Weight
    right: Weight


def pairs(left: Anatomy, right: Anatomy, component: str, path: str = "") -> list[Pair]:
    """The tensors of a component, or of what stands at and below a path in it, that both have."""
    one, two = left.component(component), right.component(component)
    if one is None or two is None:
        return []
    names = in_diffusers(component, {module.path: None for module in one.modules})
    top, here, there = names.get(path, path), _tensors(one), _tensors(two)
    inside = [where for where in here if where in there and (not top or where == top or where.startswith(f"{top}."))]
    return [
        Pair(component, where, weight, there[where][name])
        for where in inside
        for name, weight in here[where].items()
        if name in there[where] and _squeezed(weight.shape) == _squeezed(there[where][name].shape)
    ]


def _diff_component(left: Component, right: Component) -> list[Difference]:
    one, two = _tensors(left), _tensors(right)
    found = []
    if left.class_name and right.class_name and left.class_name != right.class_name:
        here, there = left.class_name, right.class_name
        found.append(Difference(component=left.name, path="", what="class", left=here, right=there, tensors=0))
    for path in sorted(one.keys() & two.keys()):
        found += _diff_module(left.name, path, one[path], two[path])
    found += _branches(left.name, "only left", one, two)
    found += _branches(left.name, "only right", two, one)
    return found


def _tensors(component: Component) -> _Tensors:
    renamed = in_diffusers(component.name, {module.path: None for module in component.modules})
    found: _Tensors = {}
    for module in component.modules:
        weights = {weight.name: weight for weight in module.weights if not weight.buffer}
        if weights:
            found.setdefault(renamed.get(module.path, module.path), {}).update(weights)
    return found


def _diff_module(component: str, path: str, left: dict[str, Weight], right: dict[str, Weight]) -> list[Difference]:
    found = []
    for name in sorted(left.keys() | right.keys()):
        one, two = left.get(name), right.get(name)
        if one is None or two is None:
            what: What = "only left" if one else "only right"
            found.append(Difference(component=component, path=path, what=what, name=name))
        elif _squeezed(one.shape) != _squeezed(two.shape):
            here, there = str(list(one.shape)), str(list(two.shape))
            found.append(Difference(component=component, path=path, what="shape", name=name, left=here, right=there))
        elif one.dtype != two.dtype:
            found.append(Difference(component=component, path=path, what="dtype", name=name, left=one.dtype, right=two.dtype))
    return found


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A linear layer and a 1x1 convolution do the same; the layouts differ in which they use for attention in the VAE."""
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def _branches(component: str, what: What, here: _Tensors, there: _Tensors) -> list[Difference]:
    """The highest modules of which the other side has nothing, each with how many tensors it holds."""
    present = _with_ancestors(there)
    found: dict[str, int] = {}
    for path in here.keys() - there.keys():
        top = path
        while top and parent_path(top) not in present:
            top = parent_path(top)
        found[top] = found.get(top, 0) + len(here[path])
    return [Difference(component=component, path=path, what=what, tensors=count) for path, count in sorted(found.items())]


def _with_ancestors(tensors: _Tensors) -> set[str]:
    found = {""}
    for path in tensors:
        above = path
        while above not in found:
            found.add(above)
            above = parent_path(above)
    return found
