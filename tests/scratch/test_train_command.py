"""`sdtui train` as a command: tiny runs end to end, resuming, bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

import sdtui
from sdtui.scratch import train
from sdtui.scratch.evaluation import JUDGE_FILE

# All stages, with torch imported twice: a minute on idle cores, more on busy ones; so it is done once, for all tests here.
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("train-command")]
WEIGHTS = Path(sdtui.__file__).parent / "weights"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every stage run on a handful of samples, exported."""
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sdtui.scratch.train", "--state", folder / "state", "--out", folder / "model"),
            *("--samples", "64", "--pool", "80", "--json", "--threads", "2", "--device", "cpu"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


def test_all_stages_make_a_pipeline_that_makes_an_image(trained):
    folder, lines = trained
    assert lines[-1] == {"type": "train_exported", "path": str(folder / "model")}
    pipeline = DiffusionPipeline.from_pretrained(folder / "model", dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red cat", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.size == (128, 128)


def test_the_exported_files_are_fp16_safetensors_anyone_may_read(trained):
    folder, _ = trained
    files = sorted((folder / "model").rglob("*.safetensors"))
    assert len(files) == 3
    for path in files:
        header = path.read_bytes()[8:4000].decode("latin1")
        assert '"F16"' in header and '"F32"' not in header
        assert path.stat().st_mode & 0o444 == 0o444


def test_a_second_run_finds_every_stage_done(trained, capsys):
    folder, _ = trained
    arguments = ["--state", str(folder / "state"), "--samples", "64", "--only", "text", "--only", "unet", "--json"]
    before = torch.load(folder / "state" / "unet.pt", weights_only=True)["step"]
    assert train.main([*arguments, "--device", "cpu"]) == 0
    assert torch.load(folder / "state" / "unet.pt", weights_only=True)["step"] == before > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--device", "abacus"], "--device"),
        (["--minutes", "-3"], "--minutes"),
        (["--evaluate", "nowhere"], "--evaluate"),
        (["--evaluate", "broken"], "--evaluate"),
        (["--images", "0", "--evaluate", "broken"], "--images"),
        (["--only", "unet", "--state", "empty"], "--state"),
        (["--only", "export"], "--out"),
    ],
)
def test_bad_input_is_one_line_that_names_the_argument(arguments, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{}")
    (tmp_path / "train-state").mkdir()
    shutil.copy(WEIGHTS / JUDGE_FILE, tmp_path / "train-state")
    assert train.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and named in said


def test_a_broken_checkpoint_is_one_line_without_a_traceback(trained, capsys, tmp_path):
    folder, _ = trained
    state = tmp_path / "state"
    state.mkdir()
    for name in ("pool.npy", "tokenizer", "vae.safetensors", "text_encoder.safetensors", "latents.safetensors"):
        (state / name).symlink_to(folder / "state" / name)
    (state / "unet.pt").write_bytes(b"half a download")
    assert train.main(["--state", str(state), "--only", "unet", "--samples", "64", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "unet.pt is not a checkpoint" in said


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(train.UsageError):
        train.main(["--device", "abacus", "--debug", "--state", str(tmp_path)])
