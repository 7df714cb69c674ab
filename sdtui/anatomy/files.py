"""The headers of weight files: what may be opened, and the tensors of one file or of all its shards."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sdtui.anatomy.structs import AnatomyError, PickleRefused
from sdtui.checkpoint import CheckpointError, read_json, safetensors_header, weights_kind
from sdtui.text import format_bytes, safe_text

MAX_HEADER_BYTES: Final = 32_000_000
"""Ten times the header of the largest image model; a hundred megabytes of JSON would hold up whoever waits for the tree."""
_MAX_TENSORS: Final = 200_000
_MAX_NAME: Final = 1_000
_MAX_DEPTH: Final = 64
"""The deepest known names have a dozen parts; each part is a module of the tree."""
_METADATA: Final = "__metadata__"


class Tensors(NamedTuple):
    """The tensors of one or several files: each name with its entry in the header and the index of its file."""

    entries: dict[str, tuple[Mapping[str, Any], int]]
    files: tuple[Path, ...]
    metadata: dict[str, str]
    problems: tuple[str, ...] = ()
    scalars: Mapping[str, float] | None = None
    """The values of tensors that hold one number each, where they are known already; else they are read from the files."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each tensor's shape."""
        return {name: tuple(tensor["shape"]) for name, (tensor, _) in self.entries.items()}


def whole(text: str) -> str:
    """Text without halves of characters, which cannot be sent or stored."""
    return text.encode("utf-8", "replace").decode()


def show(path: Path | str) -> str:
    """A path as it may be shown."""
    return safe_text(str(path), limit=300)


def check_regular(path: Path) -> None:
    """Raise `AnatomyError` for what cannot be opened without waiting or harm: links in a circle, pipes, devices."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise AnatomyError(f"{show(path)} cannot be read: {safe_text(why or '', limit=120)}.") from error
    if not stat.S_ISREG(mode):
        raise AnatomyError(f"{show(path)} is no file of weights, but a {_what(mode)}.")


def _what(mode: int) -> str:
    return "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device or socket"


def read_tensors(path: Path) -> Tensors:
    """The header of one safetensors file. Raises `AnatomyError`."""
    check_regular(path)
    try:
        _check_kind(path)
        header = safetensors_header(path)
    except CheckpointError as error:
        raise AnatomyError(str(error)) from error
    found = header.pop(_METADATA, None)
    metadata = {whole(str(key)): whole(str(value)) for key, value in found.items()} if isinstance(found, dict) else {}
    check_names(path, header)
    return Tensors({name: (tensor, 0) for name, tensor in header.items()}, (path,), metadata)


def _check_kind(path: Path) -> None:
    kind, size = weights_kind(path), path.stat().st_size
    if kind == "pickle":
        named = "a pickle under the name of a safetensors file" if path.suffix == ".safetensors" else "a pickle"
        raise PickleRefused(
            f"{show(path)} is {named}: it can run any code when it is read, so it is not opened. Convert it to safetensors.", path
        )
    if size == 0:
        raise AnatomyError(f"{show(path)} is empty: 0 bytes. Fetch it again.")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MAX_HEADER_BYTES < length <= size - 8:
        raise AnatomyError(
            f"{show(path)} has a header of {format_bytes(length)}; no model's is over {format_bytes(MAX_HEADER_BYTES)}."
        )


def check_names(path: Path, names: Mapping[str, Any]) -> None:
    """Raise `AnatomyError` for names and numbers of tensors that no model has."""
    if len(names) > _MAX_TENSORS:
        raise AnatomyError(f"{show(path)} holds {len(names):,} tensors; at most {_MAX_TENSORS:,} are shown.")
    try:
        "".join(names).encode()
        "".join({tensor["dtype"] for tensor in names.values()}).encode()
    except UnicodeEncodeError as error:
        raise AnatomyError(f"{show(path)} has a header that is not valid Unicode.") from error
    for name in names:
        if len(name) > _MAX_NAME or name.count(".") > _MAX_DEPTH:
            shown = safe_text(name, limit=60)
            raise AnatomyError(f"{show(path)}, tensor {shown!r}: its name has {len(name):,} characters, more than any model's.")


def read_shards(index: Path) -> Tensors:
    """The tensors of all files that a `*.index.json` names; a shard that is missing or broken is a problem.

    Raises `AnatomyError`.
    """
    check_regular(index)
    try:
        weight_map = read_json(index).get("weight_map")
    except CheckpointError as error:
        raise AnatomyError(str(error)) from error
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise AnatomyError(f"{show(index)} has no `weight_map`: it is no index of weights.")
    shards = sorted(set(weight_map.values()))
    entries: dict[str, tuple[Mapping[str, Any], int]] = {}
    metadata: dict[str, str] = {}
    problems: list[str] = []
    files: list[Path] = []
    for shard in shards:
        if "/" in shard or not shard.endswith(".safetensors"):
            raise AnatomyError(f"{show(index)} names {safe_text(shard, limit=80)!r}, which is no .safetensors file beside it.")
        try:
            part = read_tensors(index.parent / shard)
        except AnatomyError as error:
            problems.append(str(error))
            continue
        twice = entries.keys() & part.entries.keys()
        problems += [f"{safe_text(shard, limit=80)} holds {_listed(twice)} once more."] if twice else []
        entries |= {name: (tensor, len(files)) for name, (tensor, _) in part.entries.items()}
        metadata |= part.metadata
        files.append(index.parent / shard)
    missing = weight_map.keys() - entries.keys()
    if missing:
        problems.append(f"{safe_text(index.name, limit=80)} names {_listed(missing)}, in no file here.")
    return Tensors(entries, tuple(files), metadata, tuple(problems))


def _listed(names: set[str]) -> str:
    first = safe_text(min(names), limit=80)
    return f"{first!r}" if len(names) == 1 else f"{len(names):,} tensors, such as {first!r},"


def weight_files(folder: Path) -> Sequence[Path]:
    """The indexes and safetensors files of a folder, the one that is loaded by default first."""
    found = [file for file in folder.iterdir() if file.name.endswith((".safetensors", ".safetensors.index.json"))]
    return sorted(found, key=_as_loaded)


def _as_loaded(file: Path) -> tuple[bool, bool, bool, str]:
    """Files without a variant before `model.fp16.safetensors`, an index before its shards."""
    stem = file.name.removesuffix(".index.json").removesuffix(".safetensors")
    return "-of-" in stem, "." in stem, not file.name.endswith(".json"), file.name
