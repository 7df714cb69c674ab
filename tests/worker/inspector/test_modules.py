"""A model's modules are those that its classes make, and what its files lack or have too much is said where it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, T5EncoderModel

from sdtui.anatomy.structs import Component, Module
from sdtui.bench.layouts import sd1, write_sparse
from sdtui.checkpoint import shipped_model_dir
from sdtui.params import SHIPPED_MODEL
from sdtui.worker.inspector.build import build
from sdtui.worker.inspector.keys import fit
from sdtui.worker.inspector.known import known
from sdtui.worker.inspector.meta import read_modules
from sdtui.worker.inspector.opened import open_component, open_model, stored
from sdtui.worker.inspector.problem import InspectionProblem

from .models import SD14, open_clip, sd14, write_folder

NETWORKS = ("unet", "vae", "text_encoder")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def read(model: Path | str, component: str) -> Component:
    return read_modules(open_model(str(model)), component)


def at(component: Component, path: str) -> Module:
    return next(module for module in component.modules if module.path == path)


def problems(component: Component) -> dict[str, tuple[str, ...]]:
    return {module.path: module.problems for module in component.modules if module.problems}


@pytest.fixture
def copy(tiny_dir: Path, tmp_path: Path) -> Path:
    """The tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_dir, tmp_path / "copy"))


def rewrite(folder: Path, component: str, **changed: torch.Tensor | None) -> None:
    """Change tensors of a component's file; dots in names are written as `__`."""
    file = next((folder / component).glob("*.safetensors"))
    tensors = load_file(file)
    for name, tensor in changed.items():
        key = name.replace("__", ".")
        if tensor is None:
            del tensors[key]
        else:
            tensors[key] = tensor
    save_file(tensors, file)


# --- what fits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_shipped_model_is_what_its_classes_make(name: str) -> None:
    found, anatomy = read(SHIPPED_MODEL, name), open_model(SHIPPED_MODEL).component(name)
    assert anatomy is not None
    assert not problems(found) and not found.problems
    assert found.root.total_parameters == anatomy.root.total_parameters
    assert found.root.bytes == anatomy.root.bytes
    assert found.root.dtypes == ("F16",)
    assert {weight.key for module in found.modules for weight in module.weights} == {
        weight.key for weight in stored(anatomy).values()
    }


def test_modules_are_those_of_the_class_in_its_order(tiny_dir: Path) -> None:
    config = json.loads((tiny_dir / "unet" / "config.json").read_text())
    real = UNet2DConditionModel.from_config(config)
    found = read(tiny_dir, "unet")
    assert [(module.path, module.class_name) for module in found.modules] == [
        (path, type(module).__name__) for path, module in real.named_modules()
    ]
    for module in found.modules:
        inside = real.get_submodule(module.path)
        assert module.total_parameters == sum(parameter.numel() for parameter in inside.parameters())
        assert module.own_parameters == sum(parameter.numel() for parameter in inside.parameters(recurse=False))


def test_settings_that_matter_are_told(tiny_dir: Path) -> None:
    found = read(tiny_dir, "unet")
    assert at(found, "conv_in").settings == {"in": "4", "out": "32", "kernel": "3x3", "stride": "1x1", "padding": "1x1"}
    assert at(found, "down_blocks.0.resnets.0.norm1").settings == {"groups": "8", "channels": "32", "eps": "1e-05"}
    attention = at(found, "down_blocks.0.attentions.0.transformer_blocks.0.attn2").settings
    assert attention["heads"] == "4" and attention["head dim"] == "8" and attention["context"] == "32"
    query = at(found, "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q").settings
    assert query == {"in": "32", "out": "32", "bias": "none"}
    assert found.root.settings["block_out_channels"] == "32, 64"
    text = read(tiny_dir, "text_encoder")
    assert at(text, "embeddings.token_embedding").settings["width"] == "32"
    assert at(text, "encoder.layers.0.self_attn").settings["heads"] == "4"
    assert at(text, "final_layer_norm").settings == {"channels": "32", "eps": "1e-05"}


@pytest.mark.parametrize(
    ("name", "class_name", "setting"),
    [("scheduler", "PNDMScheduler", "beta_schedule"), ("tokenizer", "CLIPTokenizer", "model_max_length")],
)
def test_schedulers_and_tokenizers_are_their_settings(tiny_dir: Path, name: str, class_name: str, setting: str) -> None:
    found = read(tiny_dir, name)
    assert (found.class_name, len(found.modules), found.problems) == (class_name, 1, ())
    assert setting in found.root.settings


def test_without_weights_the_configuration_still_says_it_all(tmp_path: Path) -> None:
    folder = sd14(tmp_path / "sd14")
    found = {name: read(folder, name) for name in NETWORKS}
    assert {name: component.root.total_parameters for name, component in found.items()} == {
        "unet": 859_520_964,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
    }
    assert len(found["unet"].modules) == 709, "708 and the network itself"
    assert found["unet"].problems == ("There are no weights; the modules are those of the configuration.",)
    assert not problems(found["unet"]) and found["unet"].root.bytes == 0


# --- single files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_single_file_of_sd_1_fits_what_is_known_of_it(tmp_path: Path, name: str) -> None:
    found = read(write_sparse(tmp_path / "sd1.safetensors", sd1()), name)
    kind = SD14[name][1]
    assert (found.class_name, found.problems, problems(found)) == (kind, (), {})
    weight = next(weight for module in found.modules for weight in module.weights)
    assert weight.dtype == "F32" and weight.key, "where it lies in the file"


@pytest.mark.parametrize("name", ["unet", "vae"])
def test_names_are_matched_as_diffusers_converts_them(tmp_path: Path, name: str) -> None:
    shapes = sd1()
    opened = open_component(open_model(str(write_sparse(tmp_path / "sd1.safetensors", shapes))), name)
    assert opened.network is not None
    checkpoint = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    convert = convert_ldm_unet_checkpoint if name == "unet" else convert_ldm_vae_checkpoint
    converted = convert(checkpoint, SD14[name][2])
    mine = fit(name, opened.network, stored(opened.component)).filled
    assert mine.keys() == converted.keys()
    for key, tensor in converted.items():
        size = [side for side in mine[key][1] if side != 1]
        assert size == [side for side in tensor.shape if side != 1], key


def test_the_inpainting_network_takes_nine_channels(tmp_path: Path) -> None:
    found = read(write_sparse(tmp_path / "inpaint.safetensors", sd1(inputs=9)), "unet")
    assert not problems(found) and at(found, "conv_in").settings["in"] == "9"


@pytest.mark.parametrize(
    ("family", "name", "parameters"),
    [
        ("SD 1.x", "unet", 859_520_964),
        ("SD 2.x", "unet", 865_910_724),
        ("SD 2.x", "text_encoder", 340_387_840),
        ("SDXL", "unet", 2_567_463_684),
        ("SDXL", "text_encoder", 123_060_480),
        ("SDXL", "text_encoder_2", 694_659_840),
        ("SDXL", "vae", 83_653_863),
    ],
)
def test_known_configurations_have_the_published_parameters(family: str, name: str, parameters: int) -> None:
    import diffusers
    import transformers

    described = known(family, name, {})
    assert described is not None
    library: Any = diffusers if described.library == "diffusers" else transformers
    network = build(getattr(library, described.class_name), described.config)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("family", "name", "width", "layers", "prefix"),
    [
        ("SD 2.x", "text_encoder", 1024, 24, ""),
        ("SDXL", "text_encoder_2", 1280, 32, ""),
    ],
)
def test_open_clip_fills_clip(tmp_path: Path, family: str, name: str, width: int, layers: int, prefix: str) -> None:
    import transformers

    described = known(family, name, {})
    assert described is not None
    network = build(getattr(transformers, described.class_name), described.config)
    path = write_sparse(tmp_path / "open_clip.safetensors", open_clip(width, layers, prefix), dtype="F16")
    anatomy = open_model(str(path))
    found = fit("text_encoder", network, stored(anatomy.components[0]))
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert {key: shape for key, (_, shape) in found.filled.items()} == expected
    assert not found.unexpected, "the last layer, where it is never asked, is nothing strange"


def test_a_family_that_is_not_known_shows_what_the_file_tells(tmp_path: Path) -> None:
    shapes = {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (12, 4)}
    found = read(write_sparse(tmp_path / "sd3.safetensors", shapes), "transformer")
    assert found.root.total_parameters == 48
    assert any("No configuration" in problem for problem in found.problems)


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_missing_unexpected_and_odd_tensors_are_said_at_their_module(copy: Path) -> None:
    rewrite(
        copy,
        "unet",
        conv_in__weight=torch.zeros(32, 9, 3, 3),
        mid_block__resnets__0__norm1__bias=None,
        mid_block__resnets__0__adapter__up__weight=torch.zeros(3),
        stray=torch.zeros(2),
    )
    found = read(copy, "unet")
    assert problems(found) == {
        "": ("stray [2] is in the file, and has no place here",),
        "conv_in": ("weight has the shape [32, 9, 3, 3], and [32, 4, 3, 3] is expected",),
        "mid_block.resnets.0": ("adapter.up.weight [3] is in the file, and has no place here",),
        "mid_block.resnets.0.norm1": ("bias is missing: [64] is expected",),
    }
    lacking = {weight.name: (weight.dtype, weight.bytes, weight.key) for weight in at(found, "mid_block.resnets.0.norm1").weights}
    assert lacking == {"weight": ("F32", 256, "mid_block.resnets.0.norm1.weight"), "bias": ("", 0, "")}


def test_thousands_of_strange_tensors_are_summed_up(copy: Path) -> None:
    rewrite(copy, "vae", **{f"strange_{number}": torch.zeros(1) for number in range(50)})
    told = at(read(copy, "vae"), "").problems
    assert len(told) == 21 and told[-1] == "and 30 more like these"


def test_old_names_and_constants_are_no_problems(copy: Path) -> None:
    file = copy / "vae" / WEIGHTS
    tensors = load_file(file)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, tensor in tensors.items():
        for new, before in old.items():
            name = name.replace(new, before)  # noqa: PLW2901
        renamed[name] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, file)
    real = AutoencoderKL.from_pretrained(copy / "vae", local_files_only=True)
    assert torch.equal(
        real.state_dict()["decoder.mid_block.attentions.0.to_q.weight"], tensors["decoder.mid_block.attentions.0.to_q.weight"]
    )
    assert not problems(read(copy, "vae"))
    text = copy / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(text).items()}
    save_file(tensors | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, text)
    assert CLIPTextModel.from_pretrained(copy / "text_encoder", local_files_only=True) is not None
    assert not problems(read(copy, "text_encoder"))


def test_a_tied_matrix_is_stored_once_and_not_missed(tmp_path: Path) -> None:
    config = {"vocab_size": 32, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "model_type": "t5"}
    network = build(T5EncoderModel, config)
    names = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if name != "encoder.embed_tokens.weight"}
    assert "shared.weight" in names
    folder = write_folder(tmp_path / "t5", {"text_encoder": ("transformers", "T5EncoderModel", config)}, "FluxPipeline")
    write_sparse(folder / "text_encoder" / "model.safetensors", names)
    assert not problems(read(folder, "text_encoder"))


def test_a_component_that_is_not_there_is_named_with_those_that_are(tiny_dir: Path) -> None:
    with pytest.raises(InspectionProblem, match=r"no component 'transformer'; it has unet, vae, text_encoder"):
        read(tiny_dir, "transformer")


def test_a_model_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InspectionProblem, match="nowhere"):
        open_model(str(tmp_path / "nowhere"))


# --- configurations that are broken or mean harm --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("component", "config", "says"),
    [
        ("unet", {"block_out_channels": [320, 640]}, "does not take this configuration"),
        ("unet", {"layers_per_block": 2_000_000}, "'layers_per_block' is 2e+06, more than any model's"),
        ("unet", {"layers_per_block": 900}, "more than 50,000 modules"),
        ("unet", {"cross_attention_dim": 10**12}, "more than any model's"),
        ("text_encoder", {"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1e+09"),
        ("text_encoder", {"hidden_act": "no such"}, "does not take this configuration"),
        ("text_encoder", {"num_attention_heads": 7}, "does not take this configuration"),
    ],
)
def test_a_configuration_that_makes_no_network_is_said(tmp_path: Path, component: str, config: dict[str, Any], says: str) -> None:
    found = read(sd14(tmp_path / "odd", **{component: config}), component)
    assert len(found.problems) == 1 and says in found.problems[0]


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "\xff"])
def test_a_configuration_that_is_none_is_said(copy: Path, text: str) -> None:
    (copy / "vae" / "config.json").write_bytes(text.encode("latin-1"))
    found = read(copy, "vae")
    assert found.problems and found.root.total_parameters > 0, "what the file holds is shown all the same"


def test_no_code_of_a_model_is_run(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = copy / "ran"
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nclass Mine: pass\n"
    for place in (copy / "mine.py", copy / "unet" / "mine.py", copy / "unet" / "modeling.py"):
        place.write_text(code)
    monkeypatch.syspath_prepend(str(copy))
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Mine"}}))
    for library, kind in (("mine", "Mine"), ("diffusers", "DiffusionPipeline"), ("os", "system"), ("../unet", "Mine")):
        index = json.loads((copy / "model_index.json").read_text())
        (copy / "model_index.json").write_text(json.dumps(index | {"unet": [library, kind]}))
        found = read(copy, "unet")
        assert not ran.exists()
        assert any("no other code is run" in problem for problem in found.problems), (library, kind)
        assert found.root.total_parameters > 0


def test_no_kernel_of_the_hub_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.modeling_utils as modeling

    asked: list[Any] = []
    monkeypatch.setattr(modeling, "is_kernel", lambda name: asked.append(name) and False)
    for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        folder = sd14(tmp_path / key, text_encoder={key: "somebody/kernel"})
        assert read(folder, "text_encoder").root.total_parameters == 123_060_480
    assert "somebody/kernel" not in asked
    assert asked, "the place where it would have been fetched was passed"


def test_shards_are_read_as_one(copy: Path) -> None:
    file = copy / "unet" / WEIGHTS
    tensors = load_file(file)
    file.unlink()
    halves: list[Mapping[str, torch.Tensor]] = [
        {name: tensor for index, (name, tensor) in enumerate(tensors.items()) if index % 2 == half} for half in (0, 1)
    ]
    weight_map = {}
    for number, half in enumerate(halves, 1):
        shard = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file(dict(half), copy / "unet" / shard)
        weight_map |= dict.fromkeys(half, shard)
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = read(copy, "unet")
    assert not problems(found) and len(found.files) == 2
    assert {weight.file for module in found.modules for weight in module.weights} == {0, 1}


def test_the_shipped_folder_alone_is_a_component_too() -> None:
    found = read(shipped_model_dir() / "vae", "vae")
    assert found.class_name == "AutoencoderKL" and not problems(found)
