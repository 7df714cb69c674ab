"""What is in a checkpoint on disk, without torch: where a model lies, whether its files are whole, and whether they are
what their names say. Content decides: a pickle is one under any name.

The safetensors format: 8 bytes little-endian header length, a JSON header that maps each tensor to dtype, shape and
`data_offsets`, then the data (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sdtui.params import SHIPPED_MODEL
from sdtui.text import format_bytes, safe_text

MODEL_INDEX: Final = "model_index.json"
MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors library itself."""
_MAX_DIMENSIONS: Final = 64
"""As many as torch can have."""
_MAX_SIZE: Final = 2**63 - 1
_MAX_CONFIG_BYTES: Final = 10_000_000
"""Configurations are a few kB; the largest weight index known is 1 MB."""
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}")
_DTYPE_BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_WITHOUT_WEIGHTS: Final = ("Scheduler", "Tokenizer", "TokenizerFast", "Processor", "ProcessorPil", "Extractor")
_OPTIONAL_COMPONENTS: Final = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
"""Loaded only when asked for."""
_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_PICKLE_PROTOCOLS: Final = (b"\x02", b"\x03", b"\x04", b"\x05")
"""The second byte of a pickle, after PROTO; older ones have no mark, and torch never wrote them."""
_CONFIGS: Final = ("config.json", "tokenizer_config.json", "preprocessor_config.json")
"""Where transformers and diffusers look for an `auto_map`."""
_WHY_NO_PICKLE: Final = "A pickle can run any code when it is read: convert it to safetensors."
_HOW_TO_ALLOW: Final = "If you trust whoever made it, set allow_pickle = true under [worker] in the settings."


class CheckpointError(Exception):
    """A model that cannot be used; the text names the file, what is wrong, and what would be right."""


@dataclass(frozen=True)
class ModelOnDisk:
    """A model that can be used without the network."""

    name: str
    """What to give as `model`."""
    path: Path
    source: Literal["shipped", "hub cache"]
    pipeline_class: str
    size_bytes: int
    revision: str | None = None
    problem: str = ""
    """Why it cannot be loaded; empty when it can."""


def shipped_model_dir() -> Path:
    """The model that lies in the package."""
    return Path(__file__).with_name("weights")


def resolve_model(name: str) -> Path | str:
    """A folder for the shipped model and for local ones, the id itself for a hub model. Raises `CheckpointError`.

    A folder that exists wins over a hub id of the same spelling.
    """
    if name == SHIPPED_MODEL:
        return shipped_model_dir()
    shown = repr(safe_text(name, limit=300))  # a path's end says most
    try:
        path = Path(name).expanduser()
        exists = path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError(f"Model {shown} is not a path that can be read: {safe_text(why or '', limit=120)}.") from error
    if exists:
        return path.absolute()
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise CheckpointError(f"Model folder {shown} does not exist. Name a diffusers folder, one with a {MODEL_INDEX}.")
    if _HUB_ID.fullmatch(name):
        return name
    raise CheckpointError(
        f"Model {shown} is neither a folder, nor a hub id such as owner/name, nor {SHIPPED_MODEL!r}, which ships with sdtui."
    )


def check_model_folder(path: Path, *, allow_pickle: bool = False) -> None:
    """Whether a diffusers folder can be loaded, by its index, configurations and the beginnings of its weight files.

    Raises `CheckpointError` naming the file: for pickles unless they are allowed, for code that the model brings along
    (pipelines, components and `auto_map` of its own), and for links that lead out of the folder. Python files that
    nothing names are never looked at. Reads no tensor: 2 GB of weights take a few milliseconds.
    """
    found = components(path)
    _check_links(path)
    for component, (library, class_name) in found.items():
        folder = path / component
        if component in _OPTIONAL_COMPONENTS and not folder.is_dir():
            continue
        if not folder.is_dir():
            raise CheckpointError(f"{_show(folder)} is missing: {MODEL_INDEX} says the model has a {component} ({class_name}).")
        _check_brings_no_code(folder, library)
        if not class_name.endswith(_WITHOUT_WEIGHTS):
            _check_component(folder, optional=component in _OPTIONAL_COMPONENTS, allow_pickle=allow_pickle)
        elif not any(folder.iterdir()):
            raise CheckpointError(f"{_show(folder)} is empty; it should hold the {component} ({class_name}).")


def _check_links(path: Path) -> None:
    """Links may lead about in the folder, and from a snapshot of the hub's cache to the blobs beside it."""
    root = path.resolve()
    inside = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    for file in (*path.glob("*"), *path.glob("*/*")):
        if not file.is_symlink():
            continue
        try:
            target = file.resolve()
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{_show(file)} is a link that leads nowhere.") from error
        if not any(target.is_relative_to(place) for place in inside):
            raise CheckpointError(f"{_show(file)} is a link to {_show(target)}, outside the model; put the file itself there.")


def _check_brings_no_code(folder: Path, library: str) -> None:
    if not library.isidentifier() or (folder / f"{library}.py").exists():
        what = f"{_show(folder.parent / MODEL_INDEX)} takes its {folder.name} from {safe_text(library, limit=80)!r}"
        raise CheckpointError(f"{what}: code that comes with a model is never run.")
    for name in _CONFIGS:
        if not (folder / name).is_file():
            continue
        config = read_json(folder / name)
        if "auto_map" in config:
            raise CheckpointError(f"{_show(folder / name)} has an `auto_map`: code that comes with a model is never run.")
        kernel = _kernel_of(config)
        if kernel:
            raise CheckpointError(f"{_show(folder / name)} asks for the kernel {kernel!r}: code from a hub is never run.")


def _kernel_of(config: object) -> str:
    """The hub's kernel that a configuration, or one inside it, wants for its attention or experts; empty where none does."""
    if not isinstance(config, dict):
        return ""
    for key, value in config.items():
        names = [part for part in (value.values() if isinstance(value, dict) else (value,)) if isinstance(part, str)]
        if "_implementation" in str(key):
            found = next((name for name in names if "/" in name), "")
            if found:
                return safe_text(found, limit=80)
        below = _kernel_of(value)
        if below:
            return below
    return ""


def components(path: Path) -> dict[str, tuple[str, str]]:
    """The components that a folder's `model_index.json` names, each with library and class. Raises `CheckpointError`."""
    if not path.exists():
        raise CheckpointError(f"Model folder {_show(path)} does not exist.")
    if not path.is_dir():
        raise CheckpointError(f"{_show(path)} is a file; the model must be a diffusers folder, one with a {MODEL_INDEX}.")
    index_path = path / MODEL_INDEX
    if not index_path.is_file():
        what = "is empty" if not any(path.iterdir()) else f"is not a diffusers model: it has no {MODEL_INDEX}"
        raise CheckpointError(f"{_show(path)} {what}. A model folder holds {MODEL_INDEX}, unet/, vae/, text_encoder/ ...")
    index = read_json(index_path)
    if isinstance(index.get("_class_name"), list):
        name = safe_text(str(index["_class_name"]), limit=80)
        raise CheckpointError(f"{_show(index_path)} asks for the pipeline {name}: code that comes with a model is never run.")
    if not isinstance(index.get("_class_name"), str):
        raise CheckpointError(f"{_show(index_path)} names no pipeline: `_class_name` is missing.")
    return {
        key: (value[0], value[1])
        for key, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value) and _is_plain(key)
    }


def _is_plain(component: str) -> bool:
    return component.isidentifier() and not component.startswith("_")


def _check_component(folder: Path, *, optional: bool, allow_pickle: bool) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(f"{_show(config)} is missing; without it the weights cannot be read.")
    read_json(config)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and not optional:
        pickles = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in _PICKLES]
        if not pickles:
            raise CheckpointError(f"{_show(folder)} holds no weights; a .safetensors file should be there.")
        for file in pickles:
            _check_pickle(file, allow_pickle=allow_pickle)
    for file in weights:
        if weights_kind(file) == "pickle":
            raise CheckpointError(f"{_show(file)} is a pickle under the name of a safetensors file. {_WHY_NO_PICKLE}")
        safetensors_header(file)
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        _check_shards(index)


def _check_pickle(file: Path, *, allow_pickle: bool) -> None:
    kind = weights_kind(file)
    if kind == "safetensors":
        better = file.with_suffix(".safetensors").name
        raise CheckpointError(f"{_show(file)} holds safetensors under the name of a pickle; rename it to {better}.")
    if not allow_pickle:
        raise CheckpointError(f"{_show(file)} is a pickle, and no safetensors file is there. {_WHY_NO_PICKLE} {_HOW_TO_ALLOW}")
    if kind != "pickle":
        raise CheckpointError(f"{_show(file)} is neither a pickle of torch's nor a safetensors file.")


def weights_kind(path: Path) -> Literal["safetensors", "pickle", "other"]:
    """What a file of weights is, by its first bytes alone; torch's own files are pickles, most of them in a zip."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{_show(path)} cannot be read: {error.strerror}.") from error
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= min(size - 8, MAX_HEADER_BYTES):
        return "safetensors"
    if head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in _PICKLE_PROTOCOLS):
        return "pickle"
    return "other"


def _check_shards(index: Path) -> None:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{_show(index)} has no `weight_map`.")
    for shard in sorted({str(name) for name in shards.values()}):
        if "/" in shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{_show(index)} names {safe_text(shard, limit=80)!r}, which is no .safetensors file beside it."
            )
        if not (index.parent / shard).is_file():
            raise CheckpointError(f"{_show(index.parent / shard)} is missing; {index.name} says part of the weights is in it.")


def safetensors_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: each tensor's dtype, shape and data offsets, and `__metadata__`.

    Raises `CheckpointError` when the file is truncated, or is something else.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{_show(path)} is truncated or not a safetensors file: it has {format_bytes(size)}, "
                    f"and its first bytes promise a header of {length:,} bytes."
                )
            body = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{_show(path)} cannot be read: {error.strerror}.") from error
    try:
        header = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{_show(path)} is not a safetensors file: its header is not JSON.") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{_show(path)} is not a safetensors file: its header is not a JSON object.")
    _check_tensors(path, header, size - 8 - length)
    return header


def _check_tensors(path: Path, header: Mapping[str, Any], data_bytes: int) -> None:
    spans: list[tuple[int, int, str]] = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        try:
            begin, end = tensor["data_offsets"]
            dtype, shape = tensor["dtype"], tensor["shape"]
            whole = isinstance(dtype, str) and isinstance(shape, list) and all(type(n) is int for n in (begin, end, *shape))
        except (TypeError, KeyError, ValueError):
            whole = False
        if not whole:
            raise CheckpointError(f"{_tensor(path, name)}: the header does not say dtype, shape and data_offsets.")
        if not 0 <= begin <= end or len(shape) > _MAX_DIMENSIONS or any(not 0 <= size <= _MAX_SIZE for size in shape):
            raise CheckpointError(f"{_tensor(path, name)}: the header's offsets or shape are impossible.")
        if end > data_bytes:
            raise CheckpointError(
                f"{_tensor(path, name)}: the file is truncated, it ends before this tensor does. Fetch it again."
            )
        bits = _DTYPE_BITS.get(dtype)
        if bits and _count(shape) * bits != (end - begin) * 8:
            raise CheckpointError(f"{_tensor(path, name)}: {end - begin:,} bytes do not fit shape {shape} of {dtype}.")
        spans.append((begin, end, name))
    _check_apart(path, spans)


def _check_apart(path: Path, spans: list[tuple[int, int, str]]) -> None:
    spans.sort()
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise CheckpointError(f"{_tensor(path, second)}: it overlaps with tensor {safe_text(first, limit=80)!r}.")


def _tensor(path: Path, name: str) -> str:
    return f"{_show(path)}, tensor {safe_text(name, limit=80)!r}"


def _count(shape: list[int]) -> int:
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a configuration or a weight index. Raises `CheckpointError`."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise CheckpointError(f"{_show(path)} is too large for a configuration: {format_bytes(path.stat().st_size)}.")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{_show(path)} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{_show(path)} is not valid JSON: {safe_text(str(error), limit=120)}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{_show(path)} should hold a JSON object.")
    return found


def _show(path: Path) -> str:
    return safe_text(str(path), limit=300)


# --- what there is --------------------------------------------------------------------------------------------------


def hub_cache_dir() -> Path:
    """Where huggingface_hub keeps what it downloaded, by the same variables that it reads."""
    explicit = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if explicit:
        return Path(explicit).expanduser()
    home = os.environ.get("HF_HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(home) if home else Path(cache) / "huggingface").expanduser() / "hub"


def cached_models() -> list[ModelOnDisk]:
    """The shipped model and every diffusers pipeline in the hub's cache, by name."""
    shipped = _describe(SHIPPED_MODEL, shipped_model_dir(), "shipped", None)
    found = [shipped] if shipped else []
    cache = hub_cache_dir()
    for repo in sorted(cache.glob("models--*--*")) if cache.is_dir() else []:
        name = repo.name.removeprefix("models--").replace("--", "/", 1)
        for revision, snapshot in _snapshots(repo):
            model = _describe(name, snapshot, "hub cache", revision)
            if model:
                found.append(model)
    return found


def cached_snapshot(hub_id: str) -> Path | None:
    """The folder of a hub model in the cache, its main branch before others; None when it is not there."""
    repo = hub_cache_dir() / ("models--" + hub_id.replace("/", "--"))
    found = _snapshots(repo) if repo.is_dir() else []
    return min(found, key=lambda named: named[0] is not None)[1] if found else None


def _snapshots(repo: Path) -> list[tuple[str | None, Path]]:
    """The snapshots of a cached repository, each under its branch name (None for main) or commit."""
    named: dict[str, str | None] = {}
    refs = repo / "refs"
    for ref in sorted(refs.rglob("*")) if refs.is_dir() else []:
        if ref.is_file():
            branch = str(ref.relative_to(refs))
            commit = ref.read_text("utf-8", errors="replace").strip()
            if named.get(commit, "") is not None:
                named[commit] = None if branch == "main" else branch
    snapshots = sorted((repo / "snapshots").glob("*"))
    return [(named.get(snapshot.name, snapshot.name), snapshot) for snapshot in snapshots if snapshot.is_dir()]


def _describe(name: str, path: Path, source: Literal["shipped", "hub cache"], revision: str | None) -> ModelOnDisk | None:
    if not (path / MODEL_INDEX).is_file():
        return None
    problem, pipeline_class = "", ""
    try:
        pipeline_class = str(read_json(path / MODEL_INDEX).get("_class_name", ""))
        check_model_folder(path)
    except CheckpointError as error:
        problem = str(error)
    return ModelOnDisk(name, path, source, safe_text(pipeline_class, limit=80), weight_bytes(path), revision, problem)


def weight_bytes(path: Path) -> int:
    """The size of all safetensors files in a model folder."""
    return sum(file.stat().st_size for file in path.glob("*/*.safetensors") if file.is_file())
