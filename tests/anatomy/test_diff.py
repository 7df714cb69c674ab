"""Comparing two models, and the two layouts of one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdtui.anatomy.diff import Difference, diff
from sdtui.anatomy.layout import in_diffusers
from sdtui.anatomy.read import open_anatomy
from sdtui.bench.layouts import Shapes, clip, sd1, unet, vae, write_sparse
from sdtui.checkpoint import shipped_model_dir

pytestmark = pytest.mark.xdist_group("diff")  # the networks of diffusers are built once

SMALL = {"channels": 32, "vae_channels": 32, "words": 100}

LISTS_KEYS = """
import json, sys, torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel
with torch.device("meta"):
    down = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    unet = UNet2DConditionModel(
        block_out_channels=(320, 640, 1280, 1280), down_block_types=down, cross_attention_dim=768, attention_head_dim=8,
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )
    clip = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
models = {"unet": unet, "vae": vae, "text_encoder": clip}
print(json.dumps({name: {k: list(v.shape) for k, v in model.named_parameters()} for name, model in models.items()}))
"""


@pytest.fixture(scope="module")
def real() -> dict[str, Shapes]:
    """The parameters of SD 1.x' U-Net, VAE and text encoder as diffusers and transformers build them."""
    done = subprocess.run([sys.executable, "-c", LISTS_KEYS], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: {key: tuple(shape) for key, shape in shapes.items()} for name, shapes in found.items()}


@pytest.mark.parametrize(("component", "original"), [("unet", unet()), ("vae", vae()), ("text_encoder", clip())])
def test_the_first_layout_is_mapped_to_what_diffusers_builds(real: dict[str, Shapes], component: str, original: Shapes) -> None:
    modules = {name.rpartition(".")[0] for name in original}
    renamed = in_diffusers(component, modules)
    mapped: Shapes = {}
    for name, shape in original.items():
        module, _, tensor = name.rpartition(".")
        mapped[f"{renamed.get(module, module)}.{tensor}"] = shape
    mapped.pop("embeddings.position_ids", None)
    assert mapped.keys() == {key.removeprefix("text_model.") for key in real[component]}
    odd = {key for key, shape in real[component].items() if mapped[key.removeprefix("text_model.")] != shape}
    assert all(component == "vae" and "mid_block.attentions" in key for key in odd), "1x1 convolutions became linear layers"


def both(tmp_path: Path, left: Shapes, right: Shapes, right_dtype: str = "F32") -> list[Difference]:
    one = open_anatomy(write_sparse(tmp_path / "left.safetensors", left))
    return diff(one, open_anatomy(write_sparse(tmp_path / "right.safetensors", right, right_dtype)))


def test_a_model_does_not_differ_from_itself_nor_by_constants(tmp_path: Path) -> None:
    shapes = sd1(**SMALL)
    without = {name: shape for name, shape in shapes.items() if "position_ids" not in name}
    assert both(tmp_path, shapes, without) == []


def test_both_layouts_of_one_model_are_the_same(tmp_path: Path, real: dict[str, Shapes]) -> None:
    single = {f"model.diffusion_model.{name}": shape for name, shape in unet().items()}
    single |= {f"first_stage_model.{name}": shape for name, shape in vae().items()}
    folder = {f"{component}.{name}": shape for component in ("unet", "vae") for name, shape in real[component].items()}
    assert both(tmp_path, single, folder) == []


def test_shapes_dtypes_and_branches_that_differ_are_named(tmp_path: Path) -> None:
    inpainting = sd1(**SMALL, inputs=9)
    gone = {name: shape for name, shape in inpainting.items() if "diffusion_model.middle_block.1." not in name}
    gone |= {"model.diffusion_model.extra.deep.weight": (1,), "model.diffusion_model.out.2.gain": (1,)}
    found = {(d.path, d.what, d.name, d.left, d.right, d.tensors) for d in both(tmp_path, sd1(**SMALL), gone)}
    assert found == {
        ("conv_in", "shape", "weight", "[32, 4, 3, 3]", "[32, 9, 3, 3]", 1),
        ("mid_block.attentions", "only left", "", "", "", 26),
        ("extra", "only right", "", "", "", 1),
        ("conv_out", "only right", "gain", "", "", 1),
    }


def test_components_of_other_classes_differ_where_both_say_their_class(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped_model_dir(), tmp_path / "copy"))
    index = copy / "model_index.json"
    index.write_text(index.read_text().replace("DPMSolverMultistepScheduler", "DDIMScheduler"))
    (found,) = diff(open_anatomy("scenes-128"), open_anatomy(copy))
    assert (found.component, found.what) == ("scheduler", "class")
    assert (found.left, found.right) == ("DPMSolverMultistepScheduler", "DDIMScheduler")


def test_another_dtype_is_a_difference_of_every_tensor_and_a_lost_component_is_one(tmp_path: Path) -> None:
    shapes = {f"first_stage_model.{name}": shape for name, shape in vae(32).items()}
    found = both(tmp_path, shapes | {"model.diffusion_model.out.2.weight": (2, 2)}, shapes, "F16")
    assert [(d.component, d.path, d.what, d.tensors) for d in found if d.what != "dtype"] == [("unet", "", "only left", 1)]
    assert len([d for d in found if (d.what, d.left, d.right) == ("dtype", "F32", "F16")]) == len(shapes)
