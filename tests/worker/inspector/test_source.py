"""What a module's code is, comes from the installed libraries and from nowhere else."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from diffusers.models.resnet import ResnetBlock2D
from transformers import CLIPTextModel

from sdtui.protocol import ReadSource, SourceRead
from sdtui.worker.inspector.opened import open_model
from sdtui.worker.inspector.problem import InspectionProblem
from sdtui.worker.inspector.source import read_source


def source(model: Path, component: str, path: str) -> SourceRead:
    return read_source(open_model(str(model)), ReadSource(request=2, model=str(model), component=component, path=path))


def test_a_block_of_diffusers_shows_its_forward(tiny_dir: Path) -> None:
    found = source(tiny_dir, "unet", "mid_block.resnets.0")
    assert found.class_name == "ResnetBlock2D"
    assert found.file == "diffusers/models/resnet.py"
    lines, line = inspect.getsourcelines(ResnetBlock2D.forward)
    assert (found.source, found.line) == ("".join(lines), line)
    assert found.signature.startswith("forward(self, input_tensor: torch.Tensor, temb: torch.Tensor")
    assert found.settings["in"] == "64"


def test_layers_of_torch_and_text_encoders_show_theirs(tiny_dir: Path) -> None:
    layer = source(tiny_dir, "unet", "conv_in")
    assert (layer.class_name, layer.file) == ("Conv2d", "torch/nn/modules/conv.py")
    assert "_conv_forward" in layer.source and layer.settings["kernel"] == "3x3"
    text = source(tiny_dir, "text_encoder", "")
    assert text.class_name == "CLIPTextModel"
    assert text.source == inspect.getsource(inspect.unwrap(CLIPTextModel.forward))
    assert text.python_module.startswith("transformers.")


@pytest.mark.parametrize(
    ("component", "path", "says"),
    [
        ("unet", "down_blocks", "A ModuleList has no forward"),
        ("unet", "down_blocks.99", r"has no module 'down_blocks.99'"),
        ("unet", "__class__", r"has no module '__class__'"),
        ("scheduler", "", "is no network"),
        ("nothing", "", "no component 'nothing'"),
    ],
)
def test_what_has_no_code_is_said(tiny_dir: Path, component: str, path: str, says: str) -> None:
    with pytest.raises(InspectionProblem, match=says):
        source(tiny_dir, component, path)


def test_a_models_own_code_is_not_shown(tiny_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "mine.py").write_text("raise SystemExit('it was run')\n")
    (folder / "unet" / "config.json").write_text((tiny_dir / "unet" / "config.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", "unet": ["mine", "Mine"]}))
    with pytest.raises(InspectionProblem, match="no other code is run"):
        source(folder, "unet", "")
