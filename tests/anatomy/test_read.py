"""Opening models: what is on the disk is what the anatomy says, and what is broken is one line."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from sdtui.anatomy.files import MAX_HEADER_BYTES
from sdtui.anatomy.read import open_anatomy
from sdtui.anatomy.structs import Anatomy, AnatomyError
from sdtui.anatomy.tree import ModuleTree
from sdtui.bench.layouts import clip, sd1, unet, vae, write_sparse
from sdtui.checkpoint import shipped_model_dir


def a_header(tensors: object, data_bytes: int = 16) -> bytes:
    body = json.dumps(tensors).encode()
    return len(body).to_bytes(8, "little") + body + bytes(data_bytes)


def a_tensor(begin: int = 0, end: int = 16, **changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [begin, end]} | changes


def totals(anatomy: Anatomy) -> dict[str, int]:
    return {component.name: component.root.total_parameters for component in anatomy.components}


def settings_at(anatomy: Anatomy, component: str, path: str) -> dict[str, str]:
    found = anatomy.component(component)
    assert found
    module = ModuleTree(found).module(path)
    assert module
    return module.settings


# --- what can be opened ---------------------------------------------------------------------------------------------


def test_the_shipped_model_is_what_the_safetensors_library_says() -> None:
    anatomy = open_anatomy("scenes-128")
    assert (anatomy.kind, anatomy.metadata) == ("pipeline", {"pipeline": "StableDiffusionPipeline"})
    assert [component.name for component in anatomy.components] == ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
    for component in anatomy.components[:3]:
        (path,) = component.files
        with safe_open(path, "np") as file:
            expected = {
                key: (tuple(file.get_slice(key).get_shape()), file.get_slice(key).get_dtype()) for key in sorted(file.keys())
            }
        found = {w.key: (w.shape, w.dtype) for module in component.modules for w in module.weights}
        assert found == expected
        assert component.root.total_parameters == sum(math.prod(shape) for shape, _ in expected.values())
        assert component.problems == () and not any(module.problems for module in component.modules)


def test_settings_come_from_shapes_and_from_the_configuration() -> None:
    anatomy = open_anatomy("scenes-128")
    assert settings_at(anatomy, "unet", "conv_in") == {"in": "4", "out": "64", "kernel": "3x3"}
    attention = "attentions.0.transformer_blocks.0.attn2"
    assert settings_at(anatomy, "unet", f"down_blocks.1.{attention}") == {"heads": "4", "head dim": "32"}
    assert settings_at(anatomy, "unet", f"mid_block.{attention}") == {"heads": "6", "head dim": "32"}
    assert settings_at(anatomy, "unet", f"up_blocks.2.{attention}") == {"heads": "2", "head dim": "32"}
    assert settings_at(anatomy, "unet", "conv_norm_out") == {"channels": "64", "groups": "16"}
    assert settings_at(anatomy, "text_encoder", "encoder.layers.1.self_attn") == {"heads": "4", "head dim": "32"}
    assert settings_at(anatomy, "scheduler", "")["num_train_timesteps"] == "1000"
    found = anatomy.component("unet")
    assert found
    blocks = {module.path: (module.class_name, module.guessed) for module in found.modules}
    assert blocks["down_blocks.0"] == ("CrossAttnDownBlock2D", False)
    assert blocks["up_blocks.0"] == ("UpBlock2D", False)
    assert blocks["mid_block.resnets.0"] == ("ResnetBlock2D", True)
    assert blocks[""] == ("UNet2DConditionModel", False)


def test_a_checkpoint_of_four_gigabytes_in_the_first_layout_is_opened_by_its_header(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "v1.safetensors", sd1())
    assert path.stat().st_size > 4_000_000_000
    anatomy = open_anatomy(str(path))
    assert (anatomy.kind, anatomy.family) == ("checkpoint", "SD 1.x") and anatomy.sure > 0.9
    assert totals(anatomy) == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    attention = "input_blocks.4.1.transformer_blocks.0.attn1"
    assert settings_at(anatomy, "unet", attention) == {"heads": "8", "head dim": "80"}
    assert settings_at(anatomy, "text_encoder", "text_model.encoder.layers.0.self_attn")["heads"] == "12"
    found = anatomy.component("unet")
    assert found
    module = ModuleTree(found).module("out.2")
    assert module and [weight.key for weight in module.weights] == [
        "model.diffusion_model.out.2.weight",
        "model.diffusion_model.out.2.bias",
    ]


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        (sd1(channels=32, context=1024, vae_channels=32, words=100), "SD 2.x"),
        (sd1(channels=32, inputs=9, vae_channels=32, words=100), "SD 1.x inpainting"),
        ({f"model.diffusion_model.{name}": shape for name, shape in unet(32, 2048).items()}, "SDXL"),
        ({"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (6, 2), "single_blocks.0.linear1.bias": (2,)}, "Flux"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (6, 2)}, "SD3"),
        (unet(32, 500), "unknown"),
        (vae(32), "unknown"),
        (clip(768, 1, 10), "SD 1.x"),
    ],
)
def test_the_family_is_told_by_names_and_shapes(tmp_path: Path, shapes: dict[str, tuple[int, ...]], family: str) -> None:
    anatomy = open_anatomy(write_sparse(tmp_path / "model.safetensors", shapes, "F16"))
    assert anatomy.family == family
    assert bool(anatomy.sure) == (family != "unknown")


def test_sdxls_two_text_encoders_are_told_apart(tmp_path: Path) -> None:
    shapes = {f"conditioner.embedders.0.transformer.{name}": shape for name, shape in clip(32, 1, 10).items()}
    shapes["conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"] = (3 * 128, 128)
    shapes |= {f"model.diffusion_model.{name}": shape for name, shape in unet(32, 2048).items()}
    shapes |= {f"first_stage_model.{name}": shape for name, shape in vae(32).items()} | {"betas": (1000,), "logit_scale": ()}
    anatomy = open_anatomy(write_sparse(tmp_path / "xl.safetensors", shapes))
    assert list(totals(anatomy)) == ["unet", "vae", "text_encoder", "text_encoder_2", "other"]
    assert settings_at(anatomy, "text_encoder_2", "transformer.resblocks.0.attn") == {"heads": "2", "head dim": "64"}
    assert totals(anatomy)["other"] == 1, "betas are constants"


@pytest.mark.parametrize(
    ("shapes", "kind", "component"),
    [
        (unet(32), "unet", "unet"),
        (vae(32), "vae", "vae"),
        (clip(32, 1, 10), "text encoder", "text_encoder"),
        ({f"control_model.{name}": shape for name, shape in unet(32).items()}, "controlnet", "controlnet"),
        ({"controlnet_cond_embedding.conv_in.weight": (2, 3, 3, 3), "conv_in.weight": (2, 4, 3, 3)}, "controlnet", "controlnet"),
        ({"a.weight": (2, 2), "b.c.weight": (3, 3)}, "weights", "weights"),
        ({"<cat>": (2, 768)}, "textual inversion", "embedding"),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "textual inversion", "embedding"),
    ],
)
def test_what_a_file_holds_is_told_by_its_names(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], kind: str, component: str
) -> None:
    anatomy = open_anatomy(write_sparse(tmp_path / "x.safetensors", shapes))
    assert (anatomy.kind, [part.name for part in anatomy.components]) == (kind, [component])
    assert anatomy.bytes == sum(math.prod(shape) * 4 for shape in shapes.values()) + (
        77 * 4 if component == "text_encoder" else 0
    )


def test_a_textual_inversion_says_for_which_family_it_was_made(tmp_path: Path) -> None:
    save_file({"emb_params": np.zeros((4, 1024), np.float16)}, tmp_path / "x.safetensors")
    anatomy = open_anatomy(tmp_path / "x.safetensors")
    assert (anatomy.kind, anatomy.family) == ("textual inversion", "SD 2.x")


def test_shards_are_one_tree(tmp_path: Path) -> None:
    arrays = {f"blocks.{n}.lin.weight": np.ones((2, n + 1), np.float32) for n in range(4)}
    names = list(arrays)
    parts = {"m-00001-of-00002.safetensors": names[:2], "m-00002-of-00002.safetensors": names[2:]}
    for part, keys in parts.items():
        save_file({key: arrays[key] for key in keys}, tmp_path / part)
    index = tmp_path / "m.safetensors.index.json"
    weight_map = {key: part for part, keys in parts.items() for key in keys}
    index.write_text(json.dumps({"weight_map": weight_map}))
    anatomy = open_anatomy(index)
    (component,) = anatomy.components
    assert component.root.total_parameters == 2 * (1 + 2 + 3 + 4) and anatomy.problems == ()
    where = {w.key: Path(component.files[w.file]).name for module in component.modules for w in module.weights}
    assert where == weight_map
    assert open_anatomy(tmp_path).components == anatomy.components, "a folder is opened by its index"
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    torn = open_anatomy(index)
    assert torn.components[0].root.total_parameters == 2 * (1 + 2)
    assert any("m-00002" in problem for problem in torn.problems) and any("2 tensors" in problem for problem in torn.problems)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    return Path(shutil.copytree(shipped_model_dir(), tmp_path / "model"))


def test_a_broken_component_leaves_the_others_to_be_seen(folder: Path) -> None:
    (folder / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"PK\x03\x04" + bytes(60))
    shutil.rmtree(folder / "tokenizer")
    (folder / "text_encoder/model.safetensors").rename(folder / "text_encoder/pytorch_model.bin")
    (folder / "unet/config.json").write_text("{")
    anatomy = open_anatomy(folder)
    said = {component.name: component.problems for component in anatomy.components}
    assert "is a pickle under the name" in said["vae"][0] and "is missing" in said["tokenizer"][0]
    assert "pickle" in said["text_encoder"][0] and "not valid JSON" in said["unet"][0]
    assert totals(anatomy)["unet"] == 8_788_228


def test_a_component_alone_and_a_hub_id_in_the_cache_are_opened(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet_alone = open_anatomy(folder / "unet")
    assert (unet_alone.kind, unet_alone.components[0].class_name) == ("unet", "UNet2DConditionModel")
    assert unet_alone.components[0].modules == open_anatomy(folder).components[0].modules
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    repo = home / "hub/models--somebody--control"
    (repo / "snapshots").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("abc")
    (folder / "unet").rename(repo / "snapshots/abc")
    (repo / "snapshots/abc/config.json").write_text('{"_class_name": "ControlNetModel"}')
    anatomy = open_anatomy("somebody/control")
    assert (anatomy.source, anatomy.kind) == ("somebody/control", "controlnet")
    with pytest.raises(AnatomyError, match="nobody/control is neither a path nor a model in the hub's cache"):
        open_anatomy("nobody/control")


def test_weight_and_bias_that_disagree_are_said_at_the_module(tmp_path: Path) -> None:
    path = write_sparse(
        tmp_path / "x.safetensors", {"a.lin.weight": (4, 2), "a.lin.bias": (3,), "b.weight": (4, 2), "b.bias": (4,)}
    )
    modules = {module.path: module.problems for module in open_anatomy(path).components[0].modules}
    assert "4 outputs" in modules["a.lin"][0] and modules["b"] == ()


# --- bad input ------------------------------------------------------------------------------------------------------


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return Path.touch, (Path("unpickled"),)  # type: ignore[return-value]


def a_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Bomb(), 2))


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "nothing there": ("x.safetensors", lambda p: None, "does not exist|neither"),
    "0 bytes": ("x.safetensors", lambda p: p.write_bytes(b""), "is empty: 0 bytes"),
    "7 bytes": ("x.safetensors", lambda p: p.write_bytes(b"1234567"), "truncated or not a safetensors file"),
    "a pickle": (
        "x.safetensors",
        lambda p: p.write_bytes(pickle.dumps(Bomb(), 2)),
        "is a pickle under the name of a safetensors",
    ),
    "a zip": ("x.safetensors", a_zip, "is a pickle under the name of a safetensors"),
    "a .ckpt": ("x.ckpt", a_zip, "can run any code when it is read.*Convert it to safetensors"),
    "a header longer than the file": (
        "x.safetensors",
        lambda p: p.write_bytes((500).to_bytes(8, "little") + b"{}"),
        "promise a header of 500 bytes",
    ),
    "a header of 100 MB": (
        "x.safetensors",
        lambda p: (p.write_bytes((100_000_000).to_bytes(8, "little") + b"{}"), os.truncate(p, 100_000_100)),
        "has a header of 95 MiB",
    ),
    "a header of 1 GB": (
        "x.safetensors",
        lambda p: (p.write_bytes((1 << 30).to_bytes(8, "little") + b"{}"), os.truncate(p, (1 << 30) + 100)),
        "has a header of 1.0 GiB",
    ),
    "negative offsets": ("x.safetensors", lambda p: p.write_bytes(a_header({"a": a_tensor(-16, 0)})), "tensor 'a'.*impossible"),
    "overlapping tensors": (
        "x.safetensors",
        lambda p: p.write_bytes(a_header({"a": a_tensor(), "b": a_tensor(8, 24)}, 24)),
        "tensor 'b': it overlaps with tensor 'a'",
    ),
    "an endless shape": ("x.safetensors", lambda p: p.write_bytes(a_header({"a": a_tensor(shape=[1] * 100)})), "impossible"),
    "infinity": ("x.safetensors", lambda p: p.write_bytes(a_header({"a": a_tensor(shape=[math.inf])})), "does not say"),
    "a shape of text": ("x.safetensors", lambda p: p.write_bytes(a_header({"a": a_tensor(shape="22")})), "does not say"),
    "half a character": (
        "x.safetensors",
        lambda p: p.write_bytes(a_header({"\ud800": a_tensor()})),
        "not valid Unicode",
    ),
    "a name without end": ("x.safetensors", lambda p: p.write_bytes(a_header({"x" * 5000: a_tensor()})), "name has 5,000"),
    "a name of 1000 modules": ("x.safetensors", lambda p: p.write_bytes(a_header({"." * 900: a_tensor()})), "name has 900"),
    "no tensors": ("x.safetensors", lambda p: p.write_bytes(a_header({})), "holds no tensors"),
    "a link in a circle": ("x.safetensors", lambda p: p.symlink_to(p), "cannot be read: Too many levels of symbolic links"),
    "a link to nothing": ("x.safetensors", lambda p: p.symlink_to(p.parent / "y"), "cannot be read: No such file"),
    "a pipe": ("x.safetensors", os.mkfifo, "but a pipe"),
    "an empty folder": ("x", lambda p: p.mkdir(), "holds no model"),
    "a folder of pickles": ("x", lambda p: (p.mkdir(), a_zip(p / "model.ckpt")), "holds pickles only, such as 'model.ckpt'"),
    "an index that is no JSON": ("m.index.json", lambda p: p.write_text("{"), "not valid JSON"),
    "an index of nothing": ("m.index.json", lambda p: p.write_text("{}"), "no `weight_map`"),
    "an index of numbers": ("m.index.json", lambda p: p.write_text('{"weight_map": {"a": 1}}'), "no `weight_map`"),
    "an index that leaves": (
        "m.index.json",
        lambda p: p.write_text('{"weight_map": {"a": "../x.safetensors"}}'),
        "no .safetensors file beside it",
    ),
    "an index of what is not there": (
        "m.index.json",
        lambda p: p.write_text('{"weight_map": {"a": "y.safetensors"}}'),
        "y.safetensors cannot be read",
    ),
    "a broken pipeline": ("x", lambda p: (p.mkdir(), (p / "model_index.json").write_text("[]")), "should hold a JSON object"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_file_and_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    file, make, says = BAD[name]
    make(tmp_path / file)
    with pytest.raises(AnatomyError, match=says) as error:
        open_anatomy(str(tmp_path / file))
    assert file in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600
    assert not (tmp_path / "unpickled").exists()


def test_a_header_just_below_the_limit_is_read(tmp_path: Path) -> None:
    body = json.dumps({"a": a_tensor()}).encode()
    body += b" " * (MAX_HEADER_BYTES - len(body))
    (tmp_path / "x.safetensors").write_bytes(len(body).to_bytes(8, "little") + body + bytes(16))
    assert open_anatomy(tmp_path / "x.safetensors").bytes == 16


def test_a_folder_without_permission_is_one_line(home: Path) -> None:
    """Root may read everything, so the process becomes nobody first."""
    code = (
        "import os, sys\nfrom sdtui.anatomy.read import open_anatomy, AnatomyError\n"
        "os.geteuid() == 0 and os.setuid(65534)\n"
        "try:\n open_anatomy(sys.argv[1])\nexcept AnatomyError as error:\n print(error)"
    )
    home.chmod(0o755)
    closed = home / "closed"
    closed.mkdir(mode=0o000)
    said = subprocess.run([sys.executable, "-c", code, str(closed)], capture_output=True, text=True, check=True).stdout
    assert said.startswith(str(closed)) and said.endswith("cannot be read: Permission denied.\n")


HOSTILE = [
    "\x1b[31mred.weight",
    "[bold]x[/bold].weight",
    "a\nb.weight",
    "\x9b2J.w",
    "..",
    "a..b",
    ".x",
    "x",
    "✂️.weight",
    "\u202egnp.weight",
]


def test_hostile_names_keep_their_raw_spelling_for_the_look_up(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "x.safetensors", dict.fromkeys(HOSTILE, (2, 2)), "F16", note="\x1b[31m")
    (component,) = open_anatomy(path).components
    assert sorted(weight.key for module in component.modules for weight in module.weights) == sorted(HOSTILE)


def test_opening_a_model_imports_nothing_heavy() -> None:
    heavy = "('torch', 'numpy', 'safetensors', 'huggingface_hub', 'diffusers', 'transformers', 'rich', 'textual')"
    code = (
        "import sys, importlib, pkgutil, sdtui.anatomy as a\n"
        "[importlib.import_module(f'sdtui.anatomy.{m.name}') for m in pkgutil.iter_modules(a.__path__)]\n"
        "from sdtui.anatomy.read import open_anatomy; open_anatomy('scenes-128')\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
