"""A model's files are data: a pickle is read only if asked for, and runs nothing then either; no folder brings code along."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdtui.worker.errors import ModelProblem
from sdtui.worker.models import ModelRequest, find_local_problem, load_model

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture
def folder(tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model, to be changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    shutil.copytree(tiny_dir, tmp_path / "model")
    return tmp_path / "model"


def as_pickle(folder: Path, component: str, content: Any = None) -> Path:
    """Put a `.bin` in the place of a component's safetensors file."""
    file = folder / component / f"{WEIGHTS[component]}.safetensors"
    names = {"unet": "diffusion_pytorch_model.bin", "vae": "diffusion_pytorch_model.bin", "text_encoder": "pytorch_model.bin"}
    target = file.with_name(names[component])
    torch.save(load_file(file) if content is None else content, target)
    file.unlink()
    return target


@pytest.mark.parametrize("component", WEIGHTS)
def test_a_pickle_is_refused_and_loaded_if_asked_for(folder: Path, component: str) -> None:
    before = load_model(ModelRequest(str(folder)))
    as_pickle(folder, component)
    with pytest.raises(ModelProblem, match="is a pickle"):
        find_local_problem(ModelRequest(str(folder)))
    with pytest.raises(ModelProblem, match="is a pickle"):
        load_model(ModelRequest(str(folder)))
    after = load_model(ModelRequest(str(folder)), allow_pickle=True)
    one, other = (getattr(model.pipe, component).state_dict() for model in (before, after))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("component", WEIGHTS)
@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
def test_a_pickle_that_would_run_something_is_not_run(folder: Path, tmp_path: Path, component: str, kind: str) -> None:
    mark = tmp_path / "it-ran"
    target = as_pickle(folder, component, {"weight": Evil(mark)})
    if kind == "legacy":
        torch.save({"weight": Evil(mark)}, target, _use_new_zipfile_serialization=False)
    elif kind == "bare":
        target.write_bytes(pickle.dumps({"weight": Evil(mark)}, protocol=2))
    with pytest.raises(ModelProblem):
        load_model(ModelRequest(str(folder)), allow_pickle=True)
    assert not mark.exists()
    if kind == "bare":
        pickle.loads(target.read_bytes())
        assert mark.is_dir(), "the pickle was harmless, and the test said nothing"


@pytest.mark.parametrize("file", ["config", "unet", "pipeline"])
def test_code_in_a_models_folder_is_not_run(folder: Path, tmp_path: Path, file: str) -> None:
    mark = tmp_path / "it-ran"
    code = f"import os\nos.mkdir({str(mark)!r})\nclass Net: pass\n"
    index = json.loads((folder / "model_index.json").read_text())
    if file == "unet":
        (folder / "unet" / "net.py").write_text(code)
        index["unet"] = ["net", "Net"]
    elif file == "config":
        index["unet"] = ["os", "system"]
    else:
        (folder / "pipeline.py").write_text(code)
        index["_class_name"] = ["pipeline", "Net"]
    (folder / "model_index.json").write_text(json.dumps(index))
    for load in (find_local_problem, load_model):
        with pytest.raises(ModelProblem, match=r"model_index\.json"):
            load(ModelRequest(str(folder)), allow_pickle=True)  # type: ignore[operator]
    assert not mark.exists()


def test_no_variable_of_the_environment_turns_it_off(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    torch.save({"weight": Evil(mark)}, tmp_path / "evil.bin")
    code = f"""
from sdtui.worker.quiet import prepare_environment
prepare_environment(0, True)
import torch
try:
    torch.load({str(tmp_path / "evil.bin")!r})
except Exception as error:
    print("refused", type(error).__name__)
try:
    torch.load({str(tmp_path / "evil.bin")!r}, weights_only=False)
except Exception as error:
    print("refused", type(error).__name__)
"""
    environ = os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "DIFFUSERS_DISABLE_REMOTE_CODE": "0"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environ)
    assert done.stdout.splitlines() == ["refused UnpicklingError"] * 2
    assert not mark.exists()
