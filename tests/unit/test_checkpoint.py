"""What is in a model folder, by the standard library alone."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdtui.checkpoint import (
    CheckpointError,
    cached_models,
    check_model_folder,
    resolve_model,
    safetensors_header,
    shipped_model_dir,
    weights_kind,
)


def a_safetensors_file(tensor_bytes: int = 16, header: dict[str, object] | None = None) -> bytes:
    header = header or {"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "__metadata__": {"format": "pt"}}
    body = json.dumps(header).encode()
    return len(body).to_bytes(8, "little") + body + bytes(tensor_bytes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a small diffusers model, whole."""
    path = tmp_path / "model"
    for component in ("unet", "vae", "text_encoder"):
        (path / component).mkdir(parents=True)
        (path / component / "config.json").write_text("{}")
        (path / component / "model.safetensors").write_bytes(a_safetensors_file())
    for component in ("scheduler", "tokenizer"):
        (path / component).mkdir()
        (path / component / "config.json").write_text("{}")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def test_a_whole_model_passes(folder: Path) -> None:
    check_model_folder(folder)


def test_the_model_that_ships_passes() -> None:
    check_model_folder(shipped_model_dir())


A_PICKLE = pickle.dumps({"weight": [1.0]})
A_ZIP = b"PK\x03\x04" + bytes(60)


def only(folder: Path, name: str, data: bytes) -> None:
    """The U-Net's weights are this file alone."""
    (folder / "unet" / "model.safetensors").unlink()
    (folder / "unet" / name).write_bytes(data)


def change_index(folder: Path, **changes: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def link(path: Path, target: Path) -> None:
    """Put a link in the place of a file or folder, which goes to where the link leads, if that is nothing yet."""
    if path == target:
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    elif target.exists():
        path.unlink()
    else:
        path.rename(target)
    path.symlink_to(target)


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    "index not JSON": (lambda f: (f / "model_index.json").write_text("{"), "model_index.json is not valid JSON"),
    "index a list": (lambda f: (f / "model_index.json").write_text("[]"), "should hold a JSON object"),
    "index names no pipeline": (lambda f: (f / "model_index.json").write_text("{}"), "_class_name"),
    "index too deep": (lambda f: (f / "model_index.json").write_text("[" * 100_000), "not valid JSON"),
    "component missing": (lambda f: (f / "vae").rename(f / "vea"), "vae is missing"),
    "no weights": (lambda f: (f / "unet/model.safetensors").unlink(), "unet holds no weights"),
    "no config": (lambda f: (f / "unet/config.json").unlink(), "unet/config.json is missing"),
    "empty tokenizer": (lambda f: (f / "tokenizer/config.json").unlink(), "tokenizer is empty"),
    "truncated": (lambda f: (f / "unet/model.safetensors").write_bytes(a_safetensors_file()[:-4]), "truncated"),
    "empty file": (lambda f: (f / "unet/model.safetensors").write_bytes(b""), "truncated or not a safetensors"),
    "garbage": (lambda f: (f / "unet/model.safetensors").write_bytes(b"garbage! " * 50), "not a safetensors"),
    "short garbage": (lambda f: (f / "unet/model.safetensors").write_bytes(b"PK"), "not a safetensors"),
    "header not JSON": (lambda f: (f / "unet/model.safetensors").write_bytes((4).to_bytes(8, "little") + b"abcd"), "not JSON"),
    "only a pickle": (lambda f: only(f, "diffusion_pytorch_model.bin", A_PICKLE), r"model.bin is a pickle.*allow_pickle = true"),
    "only a zip": (lambda f: only(f, "diffusion_pytorch_model.bin", A_ZIP), r"model.bin is a pickle.*can run any code"),
    "a pickle named safetensors": (
        lambda f: only(f, "model.safetensors", A_PICKLE),
        "is a pickle under the name of a safetensors",
    ),
    "a zip named safetensors": (lambda f: only(f, "model.safetensors", A_ZIP), "is a pickle under the name of a safetensors"),
    "safetensors named bin": (lambda f: only(f, "model.bin", a_safetensors_file()), "rename it to model.safetensors"),
    "a pipeline of its own": (lambda f: change_index(f, _class_name=["pipeline", "Mine"]), "code that comes with a model"),
    "a component of its own": (
        lambda f: (change_index(f, unet=["mine", "UNet"]), (f / "unet/mine.py").write_text("")),
        "'mine': code that comes with a model",
    ),
    "a component from anywhere": (lambda f: change_index(f, unet=["../x", "UNet"]), "code that comes with a model"),
    "an auto_map": (lambda f: (f / "unet/config.json").write_text('{"auto_map": {}}'), "has an `auto_map`"),
    "an auto_map in the tokenizer": (
        lambda f: (f / "tokenizer/tokenizer_config.json").write_text('{"auto_map": {}}'),
        "has an `auto_map`",
    ),
    "a kernel from the hub": (
        lambda f: (f / "unet/config.json").write_text('{"attn_implementation": "owner/kernel"}'),
        "the kernel 'owner/kernel': code from a hub is never run",
    ),
    "a kernel in a config inside": (
        lambda f: (f / "unet/config.json").write_text('{"text_config": {"_attn_implementation": {"text": "owner/kernel"}}}'),
        "the kernel 'owner/kernel'",
    ),
    "a link that leaves": (lambda f: link(f / "unet/model.safetensors", f.parent / "elsewhere"), "outside the model"),
    "a config that leaves": (lambda f: link(f / "vae/config.json", Path("/etc/passwd")), "is a link to /etc/passwd, outside"),
    "a folder that leaves": (lambda f: link(f / "scheduler", f.parent), "outside the model"),
    "a link in a circle": (lambda f: link(f / "unet/model.safetensors", f / "unet/model.safetensors"), "leads nowhere"),
    "a shard elsewhere": (
        lambda f: (f / "unet/model.safetensors.index.json").write_text('{"weight_map": {"a": "../../x.safetensors"}}'),
        "no .safetensors file beside it",
    ),
    "a shard that is a pickle": (
        lambda f: (f / "unet/model.safetensors.index.json").write_text('{"weight_map": {"a": "x.bin"}}'),
        "no .safetensors file beside it",
    ),
    "shard missing": (
        lambda f: (f / "unet/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part-2.safetensors"}})),
        "part-2.safetensors is missing",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_named(folder: Path, name: str) -> None:
    break_it, says = BREAKS[name]
    break_it(folder)
    with pytest.raises(CheckpointError, match=says) as problem:
        check_model_folder(folder)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("data", [A_PICKLE, A_ZIP])
def test_a_pickle_passes_where_it_is_allowed(folder: Path, data: bytes) -> None:
    only(folder, "diffusion_pytorch_model.bin", data)
    check_model_folder(folder, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "data"), [("model.bin", b"garbage! " * 50), ("model.bin", a_safetensors_file()), ("model.safetensors", A_PICKLE)]
)
def test_what_is_no_pickle_or_hides_one_is_refused_where_pickles_are_allowed_too(folder: Path, name: str, data: bytes) -> None:
    only(folder, name, data)
    with pytest.raises(CheckpointError, match=name):
        check_model_folder(folder, allow_pickle=True)


def test_a_pickle_and_code_that_nothing_names_are_no_reason_to_refuse(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(A_PICKLE)
    (folder / "pipeline.py").write_text("raise SystemExit")
    check_model_folder(folder)


def test_links_may_lead_about_in_a_model_and_to_the_blobs_of_the_hubs_cache(folder: Path) -> None:
    repo = folder.parent / "models--a--b"
    (repo / "blobs").mkdir(parents=True)
    snapshot = repo / "snapshots" / "abc"
    snapshot.parent.mkdir()
    folder.rename(snapshot)
    link(snapshot / "unet" / "model.safetensors", repo / "blobs" / "0123")
    link(snapshot / "vae" / "config.json", snapshot / "shared.json")
    check_model_folder(snapshot)
    link(snapshot / "vae" / "model.safetensors", repo / "refs")
    with pytest.raises(CheckpointError, match="outside the model"):
        check_model_folder(snapshot)


@given(st.binary(max_size=40))
def test_no_bytes_are_two_kinds_of_weights(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(data)
        kind = weights_kind(path)
        if kind == "pickle":
            assert data[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
            with pytest.raises(CheckpointError):
                safetensors_header(path)


def test_a_missing_an_empty_and_a_plain_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.safetensors").write_bytes(a_safetensors_file())
    for name, says in (("missing", "does not exist"), ("empty", "is empty"), ("file.safetensors", "is a file")):
        with pytest.raises(CheckpointError, match=says):
            check_model_folder(tmp_path / name)


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        ({"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]}, "do not fit shape"),
        ({"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 0]}, "impossible"),
        ({"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}, "impossible"),
        ({"dtype": "F32", "shape": [2, 2]}, "does not say"),
        ({"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 10**12]}, "truncated"),
        ("text", "does not say"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, tensor: object, says: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(a_safetensors_file(header={"weight": tensor}))
    with pytest.raises(CheckpointError, match=says):
        safetensors_header(path)


def test_a_header_that_promises_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="promise a header"):
        safetensors_header(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), keep=st.integers(0, 200))
def test_any_bytes_are_a_header_or_a_named_error(tmp_path: Path, data: bytes, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(a_safetensors_file()[:keep] + data)
    try:
        assert isinstance(safetensors_header(path), dict)
    except CheckpointError as error:
        assert str(error).startswith(str(path))


def test_names_resolve_to_folders_and_hub_ids(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model("scenes-128") == shipped_model_dir()
    assert resolve_model(str(folder)) == folder
    assert resolve_model("stabilityai/sd-turbo") == "stabilityai/sd-turbo"
    monkeypatch.chdir(folder.parent.parent)
    assert resolve_model(f"{folder.parent.name}/model") == folder, "a folder that exists wins over a hub id"


@pytest.mark.parametrize(
    "name", ["/no/such", "./nothing", "~/nothing", "scenes-129", "a/b/c", "-/-", "\x1b[31m", "a b/c", "x" * 5000, "\0"]
)
def test_a_name_that_is_nothing_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError) as problem:
        resolve_model(name)
    assert "\x1b" not in str(problem.value)
    assert len(str(problem.value)) < 400


def test_the_hub_cache_is_listed_without_the_hub(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = home / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    repo = cache / "models--somebody--some-model"
    (repo / "snapshots").mkdir(parents=True)
    folder.rename(repo / "snapshots" / "abc123")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc123")
    (cache / "models--other--not-a-pipeline" / "snapshots" / "1").mkdir(parents=True)
    (cache / "datasets--a--b").mkdir()
    shipped, found = cached_models()
    assert (shipped.name, shipped.source) == ("scenes-128", "shipped")
    assert (found.name, found.revision, found.pipeline_class) == ("somebody/some-model", None, "StableDiffusionPipeline")
    assert found.problem == "" and found.size_bytes > 0
    (found.path / "unet" / "model.safetensors").write_bytes(b"x")
    assert "unet" in cached_models()[1].problem


def test_nothing_heavy_is_imported() -> None:
    heavy = "('torch', 'safetensors', 'huggingface_hub', 'numpy')"
    code = f"import sys, sdtui.checkpoint; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
