"""Open any model and say what it is made of, from headers and configurations alone: no tensor is read, and nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sdtui.anatomy import lora
from sdtui.anatomy.build import build_component, weight_at
from sdtui.anatomy.family import UNKNOWN, Family, family_of_embedding, guess_family
from sdtui.anatomy.files import Tensors, check_regular, read_shards, read_tensors, show, weight_files, whole
from sdtui.anatomy.single import bare_component, component_rank, kind_of, split
from sdtui.anatomy.structs import Anatomy, AnatomyError, Component, Kind, PickleRefused
from sdtui.checkpoint import MODEL_INDEX, CheckpointError, cached_snapshot, components, read_json, resolve_model
from sdtui.text import safe_text

_CONFIGS: Final = (
    "config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
)
_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_EMBEDDING_KEYS: Final = frozenset({"emb_params", "clip_l", "clip_g", "t5xxl", "string_to_param"})
_MOST_EMBEDDING_TENSORS: Final = 8
_KINDS: Final[tuple[tuple[str, Kind], ...]] = (
    ("ControlNet", "controlnet"),
    ("UNet", "unet"),
    ("Transformer2D", "transformer"),
    ("Autoencoder", "vae"),
    ("CLIPText", "text encoder"),
    ("T5", "text encoder"),
)
"""What a folder with one component is, by its class."""


def open_anatomy(path_or_name: str | Path) -> Anatomy:
    """The anatomy of the shipped model, a folder, a hub id in the cache, or a file. Raises `AnatomyError`, in one line."""
    source = str(path_or_name)
    path = locate(source)
    try:
        anatomy = _open_folder(path, source) if path.is_dir() else _open_file(path, source)
    except CheckpointError as error:
        raise AnatomyError(str(error)) from error
    except OSError as error:
        raise AnatomyError(f"{show(error.filename or path)} cannot be read: {error.strerror}.") from error
    return anatomy


def locate(source: str) -> Path:
    """The file or folder that a path, a hub id or the shipped model's name stands for. Raises `AnatomyError`."""
    try:
        given = Path(source).expanduser()
        if given.is_symlink():
            given.stat()  # says what is wrong with a link that leads nowhere
        found = resolve_model(source)
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise AnatomyError(f"{show(source)} cannot be read: {safe_text(why or '', limit=120)}.") from error
    except CheckpointError as error:
        raise AnatomyError(str(error)) from error
    if isinstance(found, Path):
        return found
    snapshot = cached_snapshot(found)
    if snapshot is None:
        raise AnatomyError(f"{show(source)} is neither a path nor a model in the hub's cache; see sdtui models.")
    return snapshot


# --- folders --------------------------------------------------------------------------------------------------------


def _open_folder(path: Path, source: str) -> Anatomy:
    if (path / MODEL_INDEX).is_file():
        return _open_pipeline(path, source)
    files = weight_files(path)
    if (path / "config.json").is_file():
        return _open_component(path, source)
    if not files:
        pickles = sorted(file.name for file in path.iterdir() if file.suffix.lower() in _PICKLES)
        if pickles:
            check_regular(path / pickles[0])
            raise PickleRefused(
                f"{show(path)} holds pickles only, such as {safe_text(pickles[0])!r}: they can run any code when read.",
                path / pickles[0],
            )
        raise AnatomyError(f"{show(path)} holds no model: neither {MODEL_INDEX} nor a .safetensors file.")
    return _open_file(files[0], source)


def _open_pipeline(path: Path, source: str) -> Anatomy:
    named = {name: (whole(library), whole(class_name)) for name, (library, class_name) in components(path).items()}
    pipeline_class = whole(str(read_json(path / MODEL_INDEX).get("_class_name", "")))
    opened = {name: _tensors_of(path / name) for name in named}
    shapes = {f"{name}.{key}": shape for name, tensors in opened.items() for key, shape in tensors.shapes.items()}
    family = guess_family(shapes, pipeline_class=pipeline_class)
    return Anatomy(
        source=source,
        kind="pipeline",
        family=family.name,
        sure=family.sure,
        why=family.why,
        components=tuple(
            _folder_component(path / name, name, opened[name], family, library=named[name][0], class_name=named[name][1])
            for name in sorted(named, key=component_rank)
        ),
        metadata={"pipeline": pipeline_class},
    )


def _open_component(path: Path, source: str) -> Anatomy:
    """A folder with a configuration and weights: a ControlNet, a U-Net, a VAE or a text encoder alone."""
    config, problems = _config_of(path)
    class_name = _class_of(config)
    tensors = _tensors_of(path)
    kind: Kind = next((kind for part, kind in _KINDS if part in class_name), "weights")
    family = guess_family(tensors.shapes) if kind != "vae" else UNKNOWN
    name = bare_component(tensors.entries) or kind.replace(" ", "_")
    component = _folder_component(path, name, tensors, family, class_name=class_name)
    return _anatomy(source, kind, family, (component,), Tensors({}, (), tensors.metadata, tuple(problems)))


def _folder_component(
    folder: Path, name: str, tensors: Tensors, family: Family, *, class_name: str, library: str = ""
) -> Component:
    config, problems = _config_of(folder)
    files = [str(file) for file in tensors.files]
    return build_component(
        name,
        [weight_at(key, key, tensor, file) for key, (tensor, file) in tensors.entries.items()],
        class_name=class_name,
        library=library,
        config=config,
        family=family.name,
        files=files,
        problems=(*tensors.problems, *problems),
    )


def _tensors_of(folder: Path) -> Tensors:
    """The tensors of a component's folder; whatever is wrong there is said in `problems`."""
    try:
        if not folder.is_dir():
            return Tensors({}, (), {}, (f"{show(folder)} is missing.",))
        files = weight_files(folder)
        if not files:
            pickles = sorted(show(file.name) for file in folder.iterdir() if file.suffix.lower() in _PICKLES)
            why = (f"{pickles[0]} is a pickle: it can run any code when it is read, so it is not opened.",) if pickles else ()
            return Tensors({}, (), {}, why)
        return read_shards(files[0]) if files[0].suffix == ".json" else read_tensors(files[0])
    except AnatomyError as error:
        return Tensors({}, (), {}, (str(error),))
    except OSError as error:
        return Tensors({}, (), {}, (f"{show(folder)} cannot be read: {error.strerror}.",))


def _config_of(folder: Path) -> tuple[Mapping[str, Any], list[str]]:
    for name in _CONFIGS:
        try:
            if (folder / name).is_file():
                return read_json(folder / name), []
        except CheckpointError as error:
            return {}, [str(error)]
        except OSError as error:
            return {}, [f"{show(folder / name)} cannot be read: {error.strerror}."]
    return {}, []


def _class_of(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else ""
    return whole(str(config.get("_class_name") or first))


# --- files ----------------------------------------------------------------------------------------------------------


def _open_file(path: Path, source: str) -> Anatomy:
    return anatomy_of(read_shards(path) if path.suffix == ".json" else read_tensors(path), source)


def anatomy_of(tensors: Tensors, source: str) -> Anatomy:
    """What these tensors are: a LoRA, an embedding, or a checkpoint by the names in it. Raises `AnatomyError`."""
    if not tensors.entries:
        faults = " ".join(tensors.problems) or f"{show(source)} holds no tensors."
        raise AnatomyError(faults)
    if lora.is_lora(tensors.entries):
        found = lora.read_lora(tensors)
        return _anatomy(source, "lora", found.family, lora.as_components(found, tensors), tensors)
    if _is_embedding(tensors):
        return _open_embedding(tensors, source)
    return _open_checkpoint(tensors, source)


def _open_checkpoint(tensors: Tensors, source: str) -> Anatomy:
    parts = split(tensors.entries)
    kind = kind_of(parts)
    family = guess_family(tensors.shapes) if kind != "vae" else UNKNOWN
    files = tuple(str(file) for file in tensors.files)
    found = []
    for name, keys in parts.items():
        listed = [weight_at(path, key, *tensors.entries[key]) for key, path in keys]
        found.append(build_component(name, listed, family=family.name, files=files))
    return _anatomy(source, kind, family, tuple(found), tensors)


def _is_embedding(tensors: Tensors) -> bool:
    """A textual inversion: a few vectors as wide as a text encoder, under the name of a token or of the encoder."""
    if len(tensors.entries) > _MOST_EMBEDDING_TENSORS:
        return False
    if tensors.entries.keys() <= _EMBEDDING_KEYS:
        return True
    return all(len(shape) in (1, 2) and "." not in name for name, shape in tensors.shapes.items())


def _open_embedding(tensors: Tensors, source: str) -> Anatomy:
    family = family_of_embedding(tensors.shapes)
    listed = [weight_at(key, key, *entry) for key, entry in tensors.entries.items()]
    component = build_component("embedding", listed, family=family.name, files=tuple(str(file) for file in tensors.files))
    return _anatomy(source, "textual inversion", family, (component,), tensors)


def _anatomy(source: str, kind: Kind, family: Family, found: tuple[Component, ...], tensors: Tensors) -> Anatomy:
    return Anatomy(
        source=source,
        kind=kind,
        family=family.name,
        sure=family.sure,
        why=family.why,
        components=found,
        problems=tensors.problems,
        metadata=tensors.metadata,
    )
