"""The schematic of a network: its blocks with resolutions and channels, coloured by what they cost, bright where they work."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.content import Content
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from sdtui.text import safe_text
from sdtui.ui.live_figures import LiveFigures
from sdtui.ui.outline import Outline
from sdtui.ui.schematic_heat import MEASURES, Heat, Measure
from sdtui.ui.schematic_layout import Box, Layout, Piece, box_line, lay_out
from sdtui.ui.schematic_plan import Plan, drawable, plan_of, shown_component

if TYPE_CHECKING:
    from sdtui.ui.screens.inspect_dry import DryRun

_SHADES: Final = 8
"""Colours of the scale: more could not be told apart."""
_EVEN: Final = 4
"""Half cells by which one of two boxes may be nearer and both count as equally far."""
_FIGURES_S: Final = 0.5
"""Figures that changed more often could not be read."""
_FAINTEST: Final = 0.35
"""How much of its colour the coldest shade has; the rest is background."""


class Schematic(ScrollView, can_focus=True):
    """Draws the boxes of the component in which the selected node lies; its cursor is the box that holds that node."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "schematic--text",
        "schematic--muted",
        "schematic--rule",
        "schematic--accent",
        "schematic--active",
        "schematic--cursor",
        "schematic--cold",
        "schematic--hot",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "show_block", "In tree", key_display="enter", id="schematic.open", tooltip="Show the block in the tree"),
        Binding("c", "turn_colour", "Colour", id="schematic.colour", tooltip="Colour by parameters, time or size of activations"),
        Binding(
            "right_square_bracket",
            "turn_component(1)",
            "Network",
            key_display="]",
            id="schematic.next",
            tooltip="The next network of the model",
        ),
        Binding(
            "left_square_bracket",
            "turn_component(-1)",
            show=False,
            key_display="[",
            id="schematic.previous",
            tooltip="The network before",
        ),
        Binding("up,k", "move(0, -1)", show=False, id="schematic.up", tooltip="The block above"),
        Binding("down,j", "move(0, 1)", show=False, id="schematic.down", tooltip="The block below"),
        Binding("left,h", "move(-1, 0)", show=False, id="schematic.left", tooltip="The block at the left"),
        Binding("right,l", "move(1, 0)", show=False, id="schematic.right", tooltip="The block at the right"),
    ]

    class Picked(Message):
        """A block was selected; `opened`: it is to be shown in the tree."""

        def __init__(self, node: int, *, opened: bool = False) -> None:
            super().__init__()
            self.node = node
            self.opened = opened

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.measure: Measure = "parameters"
        self._outline: Outline | None = None
        self._node = 0
        self._root: int | None = None
        self._plan: Plan | None = None
        self._layout = Layout((), {}, 0)
        self._cursor: int | None = None
        self._live: LiveFigures | None = None
        self._dry: DryRun | None = None
        self._heat: Heat | None = None
        self._strips: dict[int, Strip] = {}
        self._drawn: dict[int, tuple[int, ...]] = {}
        self._shown_stamp = 0
        self._figures_at_s = 0.0
        self._shades: list[Color] = []

    @property
    def plan(self) -> Plan | None:
        """The boxes that are drawn."""
        return self._plan

    @property
    def cursor(self) -> int | None:
        """The number of the box that holds the selected module; None where none does."""
        return self._cursor

    # --- what it is told --------------------------------------------------------------------------------------------

    def show(self, outline: Outline, node: int) -> None:
        """Another node is selected."""
        fresh = outline is not self._outline
        self._outline, self._node = outline, node
        if self.display:
            self._choose(fresh=fresh)
        elif fresh:
            self._root = self._plan = None

    def take(self, live: LiveFigures | None, dry_run: DryRun | None) -> None:
        """What modules did in the last inspected job, and what is known of one forward; None where nothing is."""
        self._live, self._dry = live, dry_run
        self._redraw()

    def live_changed(self, now_s: float) -> bool:
        """Time has passed, or there are newer figures: draw the boxes that look different now; says whether some are left."""
        if self._plan is None or self._live is None:
            return False
        behind = self._stamp() != self._shown_stamp
        if behind and now_s - self._figures_at_s >= _FIGURES_S:
            self._figures_at_s, self._shown_stamp = now_s, self._stamp()
            self._redraw()
            return False
        for box in self._layout.boxes:
            if self._drawn.get(box.number) != self._levels(box.number):
                self._refresh_box(box)
        return behind

    def on_show(self) -> None:
        """It is in view: what was not worth drawing before is drawn."""
        self._choose(fresh=self._plan is None)

    def on_resize(self) -> None:
        """Boxes of another size may fit."""
        self._lay_out()

    def notify_style_update(self) -> None:
        """A theme was chosen: colours changed."""
        super().notify_style_update()
        self._shades = []
        self._strips.clear()
        if self.is_attached:
            self._show_legend()

    # --- boxes ------------------------------------------------------------------------------------------------------

    def _choose(self, *, fresh: bool) -> None:
        """The component of the selected node, and in it the box that holds this."""
        outline = self._outline
        if outline is None:
            return
        root = shown_component(outline, self._node)
        if fresh or root != self._root:
            self._root = root
            self._plan = plan_of(outline, root) if root is not None else None
            self._cursor = None
            self.scroll_to(y=0, animate=False, immediate=True, force=True)
            self._lay_out()
        before, self._cursor = self._cursor, self._plan.owner(outline, self._node) if self._plan is not None else None
        if self._cursor != before:
            for number in (before, self._cursor):
                if number is not None:
                    self._refresh_box(self._layout.boxes[number])
            if self._cursor is not None:
                box = self._layout.boxes[self._cursor]
                self.scroll_to_region(Region(0, box.y, 1, box.height), animate=False, force=True, immediate=True)

    def _lay_out(self) -> None:
        width, height = self.scrollable_content_region.size
        if self._plan is not None and width > 0:
            self._layout = lay_out(self._plan, max(1, width - 1), height)
        elif self._plan is None:
            self._layout = Layout((), {}, 0)
        self.virtual_size = Size(width, self._layout.height)
        self._redraw()

    def _redraw(self) -> None:
        """Everything, as figures have changed."""
        self._heat = None
        self._strips.clear()
        self._drawn.clear()
        if self.display and self.is_attached:
            self._show_legend()
            self.refresh()

    def _refresh_box(self, box: Box) -> None:
        for y in range(box.y, box.y + box.height):
            self._strips.pop(y, None)
        region = Region(box.x, box.y - self.scroll_offset.y, box.width, box.height)
        self.refresh(region.intersection(Region(0, 0, self.size.width, self.size.height)))

    def _stamp(self) -> int:
        return self._live.stamp(self._root) if self._live is not None and self._root is not None else 0

    def _levels(self, number: int) -> tuple[int, ...]:
        """How bright a box and its cells are."""
        if self._live is None or self._plan is None:
            return ()
        block = self._plan.blocks[number]
        parts = tuple(self._live.level(part.node) for part in block.parts)
        return (self._live.level(block.node) if block.whole or not parts else max(parts), *parts)

    # --- colours -------------------------------------------------------------------------------------------------

    def _heat_now(self, outline: Outline, plan: Plan) -> Heat:
        if self._heat is None:
            self._heat = Heat(outline, plan, self.measure, self._live, self._dry)
        return self._heat

    def _shade(self, value: float | None, most: float) -> Color | None:
        """The colour of a value; None where there is none."""
        if value is None or most <= 0:
            return None
        if not self._shades:
            ground = self.background_colors[1]
            cold = self.get_component_styles("schematic--cold").color
            hot = self.get_component_styles("schematic--hot").color
            faint = ground.blend(cold, _FAINTEST)
            half = _SHADES // 2
            self._shades = [faint.blend(cold, step / (half - 1)) for step in range(half)]
            self._shades += [cold.blend(hot, (step + 1) / half) for step in range(_SHADES - half)]
        return self._shades[min(_SHADES - 1, int(value / most * _SHADES))]

    def _show_legend(self) -> None:
        """Which network it is, and what its colours mean, in the border."""
        outline, plan = self._outline, self._plan
        if outline is None or plan is None or self._root is None:
            self.border_title, self.border_subtitle = "Schematic", ""
            return
        class_name = safe_text(outline.modules[self._root].class_name[:200], limit=40)
        self.border_title = Content(" ".join(part for part in (safe_text(plan.component, limit=40), class_name) if part))
        heat, label = self._heat_now(outline, plan), MEASURES[self.measure][0]
        if heat.most <= 0:
            self.border_subtitle = Content(f"{label}: nothing is known yet, c changes")
            return
        self._shade(0.0, 1.0)
        scale = [("■", shade.hex) for shade in self._shades]
        inside = f", cells to {heat.text(heat.most_part)}" if heat.most_part else ""
        self.border_subtitle = Content.assemble(f"{label} 0 ", *scale, f" {heat.text(heat.most)}{inside}")

    # --- drawing ----------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """A line of the window."""
        line, width = y + self.scroll_offset.y, self.scrollable_content_region.width
        outline, plan = self._outline, self._plan
        if outline is None or plan is None:
            text = self._nothing() if y == 0 else ""
            style = self.get_component_rich_style("schematic--muted", partial=True)
            return Strip([Segment(text, style)]).adjust_cell_length(width).apply_style(self.rich_style)
        strip = self._strips.get(line)
        if strip is None:
            strip = self._lay_line(outline, plan, line).adjust_cell_length(width).apply_style(self.rich_style)
            self._strips[line] = strip
        return strip

    def _nothing(self) -> str:
        return "No model is open. o opens one." if self._outline is None else "There is no network to draw here; ] shows one."

    def _lay_line(self, outline: Outline, plan: Plan, line: int) -> Strip:
        heat = self._heat_now(outline, plan)
        rule = self.get_component_rich_style("schematic--rule", partial=True)
        spans = [(wire.x, [Segment(wire.text, rule)]) for wire in self._layout.wires.get(line, ())]
        crossed = (box for box in self._layout.boxes if box.y <= line < box.y + box.height)
        spans += [(box.x, self._box_segments(box, line - box.y, plan, heat)) for box in crossed]
        segments: list[Segment] = []
        at = 0
        for x, found in sorted(spans, key=lambda span: span[0]):
            segments.append(Segment(" " * max(0, x - at)))
            segments += found
            at = x + sum(segment.cell_length for segment in found)
        return Strip(segments)

    def _box_segments(self, box: Box, dy: int, plan: Plan, heat: Heat) -> list[Segment]:
        marked, levels = box.number == self._cursor, self._levels(box.number)
        self._drawn[box.number] = levels
        level = levels[0] if levels else 0
        inside = box.height == 1 or 0 < dy < box.height - 1
        ground = self._ground(("active" if level == 2 else "cursor" if marked else "") if inside else "")
        segments = []
        for piece in box_line(plan.blocks[box.number], box, dy, heat.words(box.number), marked=marked):
            if piece.kind == "cell":
                value = heat.parts[box.number][piece.part]
                style = self._cell_style(value, heat.most_part, levels[piece.part + 1] if levels else 0, ground)
            elif piece.kind == "edge":
                style = self._edge_style(self._shade(heat.blocks[box.number], heat.most), marked=marked)
            else:
                style = self._text_style(piece, bright=bool(level or marked)) + ground
            segments.append(Segment(piece.text, style))
        return segments

    def _ground(self, name: str) -> Style:
        return self.get_component_rich_style(f"schematic--{name}", partial=True) if name else Style()

    def _edge_style(self, shade: Color | None, *, marked: bool) -> Style:
        if marked or shade is None:
            return self.get_component_rich_style("schematic--accent" if marked else "schematic--rule", partial=True)
        return Style(color=shade.rich_color)

    def _text_style(self, piece: Piece, *, bright: bool) -> Style:
        if piece.kind == "name" and bright:
            return self.get_component_rich_style("schematic--accent", partial=True) + Style(bold=True)
        tone = "muted" if piece.kind in ("size", "gap") else "text"
        return self.get_component_rich_style(f"schematic--{tone}", partial=True)

    def _cell_style(self, value: float | None, most: float, level: int, ground: Style) -> Style:
        """A cell is filled with the colour of its value; while it works it is bright."""
        if level == 2:
            accent = self.get_component_styles("schematic--accent").color
            return Style(color=accent.get_contrast_text().rich_color, bgcolor=accent.rich_color, bold=True)
        shade = self._shade(value, most)
        if shade is None:
            return self.get_component_rich_style("schematic--muted", partial=True) + ground
        return Style(color=shade.get_contrast_text(1.0).rich_color, bgcolor=shade.rich_color)

    # --- what the user does -----------------------------------------------------------------------------------------

    def action_move(self, dx: int, dy: int) -> None:
        """Select the nearest block in a direction."""
        if not self._layout.boxes:
            return
        if self._cursor is None:
            self._pick(0)
            return
        here = self._layout.boxes[self._cursor]
        there = [other for other in self._layout.boxes if _lies(here, other, dx, dy)]
        if there:
            down, across = min(_far(here, other) for other in there)
            even = [other for other in there if _far(here, other) <= (down, across + _EVEN)]
            self._pick(even[-1].number)  # of two that are as far, the one that runs later

    def _pick(self, number: int, *, opened: bool = False) -> None:
        if self._plan is not None:
            self.post_message(self.Picked(self._plan.blocks[number].node, opened=opened))

    def action_show_block(self) -> None:
        """Show the selected block in the tree."""
        self.post_message(self.Picked(self._node, opened=True))

    def action_turn_colour(self) -> None:
        """The next measure."""
        measures = list(MEASURES)
        self.measure = measures[(measures.index(self.measure) + 1) % len(measures)]
        self._redraw()

    def action_turn_component(self, by: int) -> None:
        """The next network of the model, or the one before."""
        roots = drawable(self._outline) if self._outline is not None else []
        if roots:
            at = roots.index(self._root) + by if self._root in roots else 0
            self.post_message(self.Picked(roots[at % len(roots)]))

    def on_click(self, event: Click) -> None:
        """Select the box that was clicked; a second click shows it in the tree."""
        x, y = event.x - self.gutter.left, event.y - self.gutter.top + self.scroll_offset.y
        for box in self._layout.boxes:
            if box.x <= x < box.x + box.width and box.y <= y < box.y + box.height:
                self._pick(box.number, opened=event.chain == 2)


def _lies(here: Box, other: Box, dx: int, dy: int) -> bool:
    """Whether a box lies in a direction: above or below, or at the left or right on the other side of the middle."""
    if dy:
        return (other.y - here.y) * dy > 0
    return (other.x - here.x) * dx > here.width // 2


def _far(here: Box, other: Box) -> tuple[int, int]:
    """Lines count first, then twice the cells from middle to middle."""
    return abs(other.y - here.y), abs(2 * (other.x - here.x) + other.width - here.width)
