"""A network's blocks as boxes: which there are, what is in them, and where they stand. No Textual here, and no colours.

U-Nets stand as a U: down on the left, up on the right, what comes later at a resolution beside what comes before. A VAE's
encoder and decoder do too. Everything else flows from top to bottom.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from sdtui.anatomy.layout import in_diffusers
from sdtui.ui.module_runs import DENOISERS
from sdtui.ui.outline import MODEL, Outline

Side = Literal["left", "middle", "right"]
_PART: Final = re.compile(r"(resnets|attentions|motion_modules|downsamplers|upsamplers)\.(\d{1,3})$")
_LETTERS: Final = {"resnets": "R", "attentions": "A", "motion_modules": "M", "downsamplers": "↓", "upsamplers": "↑"}
_SIZES: Final = ("downsamplers", "upsamplers")
_NUMBERED: Final = re.compile(r"(?:^|\.)(?:down|up)_blocks\.(\d{1,3})(?:\.|$)")
_MOST_PARTS: Final = 200
_DEEPEST: Final = 4
"""Levels of holders that are looked through for lists of layers."""


class Part(NamedTuple):
    """A small cell in a box: a resnet, an attention, a layer."""

    node: int
    letter: str


class Block(NamedTuple):
    """A box: its name, what selects it, what is in it, and its place in rows and columns."""

    name: str
    node: int
    parts: tuple[Part, ...]
    side: Side
    row: int
    channels: int = 0
    """0 where that is not known."""
    halvings: int | None = None
    """How often its resolution was halved; None where it has none."""
    whole: bool = True
    """Whether `node` stands for all of it; else its parts do, as the files have no module of its own."""


class Plan(NamedTuple):
    """The boxes of a component, in the order in which they run."""

    component: str
    blocks: tuple[Block, ...]
    rows: int
    skips: tuple[tuple[int, int], ...] = ()
    """Numbers of the boxes that a skip connection joins."""
    size_px: int = 0
    """Rows and columns of what goes in, by the configuration; 0 where that does not say."""

    def owner(self, outline: Outline, node: int) -> int | None:
        """The number of the box that holds a node."""
        owners = {block.node: number for number, block in enumerate(self.blocks)}
        owners.update({part.node: number for number, block in enumerate(self.blocks) for part in block.parts})
        return next((owners[above] for above in (node, *outline.ancestors(node)) if above in owners), None)


def drawable(outline: Outline) -> list[int]:
    """The nodes of the components that are networks."""
    nodes = (outline.find_key((part.name, "")) for part in outline.anatomy.components if len(part.modules) > 1)
    return [node for node in nodes if node is not None]


def shown_component(outline: Outline, node: int) -> int | None:
    """The component to draw for a node: its own; for the model the network that denoises, else the first."""
    component = outline.component(node)
    if component is not None:
        return outline.find_key((component.name, ""))
    roots = drawable(outline)
    return next((root for root in roots if outline.name(root) in DENOISERS), roots[0] if roots else None)


def plan_of(outline: Outline, root: int) -> Plan | None:
    """The boxes of a component; None where it has no modules to draw."""
    component = outline.component(root)
    if component is None or root == MODEL or len(component.modules) < 2:
        return None
    others = in_diffusers(component.name, {module.path: None for module in component.modules})
    names: dict[str, int] = {}
    for place, module in enumerate(component.modules):
        names.setdefault(others.get(module.path, module.path), root + place)
    size_px = _first_number(component.root.settings.get("sample_size", ""))
    if _numbers(names, "down_blocks") or _numbers(names, "up_blocks"):
        return _unet(outline, component.name, names, size_px)
    if _numbers(names, "decoder.up_blocks"):
        return _vae(outline, component.name, names, size_px)
    blocks = _flow(outline, root)
    return Plan(component.name, blocks, len(blocks)) if blocks else None


def _first_number(text: str) -> int:
    found = re.match(r"\d{1,6}", text)
    return int(found[0]) if found else 0


def _numbers(names: Mapping[str, int], holder: str) -> list[int]:
    """Of the blocks in a list, in order."""
    found = (_NUMBERED.search(name) for name in names if name.startswith(f"{holder}."))
    return sorted({int(match[1]) for match in found if match})


class _Spot(NamedTuple):
    side: Side
    row: int
    halvings: int


# --- networks with resolutions --------------------------------------------------------------------------------------


def _unet(outline: Outline, component: str, names: Mapping[str, int], size_px: int) -> Plan:
    downs, ups = _numbers(names, "down_blocks"), _numbers(names, "up_blocks")
    levels = max(len(downs), len(ups))
    blocks = [_block(outline, names, "conv_in", "conv in", _Spot("left", 0, 0))]
    blocks += [_block(outline, names, f"down_blocks.{n}", f"down {n}", _Spot("left", at + 1, at)) for at, n in enumerate(downs)]
    blocks.append(_block(outline, names, "mid_block", "mid", _Spot("middle", levels + 1, max(0, levels - 1))))
    for at, number in enumerate(ups):
        halvings = len(ups) - 1 - at
        blocks.append(_block(outline, names, f"up_blocks.{number}", f"up {number}", _Spot("right", halvings + 1, halvings)))
    blocks.append(_block(outline, names, "conv_out", "conv out", _Spot("right", 0, 0)))
    found = tuple(block for block in blocks if block is not None)
    places = {block.name: number for number, block in enumerate(found)}
    pairs = ((f"down {down}", f"up {up}") for down, up in zip(downs, reversed(ups), strict=False))
    skips = tuple((places[left], places[right]) for left, right in pairs if left in places and right in places)
    return Plan(component, found, max(block.row for block in found) + 1, skips, size_px)


def _vae(outline: Outline, component: str, names: Mapping[str, int], size_px: int) -> Plan:
    downs, ups = _numbers(names, "encoder.down_blocks"), _numbers(names, "decoder.up_blocks")
    levels = max(len(downs), len(ups))
    deepest = max(0, levels - 1)
    blocks = [_block(outline, names, "encoder.conv_in", "conv in", _Spot("left", 0, 0))]
    for at, number in enumerate(downs):
        blocks.append(_block(outline, names, f"encoder.down_blocks.{number}", f"down {number}", _Spot("left", at + 1, at)))
    blocks.append(_block(outline, names, "encoder.mid_block", "mid", _Spot("left", levels + 1, deepest)))
    blocks.append(_block(outline, names, "encoder.conv_out", "to latents", _Spot("left", levels + 2, deepest)))
    blocks.append(_block(outline, names, "decoder.conv_in", "from latents", _Spot("right", levels + 2, deepest)))
    blocks.append(_block(outline, names, "decoder.mid_block", "mid", _Spot("right", levels + 1, deepest)))
    for at, number in enumerate(ups):
        row = len(ups) - at
        blocks.append(_block(outline, names, f"decoder.up_blocks.{number}", f"up {number}", _Spot("right", row, row - 1)))
    blocks.append(_block(outline, names, "decoder.conv_out", "conv out", _Spot("right", 0, 0)))
    found = tuple(block for block in blocks if block is not None)
    return Plan(component, found, max(block.row for block in found) + 1, size_px=size_px)


def _block(outline: Outline, names: Mapping[str, int], path: str, name: str, spot: _Spot) -> Block | None:
    """The box of a block; None where the network has none of this path."""
    inside = {other[len(path) + 1 :]: node for other, node in names.items() if other.startswith(f"{path}.")}
    parts = _parts(inside)
    own = names.get(path)
    if own is None and not parts:
        return None
    node = own if own is not None else parts[0].node
    return Block(name, node, parts, spot.side, spot.row, _channels(outline, node, inside), spot.halvings, whole=own is not None)


def _parts(inside: Mapping[str, int]) -> tuple[Part, ...]:
    """Resnets and attentions as they take turns, what changes the size last."""
    found = [
        (match[1] in _SIZES, int(match[2]), _order(match[1]), inside[path]) for path in inside if (match := _PART.match(path))
    ]
    letters = {_order(kind): letter for kind, letter in _LETTERS.items()}
    return tuple(Part(node, letters[kind]) for _, _, kind, node in sorted(found))[:_MOST_PARTS]


def _order(kind: str) -> int:
    return list(_LETTERS).index(kind)


def _channels(outline: Outline, node: int, inside: Mapping[str, int]) -> int:
    """How many channels come out of its last resnet, or of itself where it is a convolution."""
    convs = [path for path in inside if path.startswith("resnets.") and path.endswith((".conv2", ".conv1"))]
    of = max(convs, key=lambda path: (int(path.split(".")[1]), path), default="") if convs else ""
    weights = outline.modules[inside[of] if of else node].weights
    return next((weight.shape[0] for weight in weights if len(weight.shape) >= 2), 0)


# --- networks that flow ---------------------------------------------------------------------------------------------


def _flow(outline: Outline, root: int) -> tuple[Block, ...]:
    return tuple(
        Block(name, node, parts, "middle", row, _width(outline, node, parts))
        for row, (name, node, parts) in enumerate(_expand(outline, root, "", 0))
    )


def _expand(outline: Outline, holder: int, before: str, depth: int) -> list[tuple[str, int, tuple[Part, ...]]]:
    """What stands below a node, as boxes; holders of lists of layers give way to these."""
    found: list[tuple[str, int, tuple[Part, ...]]] = []
    for child in _below(outline, holder):
        name = f"{before}{outline.name(child)}"
        below = _below(outline, child)
        if not _is_list(outline, child) and depth < _DEEPEST and _holds_lists(outline, child):
            found += _expand(outline, child, f"{name}.", depth + 1)
        else:
            found.append((name, child, tuple(Part(inner, _letter(outline, inner)) for inner in below[:_MOST_PARTS])))
    return found


def _below(outline: Outline, node: int) -> list[int]:
    """The nodes right below, as the files have them, whatever is filtered."""
    end, child, found = node + 1 + outline.count_below(node), node + 1, []
    while child < end:
        found.append(child)
        child += 1 + outline.count_below(child)
    return found


def _is_list(outline: Outline, node: int) -> bool:
    below = _below(outline, node)
    return bool(below) and all(outline.name(child).isdecimal() for child in below)


def _holds_lists(outline: Outline, node: int) -> bool:
    """Whether lists of layers lie below, or one level deeper."""
    below = _below(outline, node)
    return any(_is_list(outline, lower) for child in below for lower in (child, *_below(outline, child)))


def _letter(outline: Outline, node: int) -> str:
    name, class_name = outline.name(node), outline.modules[node].class_name
    if name.isdecimal() and not class_name.startswith(("Conv", "Linear")):
        return "L"
    first = next((character for character in (class_name or name) if character.isalpha()), "·")
    return first.upper() if first.isascii() else "·"


def _width(outline: Outline, node: int, parts: tuple[Part, ...]) -> int:
    """How many numbers a token has behind it: rows of its last matrix, or what a norm has."""
    first = parts[-1].node if parts else node
    for inside in range(first + outline.count_below(first), first - 1, -1):
        weights = outline.modules[inside].weights
        if weights and weights[0].shape:
            embeds = outline.modules[inside].class_name == "Embedding"
            return weights[0].shape[-1 if embeds else 0]
    return 0
