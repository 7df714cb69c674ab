"""What the commands draw: figures of progress, half cells, the log's lines, and what is known of a terminal."""

from __future__ import annotations

import io
import os
import pty
import struct
import termios
from fcntl import ioctl

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sdtui.cli.log import log_lines
from sdtui.cli.output import table
from sdtui.cli.picture import HalfCells, can_show, room_for
from sdtui.cli.progress import LiveReporter, Pace, describe
from sdtui.params import GenerationParams
from sdtui.protocol import (
    JobFailed,
    JobQueued,
    JobStarted,
    ModuleRun,
    ModulesRan,
    NotANumber,
    PreviewReady,
    PromptTokens,
    StageFinished,
    StepFinished,
    TensorFact,
    WorkerDied,
)
from sdtui.terminal.capabilities import capabilities
from sdtui.terminal.picture import CellSize, Frame
from sdtui.text import is_safe

FACT = TensorFact("latents", (1, 4, 16, 16), "float32", 0.1, 1.0)


def step(index: int, total: int, batch: int = 0, elapsed_s: float = 0.05) -> StepFinished:
    return StepFinished(
        job="j",
        batch_index=batch,
        step_index=index,
        total_steps=total,
        timestep=951.0,
        sigma=11.93,
        latents=FACT,
        noise_pred=FACT,
        denoised=FACT,
        guidance_norm=None,
        elapsed_s=elapsed_s,
        preview_s=0.001,
        memory_bytes=1 << 29,
    )


def started(batches: int) -> JobStarted:
    return JobStarted(job="j", seed=1, params=GenerationParams(prompt="x", batch_count=batches), total_images=batches)


def test_the_pace_counts_the_schedulers_own_steps_over_all_batches() -> None:
    pace = Pace()
    pace.start(started(2))
    pace.step(step(38, 39))  # Heun makes 39 calls of 20 steps
    assert (pace.done, pace.total) == (39, 78)
    pace.step(step(38, 39, batch=1))
    assert (pace.done, pace.total, pace.left) == (78, 78, "")


def test_the_rate_is_steps_a_second_and_for_slow_ones_seconds_a_step() -> None:
    pace = Pace()
    pace.start(started(1))
    pace.step(step(0, 20))
    assert (pace.rate, pace.left) == ("20.0 it/s", "950 ms left")
    slow = Pace()
    slow.start(started(1))
    slow.step(step(0, 20, elapsed_s=3.0))
    assert (slow.rate, slow.left) == ("3.0 s/it", "57.0 s left")


def test_a_job_that_waits_says_for_how_many() -> None:
    params = GenerationParams(prompt="x")
    assert describe(JobQueued(job="j", params=params, position=0)) == "queued"
    assert describe(JobQueued(job="j", params=params, position=2)) == "waiting for 2 jobs"


# --- the log --------------------------------------------------------------------------------------------------------


def test_steps_stand_in_columns_under_their_head() -> None:
    _shapes, head, first = log_lines(step(0, 20))
    (second,) = log_lines(step(1, 20))
    for name, value in (("step", "1/20"), ("t", "951.0"), ("sigma", "11.9300")):
        end = head.index(f" {name} ") + len(name) + 1
        assert first[:end].endswith(value)
    assert len(first) == len(second)


def test_a_prompt_that_is_cut_off_is_said_to_be() -> None:
    tokens = PromptTokens(job="j", which="prompt", ids=(1, 2), words=("a</w>", "cat</w>"), cut_off="and a dog", max_tokens=77)
    lines = log_lines(tokens)
    assert "a | cat" in lines[1] and "the model does not see: and a dog" in lines[3]


def test_modules_stand_in_columns_and_say_what_is_no_number() -> None:
    fine = ModuleRun(
        path="mid_block.resnets.0", class_name="ResnetBlock2D", shape=(2, 64, 8, 8), dtype="float32", mean=-0.25, std=1.5,
        absmax=7.0, elapsed_s=0.002, calls=2,
    )  # fmt: skip
    broken = ModuleRun(path="", class_name="UNet2DConditionModel", shape=(2, 4, 8, 8), dtype="float32", fault="nan")
    ran = ModulesRan(job="j", batch_index=0, step_index=4, network="unet", modules=(fine, broken), probing_s=0.001)
    first, head, *rows = log_lines(ran)
    assert "unet step 5: 2 modules" in first and "looking took" in first
    for name, value in (("mean", "-0.25"), ("std", "1.5"), ("absmax", "7")):
        end = head.index(f" {name} ") + len(name) + 1
        assert rows[0][:end].endswith(f" {value}") and rows[1][:end].endswith(" -")
    assert rows[0].endswith("2 calls") and rows[1].split()[0] == "unet" and rows[1].endswith("NaN")
    stage = log_lines(msgspec.structs.replace(ran, step_index=None, network="vae"))
    assert "vae: 2 modules" in stage[0]


def test_the_first_number_that_is_none_is_named() -> None:
    fault = NotANumber(job="j", batch_index=0, step_index=2, network="unet", module="mid_block.resnets.0", fault="inf")
    (line,) = log_lines(fault)
    assert "unet.mid_block.resnets.0: infinity" in line and line.endswith("step 3")
    (line,) = log_lines(msgspec.structs.replace(fault, given=True, fault="nan"))
    assert "what the unet was given: NaN" in line


@given(st.text(max_size=60))
def test_no_text_of_an_event_is_acted_on_by_a_terminal(text: str) -> None:
    messages = [
        JobFailed(job=text, message=text),
        WorkerDied(reason=text, exit_code=1, log_tail=text),
        StageFinished(job="j", stage=text, elapsed_s=1, detail=text, tensors=(TensorFact(text, (1,), text, note=text),)),
        PromptTokens(job="j", which="prompt", ids=(1,), words=(text,), cut_off=text, max_tokens=77),
        ModulesRan(
            job="j", batch_index=0, step_index=0, network=text, probing_s=0.0,
            modules=(ModuleRun(path=text, class_name=text, shape=(1,), dtype=text),),
        ),
        NotANumber(job="j", batch_index=0, step_index=None, network=text, module=text, fault="nan"),
    ]  # fmt: skip
    assert all(is_safe(line) and "\n" not in line for message in messages for line in log_lines(message))


def test_a_table_aligns_its_columns() -> None:
    assert table([("a", "bb"), ("ccc", "d")], right=(1,)) == ["a    bb", "ccc   d"]


# --- pictures -------------------------------------------------------------------------------------------------------


def console(width: int = 40, height: int = 20, colours: str = "truecolor") -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=colours, width=width, height=height)  # type: ignore[arg-type]


def drawn(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_cell_shows_the_upper_pixel_in_front_and_the_lower_behind() -> None:
    screen = console(width=1, height=5)
    screen.print(HalfCells(Frame(1, 2, bytes([255, 0, 0, 0, 0, 255]))), end="")
    assert "38;2;255;0;0" in drawn(screen) and "48;2;0;0;255" in drawn(screen)


def test_of_few_colours_the_nearest_are_taken() -> None:
    screen = console(width=8, height=8, colours="256")
    screen.print(HalfCells(Frame(1, 1, bytes([255, 0, 0])), (3, 2)), end="")
    assert "38;5;196" in drawn(screen) and drawn(screen).count("▀") == 6


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 300), st.integers(1, 200), st.floats(4, 30), st.floats(4, 60))
def test_a_picture_leaves_room_for_the_prompt_and_keeps_its_proportions(
    width_px: int, height_px: int, columns: int, rows: int, cell_width: float, cell_height: float
) -> None:
    wide, high = room_for(Frame(width_px, height_px, b""), columns, rows, CellSize(cell_width, cell_height))
    assert 1 <= wide <= columns and 1 <= high <= max(1, rows - 4)
    nearest_columns = high * cell_height * width_px / height_px / cell_width
    nearest_rows = wide * cell_width * height_px / width_px / cell_height
    assert abs(wide - nearest_columns) <= 1 + nearest_columns / high or abs(high - nearest_rows) <= 1 + nearest_rows / wide


def test_pictures_need_colours_and_utf_8() -> None:
    assert not can_show(console(colours="standard"))
    assert not can_show(Console(file=io.StringIO()))


def test_the_live_display_draws_previews_and_gives_the_line_back() -> None:
    screen = console()
    reporter = LiveReporter(screen, pictures=True, log=True)
    try:
        reporter.show(started(1))
        reporter.show(PreviewReady(
            job="j", batch_index=0, step_index=0, width_px=2, height_px=2, rgb=bytes(12), method="linear", elapsed_s=0.0
        ))  # fmt: skip
        reporter.show(step(0, 20))
    finally:
        reporter.close()
    assert "▀" in drawn(screen) and "1/20" in drawn(screen)
    assert drawn(screen).count("\x1b[?25h") >= drawn(screen).count("\x1b[?25l")


# --- the terminal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm-256color"}, "256"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "truecolor"),
        ({"TERM": "xterm-kitty"}, "truecolor"),
        ({"TERM": "xterm"}, "16"),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, "none"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, "none"),
        ({}, "none"),
    ],
)
def test_colours_are_what_the_environment_says(environment: dict[str, str], colours: str) -> None:
    assert capabilities(-1, environment).colours == colours


def test_the_size_is_what_the_terminal_says_and_nothing_is_written_to_it() -> None:
    outside, inside = pty.openpty()
    try:
        ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 1000, 600))
        found = capabilities(inside, {"TERM": "xterm", "LANG": "C.UTF-8", "TMUX": "/tmp/x", "SSH_TTY": "/dev/pts/1"})
        assert (found.width_cells, found.height_cells, found.width_px, found.height_px) == (100, 30, 1000, 600)
        assert found.is_terminal and found.utf8 and found.over_ssh and found.multiplexer == "tmux"
        os.set_blocking(outside, False)
        with pytest.raises(BlockingIOError):
            os.read(outside, 1)
    finally:
        os.close(outside)
        os.close(inside)


def test_a_pipe_has_no_size() -> None:
    reading, writing = os.pipe()
    found = capabilities(writing, {})
    os.close(reading)
    os.close(writing)
    assert not found.is_terminal and (found.width_cells, found.width_px) == (0, 0)
