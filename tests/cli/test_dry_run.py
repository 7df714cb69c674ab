"""`sdtui inspect --shapes`: a forward of every network is followed by a process of its own, and said in lines or JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sdtui.cli.app import main
from sdtui.cli.dry_run import size_of
from sdtui.cli.output import CommandError
from sdtui.protocol import DryRunDone, InspectionFailed, RunDry
from sdtui.server.inspector import InspectorError
from sdtui.worker.inspector.service import answer


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inspector answers in this process, which saves its imports; that it does so from its own, another test says."""

    async def ask(request: RunDry) -> DryRunDone:
        reply = answer(request)
        if isinstance(reply, InspectionFailed):
            raise InspectorError(reply.message)
        assert isinstance(reply, DryRunDone)
        return reply

    monkeypatch.setattr("sdtui.cli.dry_run._ask", ask)


def say(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[list[str], str]:
    """Runs `sdtui inspect` in this process; its lines on stdout, and what it says on stderr."""
    assert main(["inspect", *map(str, arguments)]) == code
    said = capfd.readouterr()
    return said.out.splitlines(), said.err


@pytest.mark.usefixtures("here")
def test_shapes_multiply_adds_and_memory_are_said_in_lines(capfd: pytest.CaptureFixture[str]) -> None:
    lines, complaints = say(capfd, "scenes-128", "--shapes", "128x64", "--batch", 2, "--dtype", "float32")
    assert complaints == ""
    assert lines[0] == "128x64, 2 pictures, with guidance, float32, one forward of each network:"
    rows = {line.split()[0]: re.split(r"  +", line) for line in lines[2:] if line}
    assert rows["unet"][1:4] == ["UNet2DConditionModel", "4x4x8x16, scalar, +1", "4x4x8x16"]
    assert rows["unet.conv_in"] == ["unet.conv_in", "Conv2d", "4x4x8x16", "4x64x8x16", "1.2 M", "0.1%", "131 kB"]
    assert rows["unet.down_blocks.0"][1] == "CrossAttnDownBlock2D"
    assert "unet.down_blocks.0.resnets.0" not in rows, "two levels are shown"
    assert rows["vae.decoder"][3] == "2x3x64x128"
    assert lines[-1].startswith("A job needs about ") and "fused attention" in lines[-1]


def test_json_is_the_whole_answer_of_the_real_process(capfd: pytest.CaptureFixture[str]) -> None:
    lines, _ = say(capfd, "scenes-128", "--shapes", "auto", "--json")
    found = json.loads("\n".join(lines))
    assert (found["type"], found["width_px"], found["dtype"]) == ("dry_run_done", 128, "float16")
    unet = next(stage for stage in found["stages"] if stage["component"] == "unet")
    assert (unet["macs"], unet["parameters"]) == (973_500_416, 8_788_228)
    assert len(unet["modules"]) > 200


@pytest.mark.usefixtures("here")
def test_component_depth_and_filter_choose_what_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    options = ("scenes-128", "--shapes", "auto", "--component", "unet", "--filter", "ATTN2 linear")
    lines, _ = say(capfd, *options)
    rows = [line.split()[0] for line in lines[2 : lines.index("")]]
    assert rows and all("attn2" in row for row in rows)
    assert not any(line.startswith(("vae", "text_encoder")) for line in lines)
    with_depth, _ = say(capfd, *options, "--depth", 3)
    assert with_depth.index("") == 2, "nothing of these stands so high"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--shapes", "100x100"), "width must be a multiple of 8"),
        (("--shapes", "auto", "--batch", 2_000), "batch must be from 1 to 1,024, not 2,000"),
        (("--shapes", "auto", "--component", "tokenizer"), "--component: 'tokenizer' is not run"),
    ],
)
def test_what_cannot_be_run_is_said(capfd: pytest.CaptureFixture[str], arguments: tuple[object, ...], says: str) -> None:
    lines, complaints = say(capfd, "scenes-128", *arguments, code=2)
    assert lines == [] and says in complaints


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--shapes", "512"), "'512' is no size such as 512x768"),
        (("--shapes", "0x512"), "is no size"),
        (("--shapes", "512x512", "--dtype", "float8"), "'float8' is not one of float32, float16, bfloat16"),
        (("--batch", 2), "give that too"),
        (("--dtype", "float32"), "give that too"),
        (("--shapes", "auto", "--sort", "bytes"), "cannot be used with"),
        (("--shapes", "auto", "--diff", "scenes-128"), "cannot be used with"),
    ],
)
def test_options_that_mean_nothing_are_refused_at_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], says: str
) -> None:
    monkeypatch.setattr("sdtui.cli.dry_run._ask", lambda _: pytest.fail("a process was started"))
    lines, complaints = say(capfd, "scenes-128", *arguments, code=2)
    assert lines == [] and says in complaints


@pytest.mark.usefixtures("here")
def test_a_model_that_is_not_there_is_said(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines, complaints = say(capfd, tmp_path / "nothing", "--shapes", "auto", code=2)
    assert lines == [] and "nothing" in complaints and complaints.count("\n") == 1


def test_sizes_are_read() -> None:
    assert size_of("512x768") == (512, 768) and size_of("auto") == (0, 0)
    for wrong in ("", "x", "-8x8", "8x8x8", "8X8", "1e3x8", "9" * 30 + "x8"):
        with pytest.raises(CommandError, match="is no size"):
            size_of(wrong)


def test_the_command_itself_needs_no_torch() -> None:
    code = (
        "import sys, sdtui.cli.inspect; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'diffusers', 'textual')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
