"""`sdtui inspect`: what it prints is what the files say, in a pipe, on a terminal, and as JSON."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdtui.bench.layouts import sd1, write_sparse
from sdtui.bench.personalities import XTERM
from sdtui.checkpoint import shipped_model_dir
from sdtui.cli.app import main
from tests.cli.conftest import Cli
from tests.cli.in_terminal import finished, lines, mistakes

Say = Callable[..., list[str]]


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Runs `sdtui inspect` in this process; its lines on stdout."""

    def run(*arguments: object, code: int = 0, stderr: str = "") -> list[str]:
        assert main(["inspect", *map(str, arguments)]) == code
        said = capfd.readouterr()
        assert re.search(stderr, said.err) if stderr else said.err == ""
        return said.out.splitlines()

    return run


def names(output: list[str]) -> list[str]:
    return [line.split()[0] for line in output[2:] if line]


def test_the_shipped_model_is_shown_with_parameters_shares_bytes_and_shapes(say: Say) -> None:
    output = say("scenes-128")
    assert output[0] == "scenes-128: pipeline, 10.9 M parameters, 21 MiB"
    said = {line.split()[0]: line.split() for line in output if line.startswith(("unet", "vae", "tokenizer", "  conv_in"))}
    assert said["unet"][1:] == ["UNet2DConditionModel", "8,788,228", "100.0%", "17", "MiB", "F16"]
    assert said["conv_in"][1:] == ["Conv2d?", "2,368", "0.0%", "5", "kB", "F16", "weight", "64x4x3x3,", "bias", "64"]
    assert said["tokenizer"] == ["tokenizer", "CLIPTokenizer"]


def test_depth_component_sort_and_filter_choose_what_is_shown(say: Say) -> None:
    assert names(say("scenes-128", "--depth", 0)) == ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
    vae = names(say("scenes-128", "--component", "vae", "--depth", 1))
    assert vae == ["vae", "encoder", "quant_conv", "post_quant_conv", "decoder"]
    by_size = names(say("scenes-128", "--component", "vae", "--depth", 1, "--sort", "bytes"))
    assert by_size == ["vae", "decoder", "encoder", "quant_conv", "post_quant_conv"]
    assert names(say("scenes-128", "--filter", "layers.1 fc2")) == ["text_encoder", "encoder", "layers", "1", "mlp", "fc2"]
    assert names(say("scenes-128", "--filter", "[64, 4, 3, 3]")) == ["unet", "conv_in"]
    assert names(say("scenes-128", "--filter", "nowhere!", stderr="Nothing here has 'nowhere!'")) == []


def test_json_has_every_tensor(say: Say) -> None:
    (line,) = say("scenes-128", "--json")
    found = json.loads(line)
    assert found["kind"] == "pipeline" and found["parameters"] == 8_788_228 + 1_643_927 + 505_600
    unet = found["components"][0]
    assert len([weight for module in unet["modules"] for weight in module["weights"]]) > 250
    (line,) = say("scenes-128", "--json", "--component", "unet", "--filter", "conv_in")
    (only,) = json.loads(line)["components"]
    assert [module["path"] for module in only["modules"]] == ["", "conv_in"]
    assert only["modules"][1]["weights"][0] == {
        "name": "weight", "shape": [64, 4, 3, 3], "dtype": "F16", "bytes": 4608, "key": "conv_in.weight", "file": 0,
        "buffer": False,
    }  # fmt: skip


def test_a_lora_is_placed_on_the_model_and_what_fits_nothing_is_said(tmp_path: Path, say: Say) -> None:
    arrays: dict[str, Any] = {"strange": np.zeros(2)}
    for name, inputs in (("mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 128), ("down_blocks_7_x", 3)):
        arrays[f"lora_unet_{name}.lora_down.weight"] = np.ones((2, inputs), np.float32)
        arrays[f"lora_unet_{name}.lora_up.weight"] = np.ones((192, 2), np.float32)
        arrays[f"lora_unet_{name}.alpha"] = np.array(1.0, np.float32)
    save_file(arrays, tmp_path / "lora.safetensors")
    output = say("scenes-128", "--lora", tmp_path / "lora.safetensors")
    (changed,) = [line for line in output if "LoRA rank" in line]
    assert changed.split()[0] == "to_k" and changed.endswith("LoRA rank 2 alpha 1 norm 157"), "a half of 2 * sqrt(128 * 192)"
    assert output[-1] == "2 fit nothing in this model: unet.down_blocks.7.x, strange."
    (line,) = say("scenes-128", "--lora", tmp_path / "lora.safetensors", "--json")
    found = json.loads(line)
    assert found["changes"][0]["norm"] == pytest.approx((128 * 192) ** 0.5)
    assert found["fits_nothing"] == ["unet.down_blocks.7.x", "strange"]
    alone = say(tmp_path / "lora.safetensors")
    assert "lora," in alone[0] and any("rank 2  alpha 1" in line for line in alone)
    say("scenes-128", "--lora", shipped_model_dir() / "vae/diffusion_pytorch_model.safetensors", code=2, stderr="is no LoRA")


def test_differences_are_listed_and_a_copy_has_none(tmp_path: Path, say: Say) -> None:
    copy = Path(shutil.copytree(shipped_model_dir(), tmp_path / "copy"))
    assert say("scenes-128", "--diff", copy)[-1] == "No difference in structure."
    small = {"channels": 32, "vae_channels": 32, "words": 100}
    one = write_sparse(tmp_path / "one.safetensors", sd1(**small))
    two = write_sparse(tmp_path / "two.safetensors", sd1(**small, inputs=9))
    output = say(one, "--diff", two)
    assert output[-2:] == ["unet.conv_in.weight: shape [32, 4, 3, 3] against [32, 9, 3, 3]", "1 difference in structure."]
    (line,) = say(one, "--diff", two, "--json")
    assert json.loads(line)["differences"][0]["right"] == "[32, 9, 3, 3]"


def test_the_numbers_of_two_models_are_compared_on_request(tmp_path: Path, say: Say) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    numbers = {"conv_in.weight": np.ones((4, 4, 3, 3), np.float32), "conv_in.bias": np.zeros(4, np.float32)}
    save_file(numbers, one)
    save_file(numbers | {"conv_in.weight": numbers["conv_in.weight"] * np.float32(1.5)}, two)
    (name,) = {line.split(":")[0] for line in say(one, "--diff", two, "--weights")[-1:]}
    output = say(one, "--diff", two, "--weights")
    assert output == [
        f"{name}.conv_in.weight: changed by 50.00 % of its norm, a number at most by 0.5; all numbers",
        f"{name}: 1 of 2 tensors have other numbers.",
    ]
    assert say(one, "--diff", one, "--weights") == [f"{name}: all 2 tensors are the same."]
    (line,) = say(one, "--diff", two, "--weights", "--json")
    assert json.loads(line)["differences"][0]["changed"] == 1.0
    say(one, "--weights", code=2, stderr="--weights says how --diff is to compare; give that too")
    said = "--component: 'vae' is not in both models; in both of them is unet, text_encoder"
    say("scenes-128", "--diff", without_vae(tmp_path), "--weights", "--component", "vae", code=2, stderr=said)


def without_vae(folder: Path) -> Path:
    """The shipped model without its autoencoder."""
    copy = Path(shutil.copytree(shipped_model_dir(), folder / "copy"))
    shutil.rmtree(copy / "vae")
    index = json.loads((copy / "model_index.json").read_bytes())
    del index["vae"]
    (copy / "model_index.json").write_text(json.dumps(index))
    return copy


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/no/such"], "does not exist"),
        (["scenes-128", "--component", "unett"], "there is no 'unett'; this model has unet, vae"),
        (["scenes-128", "--sort", "beauty"], "--sort: 'beauty' is not one of parameters, bytes, name"),
        (["scenes-128", "--depth", "-1"], "--depth"),
        (["scenes-128", "--lora", "x", "--diff", "y"], "cannot be used at once"),
        (["scenes-128", "--lora", "/no/lora"], "does not exist"),
        (["scenes-128", "--diff", "/dev/null"], "/dev/null is no file of weights, but a device"),
        (["somebody/nothing"], "nor a model in the hub's cache"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(say: Say, arguments: list[str], said: str) -> None:
    assert say(*arguments, code=2, stderr=re.escape(said)) == []


def test_a_pickle_under_another_name_is_explained_and_not_opened(tmp_path: Path, say: Say) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x02cos\nsystem\n")
    say(tmp_path / "x.safetensors", code=2, stderr="is a pickle under the name of a safetensors file: it can run any code")


HOSTILE = {"\x1b[31mred[bold].weight": (2, 2), "a\nb.w": (3,), "[/]": (1,), "\x9b2Jx.weight": (2, 2), "\u202ebidi.weight": (2,)}


def test_a_pickle_is_read_by_another_process_where_that_is_asked_for(tmp_path: Path, say: Say) -> None:
    path = tmp_path / "v1.ckpt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
        file.writestr("archive/version", b"3")
    say(path, code=2, stderr="Its shapes can be read with --pickle, which runs no code of it")
    say(path, "--pickle", code=2, stderr="is refused: it holds more than tensors")


def test_hostile_names_do_nothing_to_a_terminal(tmp_path: Path, cli: Cli) -> None:
    path = write_sparse(tmp_path / "x.safetensors", HOSTILE)
    with finished(XTERM, "inspect", str(path)) as (terminal, code):
        assert code == 0 and mistakes(terminal.look()) == []
        shown = "\n".join(lines(terminal))
        assert "red[bold]" in shown and "a b" in shown and "[/] 1" in shown
        assert b"\x1b[31m" not in terminal.output() and "\u202e".encode() not in terminal.output()
    piped = cli.run("inspect", str(path))
    assert piped.returncode == 0 and not set(piped.stdout) & {"\x1b", "\x9b", "\u202e"}
    raw = cli.run("inspect", str(path), "--json").stdout
    assert raw.isascii() and raw.rstrip("\n").isprintable()
    keys = {weight["key"] for module in json.loads(raw)["components"][0]["modules"] for weight in module["weights"]}
    assert keys == set(HOSTILE)


def test_a_tree_is_drawn_on_a_terminal() -> None:
    with finished(XTERM, "inspect", "scenes-128", "--component", "vae", "--depth", "1") as (terminal, code):
        assert code == 0 and mistakes(terminal.look()) == []
        shown = lines(terminal)
        assert any(line.startswith("vae  AutoencoderKL") for line in shown)
        assert [line[:11] for line in shown if line[:1] in ("├", "└")] == [
            "├── encoder",
            "├── quant_c",
            "├── post_qu",
            "└── decoder",
        ]


def test_inspecting_imports_neither_torch_nor_rich_in_a_pipe(tmp_path: Path, cli: Cli) -> None:
    heavy = "{'torch', 'numpy', 'rich', 'textual', 'diffusers', 'transformers', 'safetensors'}"
    code = f"import sys; from sdtui.cli.app import main; main(sys.argv[1:]); print('heavy:', {heavy} & set(sys.modules))"
    path = write_sparse(tmp_path / "v1.safetensors", sd1())
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(path)], env=cli.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "heavy: set()"
    assert "859,520,964" in done.stdout
