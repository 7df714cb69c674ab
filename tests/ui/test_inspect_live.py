"""What modules do while a job runs: in the tree, on the page, in the schematic, and from the log and back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from shutil import copytree

import msgspec
import pytest

from sdtui.params import GenerationParams
from sdtui.protocol import JobFinished, JobStarted, ModuleRun, ModulesRan, NotANumber, QueueChanged, Submit
from sdtui.ui.rows import ModuleRow
from sdtui.ui.screens.create import CreateScreen
from sdtui.ui.screens.inspect import InspectScreen
from tests.ui.inspecting import inspect, names, notice, open_inspect, path
from tests.ui.scripted import WEIGHTS, closing, opening, step_event
from tests.ui.stage import Stage, stage, until

BLOCKS = (
    ("", 40.0, (2, 4, 16, 16)),
    ("conv_in", 1.0, (2, 64, 16, 16)),
    ("down_blocks.0.resnets.0", 4.0, (2, 64, 16, 16)),
    ("down_blocks.0.attentions.0", 6.0, (2, 64, 16, 16)),
    ("down_blocks.1.resnets.0", 5.0, (2, 128, 8, 8)),
    ("mid_block.resnets.0", 8.0, (2, 192, 4, 4)),
    ("up_blocks.2.attentions.1", 12.0, (2, 64, 16, 16)),
)
MODEL = "scenes-128"


def ran(step: int | None = 0, *, job: str = "j", network: str = "unet", fault: str = "", slower: float = 1.0) -> ModulesRan:
    """What a network's blocks did; `fault`: the path of one that gave a NaN."""
    parts = BLOCKS if network == "unet" else (("", 9.0, (1, 77, 128)), ("encoder.layers.0", 4.0, (1, 77, 128)))
    modules = tuple(
        ModuleRun(
            path=name, class_name="X", shape=shape, dtype="torch.float32", elapsed_s=milliseconds * slower / 1000,
            mean=None if name == fault and fault else 0.125, std=1.5, absmax=4.25, fault="nan" if fault and name == fault else "",
            output_bytes=1000, memory_bytes=1 << 29,
        )
        for name, milliseconds, shape in parts
    )  # fmt: skip
    return ModulesRan(job=job, batch_index=0, step_index=step, network=network, modules=modules, probing_s=0.001)


def without_statistics(event: ModulesRan) -> ModulesRan:
    """The same of a step in which they were not taken."""
    modules = tuple(msgspec.structs.replace(run, mean=None, std=None, absmax=None) for run in event.modules)
    return msgspec.structs.replace(event, modules=modules)


def started(job: str = "j", model: str = MODEL) -> JobStarted:
    return JobStarted(job=job, seed=1, params=GenerationParams(prompt="x", model=model), total_images=1)


def line(running: Stage, name: str) -> str:
    """The line of the tree with a module's name in it, as it is on the screen."""
    screen = inspect(running)
    lines = [screen.tree_lines.render_line(y).text for y in range(screen.tree_lines.size.height)]
    return next((text for text in lines if f" {name} " in f" {text} "), "")


async def shown(running: Stage, name: str, words: str) -> None:
    await until(lambda: words in line(running, name), f"{words} at {name}: {line(running, name)!r}")


async def calm(running: Stage) -> None:
    """Wait until nothing is played any more and all of it is drawn."""
    live = inspect(running).live
    await until(lambda: live.timer is not None and live.replays.idle and not live.timer._active.is_set(), "nothing to do")
    await running.pilot.pause()


# --- the tree ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_a_job_on_the_shown_model_fills_the_tree_by_itself_and_the_key_turns_it_off(size: tuple[int, int]) -> None:
    async with stage(size=size) as running:
        screen = await open_inspect(running)
        assert "params" in running.screen_text()
        running.client.emit(started(), ran(0))
        await until(lambda: screen.live.on, "live")
        await shown(running, "unet", "40.00")
        await shown(running, "conv_in", "[2, 64, 16, 16]")
        await shown(running, "down_blocks", "15.00")  # the time of what is in it
        head = running.screen_text().splitlines()[2]
        wide = ("class", "mean", "std", "absmax", "memory", "of step")
        assert [title in head for title in ("output", "ms", *(wide if size[0] > 100 else ()))].count(False) == 0
        running.client.emit(ran(1, slower=2.0))
        await shown(running, "unet", "80.00")
        running.client.emit(without_statistics(ran(2, slower=3.0)))
        await shown(running, "unet", "120.00")
        assert ("0.12" in line(running, "conv_in")) == (size[0] > 100), "the newest statistics are still there"
        await running.pilot.press("L")
        await until(lambda: "params" in running.screen_text(), "what it is made of")
        running.client.emit(ran(3))
        await until(lambda: screen.feed.runs.forwards["unet"].step_index == 3, "told")
        await running.pilot.pause()
        assert not screen.live.on
        await running.pilot.press("L")
        await shown(running, "unet", "40.00")


async def test_without_an_inspected_job_the_key_says_how_to_have_one() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("L")
        assert "F7" in notice(screen)
        assert not screen.live.on


async def test_a_job_on_another_model_is_shown_only_when_it_is_asked_for() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        running.client.emit(started(model="another/model"), ran(0))
        await until(lambda: screen.feed.runs.job == "j", "told")
        await running.pilot.pause()
        assert not screen.live.on
        await running.pilot.press("L")
        assert "another/model" in notice(screen)
        await shown(running, "unet", "40.00")


async def test_what_was_told_before_the_screen_was_first_shown_is_there() -> None:
    async with stage() as running:
        running.client.emit(started(), ran(0), JobFinished(job="j", elapsed_s=1.0, images=()))
        await until(lambda: running.app._feed.runs.ended, "over")
        screen = await open_inspect(running)
        assert not screen.live.on
        await running.pilot.press("L")
        await shown(running, "unet", "40.00")


async def test_modules_light_up_in_the_order_in_which_they_ran_and_fade() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        seen: list[str] = []
        running.client.emit(started(), ran(0))
        await until(lambda: screen.live.replays.playing is not None, "a replay")
        figures = screen.live.figures
        assert figures is not None
        nodes = {name: figures.node(("unet", name)) for name in ("down_blocks", "mid_block", "up_blocks")}

        def note() -> bool:
            for name, node in nodes.items():
                if node is not None and figures.level(node) == 2 and name not in seen:
                    seen.append(name)
            return len(seen) == len(nodes)

        await until(note, "all of them were bright")
        assert seen == ["down_blocks", "mid_block", "up_blocks"]
        await calm(running)
        assert all(node is not None and figures.level(node) == 0 for node in nodes.values())


async def test_only_lines_that_look_different_are_drawn_again() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        running.client.emit(started(), ran(0))
        await calm(running)
        drawn: list[int] = []
        original = screen.tree_lines.render_line
        screen.tree_lines.render_line = lambda y: (drawn.append(y), original(y))[1]
        for _ in range(5):
            assert not screen.tree_lines.live_changed()
            await running.pilot.pause()
        assert drawn == []
        running.client.emit(ran(1, network="text_encoder"))
        await until(lambda: drawn, "the text encoder's line")
        assert screen.outline is not None
        assert {screen.outline.name(screen.outline.lines[y]) for y in drawn} == {"text_encoder"}


async def test_the_tree_is_sorted_by_time_and_stays_so_while_times_change() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        running.client.emit(started(), ran(0))
        await until(lambda: screen.live.on, "live")
        await running.pilot.press("s")
        assert "time" in notice(screen)
        order = [name for name in names(screen) if name.startswith("..") and not name.startswith("...")]
        assert order[:3] == ["..down_blocks", "..up_blocks", "..mid_block"]
        running.client.emit(ran(1, slower=3.0))
        await shown(running, "unet", "120.00")
        assert [name for name in names(screen) if name.startswith("..")][:3] == order[:3]
        await running.pilot.press("s", "s", "s", "s")
        assert screen.outline is not None
        assert screen.outline.sorted_by is None


async def test_the_first_nan_is_named_with_its_step_marked_and_gone_to() -> None:
    async with stage(size=(200, 60)) as running:
        screen = await open_inspect(running)
        bad = "mid_block.resnets.0"
        fault = NotANumber(job="j", batch_index=0, step_index=6, network="unet", module=bad, fault="nan")
        running.client.emit(started(), ran(6, fault=bad), fault)
        await until(lambda: "The first NaN came from unet.mid_block.resnets.0 in step 7" in notice(screen), "the notice")
        await running.pilot.press("n")
        assert path(screen) == "unet.mid_block.resnets.0"
        assert "0 NaN" in line(running, "NaN")
        assert "first fault NaN step 7" in " ".join(screen.page.text.split())


async def test_the_page_tells_figures_first_and_the_log_last() -> None:
    async with stage(size=(200, 60)) as running:
        screen = await open_inspect(running)
        running.client.emit(started(), ran(0), ran(1, slower=3.0))
        await until(lambda: screen.feed.runs.forwards.get("unet") and screen.feed.runs.forwards["unet"].step_index == 1, "told")
        await running.pilot.press("down", "down", "down")
        assert path(screen) == "unet.conv_in"
        text = screen.page.text
        assert text.index("in the last inspected job") < text.index("class") < text.index("in the log")
        assert "2, 2.00 ms on average" in text
        assert "[2, 64, 16, 16] float32" in text
        assert [part in text for part in ("step 1 ", "step 2 ", "absmax\n", " 0.12 ")] == [True] * 4
        running.client.emit(ran(2))
        await until(lambda: "step 3" in screen.page.text, "newer figures")


# --- the schematic ----------------------------------------------------------------------------------------------------


async def to_schematic(running: Stage) -> InspectScreen:
    screen = await open_inspect(running)
    await running.pilot.press("v")
    await until(lambda: screen.schematic.plan is not None and screen.schematic.has_focus, "the schematic")
    await running.pilot.pause()
    return screen


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
async def test_the_schematic_shows_all_of_the_network_at_every_size(size: tuple[int, int]) -> None:
    async with stage(size=size) as running:
        screen = await to_schematic(running)
        text = running.screen_text()
        for name in ("conv in", "down 0", "down 2", "mid", "up 0", "up 2", "conv out", "16×16 · 64", "4×4 · 192", "▶"):
            assert name in text
        assert screen.schematic.max_scroll_y == 0


async def test_arrows_go_between_blocks_and_the_tree_goes_along() -> None:
    async with stage() as running:
        screen = await to_schematic(running)
        places = []
        for key in ("down", "down", "down", "down", "down", "up", "up", "left", "right", "up", "up"):
            await running.pilot.press(key)
            await running.pilot.pause()
            places.append(path(screen).removeprefix("unet."))
        assert places == [
            "conv_in", "down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block",
            "up_blocks.0", "up_blocks.1", "down_blocks.1", "up_blocks.1", "up_blocks.2", "conv_out",
        ]  # fmt: skip
        await running.pilot.press("down", "enter")
        await running.pilot.pause()
        assert (screen.view, path(screen)) == ("tree", "unet.up_blocks.2")
        assert screen.tree_lines.has_focus


async def test_the_box_that_holds_the_trees_module_is_marked() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        assert screen.outline is not None
        node = screen.outline.find_key(("unet", "up_blocks.1.resnets.1.conv1"))
        assert node is not None
        screen.tree_lines.go_to(node)
        await running.pilot.press("v")
        await until(lambda: screen.schematic.cursor is not None, "marked")
        assert screen.schematic.plan is not None
        assert screen.schematic.plan.blocks[screen.schematic.cursor or 0].name == "up 1"
        await until(lambda: "┃" in running.screen_text() or "┏" in running.screen_text(), "a heavy border")


async def test_the_brackets_go_through_the_networks_and_what_is_none_is_said() -> None:
    async with stage() as running:
        screen = await to_schematic(running)
        found = []
        for _ in range(3):
            await running.pilot.press("right_square_bracket")
            await running.pilot.pause()
            found.append(screen.schematic.plan.component if screen.schematic.plan is not None else "")
        assert found == ["vae", "text_encoder", "unet"]
        await running.pilot.press("left_square_bracket")
        await running.pilot.pause()
        assert screen.schematic.plan is not None
        assert screen.schematic.plan.component == "text_encoder"
        assert screen.outline is not None
        screen.tree_lines.go_to(screen.outline.find_key(("scheduler", "")) or 0)
        await until(lambda: "There is no network to draw here" in running.screen_text(), "said")


async def test_c_colours_by_another_measure_and_the_border_says_which() -> None:
    async with stage(size=(200, 60)) as running:
        screen = await to_schematic(running)
        subtitles = []
        for _ in range(3):
            await running.pilot.press("c")
            subtitles.append(str(screen.schematic.border_subtitle))
        assert "nothing is known" in subtitles[0]
        assert "activations" in subtitles[1]
        assert "parameters" in subtitles[2]
        running.client.emit(started(), ran(0))
        await until(lambda: screen.live.on, "live")
        await running.pilot.press("c")
        await until(lambda: "12.00 ms" in running.screen_text(), "times in the boxes")
        assert "■" in str(screen.schematic.border_subtitle)


def colours(screen: InspectScreen, name: str) -> set[str]:
    """The backgrounds in the box of a block."""
    schematic = screen.schematic
    assert schematic.plan is not None
    number = next(number for number, block in enumerate(schematic.plan.blocks) if block.name == name)
    box = schematic._layout.boxes[number]
    strip = schematic.render_line(box.y + box.height // 2).crop(box.x + 1, box.x + box.width - 1)
    return {str(segment.style.bgcolor) for segment in strip if segment.style is not None}


async def test_boxes_light_up_and_only_those_that_change_are_drawn_again() -> None:
    async with stage() as running:
        screen = await to_schematic(running)
        dark = {name: colours(screen, name) for name in ("down 0", "up 2")}
        running.client.emit(started(), ran(0))
        await until(lambda: screen.live.replays.playing is not None, "a replay")
        await until(lambda: colours(screen, "down 0") != dark["down 0"], "down 0 is bright")
        assert colours(screen, "up 2") == dark["up 2"]
        await until(lambda: colours(screen, "up 2") != dark["up 2"], "up 2 is bright")
        await calm(running)
        drawn: list[int] = []
        original = screen.schematic._lay_line
        screen.schematic._lay_line = lambda outline, plan, line: (drawn.append(line), original(outline, plan, line))[1]
        screen.schematic.live_changed(0.0)
        await running.pilot.pause()
        assert drawn == []


async def test_a_click_selects_a_block_and_a_second_one_shows_it_in_the_tree() -> None:
    async with stage() as running:
        screen = await to_schematic(running)
        box = screen.schematic._layout.boxes[2]
        await running.pilot.click("#schematic", offset=(box.x + 4, box.y + 1))
        await until(lambda: path(screen) == "unet.down_blocks.1", "selected")
        await running.pilot.click("#schematic", offset=(box.x + 4, box.y + 1), times=2)
        await until(lambda: screen.view == "tree", "the tree")
        assert path(screen) == "unet.down_blocks.1"


# --- the log and the tree ---------------------------------------------------------------------------------------------


async def with_log(running: Stage) -> CreateScreen:
    """A whole job of two steps with blocks, followed in Create."""
    submit = Submit(job="j", params=GenerationParams(prompt="a cat", model=MODEL), output_dir="")
    running.client.emit(QueueChanged(queued=0, running="j"), *opening(submit, 1), ran(None, network="text_encoder"))
    for step in range(2):
        running.client.emit(step_event("j", step, 2), ran(step))
    running.client.emit(*list(closing("j", picture_file(), 1, 1.0))[:2])
    create = running.screen
    await until(lambda: "decode" in running.log_text(), "the job")
    create.show_log(("vae", ""))
    await running.pilot.pause()
    return create


def picture_file() -> Path:
    return WEIGHTS / "unet" / "config.json"  # only its size is told


def places(create: CreateScreen, kinds: Iterable[str]) -> list[int]:
    texts = [create.steps.text_of(index) for index in range(create.steps.row_count)]
    return [next(index for index, text in enumerate(texts) if text.strip().startswith(kind)) for kind in kinds]


@pytest.mark.parametrize(
    ("row", "module"),
    [
        ("tokens", "text_encoder"),
        ("embeddings", "text_encoder"),
        ("2  ", "unet"),
        ("decode", "vae"),
        ("guidance", "text_encoder"),
    ],
)
async def test_i_goes_from_a_row_of_the_log_to_its_module(row: str, module: str) -> None:
    async with stage() as running:
        create = await with_log(running)
        create.steps.cursor = places(create, [row])[0]
        await running.pilot.press("i")
        await until(lambda: isinstance(running.app.screen, InspectScreen) and inspect(running).outline is not None, "Inspect")
        await until(lambda: path(inspect(running)) == module, module)
        assert inspect(running).tree_lines.has_focus


async def test_a_second_click_on_a_row_goes_to_its_module_too() -> None:
    async with stage() as running:
        create = await with_log(running)
        place = places(create, ["decode"])[0]
        offset = (6, place - create.steps.scroll_offset.y + 1)
        await running.pilot.click("#steps", offset=offset, times=2)
        await until(lambda: isinstance(running.app.screen, InspectScreen) and inspect(running).outline is not None, "Inspect")
        await until(lambda: path(inspect(running)) == "vae", "vae")


async def test_m_shows_rows_of_modules_below_each_step_and_i_goes_from_one_to_the_tree() -> None:
    async with stage() as running:
        create = await with_log(running)
        plain = create.steps.row_count
        selected = create.steps.text_of(create.steps.cursor or 0)
        await running.pilot.press("m")
        assert create.steps.row_count == plain + 2 * len(BLOCKS) + 2
        assert create.steps.text_of(create.steps.cursor or 0) == selected
        rows = [index for index, row in enumerate(create.steps._rows) if isinstance(row, ModuleRow)]
        text = create.steps.text_of(rows[5])
        assert text.split() == ["down.0.att.0", "2×64×16×16", "6.00"]
        create.steps.cursor = rows[5]
        await running.pilot.press("i")
        await until(lambda: isinstance(running.app.screen, InspectScreen) and inspect(running).outline is not None, "Inspect")
        await until(lambda: path(inspect(running)) == "unet.down_blocks.0.attentions.0", "the module")
        await shown(running, "attentions", "6.00")  # what it did is shown, too
        await running.pilot.press("alt+1")
        await running.pilot.pause()
        await running.pilot.press("m")
        assert create.steps.row_count == plain


async def test_a_row_of_a_job_on_another_model_opens_that(tmp_path: Path) -> None:
    other = str(copytree(WEIGHTS, tmp_path / "other"))
    async with stage() as running:
        screen = await open_inspect(running)
        assert screen.source == MODEL
        await running.pilot.press("alt+1")
        await with_log(running)
        running.client.emit(started("j", other))
        await until(lambda: running.app._feed.runs.model_of("j") == other, "told")
        running.screen.show_log(("vae", ""))
        await running.pilot.press("i")
        await until(lambda: screen.source == other and path(screen) == "vae", "the other model's VAE")


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_i_goes_from_the_tree_to_the_last_line_about_a_module(size: tuple[int, int]) -> None:
    async with stage(size=size) as running:
        create = await with_log(running)
        screen = await open_inspect(running)
        figures = screen.live.figures
        assert figures is not None
        for key, words in (("down_blocks.1.resnets.0", "5.00"), ("", "denoise"), ("down_blocks.0.resnets.0.conv1", "4.00")):
            screen.tree_lines.go_to(figures.node(("unet", key)) or 0)
            await running.pilot.pause()
            await running.pilot.press("i")
            await until(lambda: running.app.screen is create, "Create")
            await running.pilot.pause()
            assert create.steps.has_focus
            place = create.steps.cursor
            assert place is not None
            assert words in create.steps.text_of(place)
            assert place > places(create, ["2  "])[0] - 1  # the last step's
            await running.pilot.press("alt+2")
            await until(lambda: running.app.screen is screen, "Inspect")


async def test_a_module_of_which_the_log_says_nothing_is_said() -> None:
    async with stage() as running:
        screen = await open_inspect(running)
        await running.pilot.press("down", "i")
        await until(lambda: "says nothing" in notice(screen), "said")
        assert running.app.screen is screen


async def test_a_row_of_the_log_about_nothing_goes_nowhere() -> None:
    async with stage() as running:
        create = await with_log(running)
        create.steps.cursor = places(create, ["latents"])[0]
        await running.pilot.press("i")
        await running.pilot.pause()
        assert running.app.screen is create
