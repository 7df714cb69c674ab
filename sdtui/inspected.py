"""What an inspected job leaves on disk: activations of its modules as small pictures, and where each word of the prompt acts.

`<tapes>/<job>/inspected-0000.safetensors` holds one batch, or a part of one, and goes with the job's tapes. Its facts are JSON
in the header's metadata; its tensors are named `sheet/<n>` uint8 (channels, h, w), `histogram/<n>` int64 (bins,), both of the
nth of `sheets`, and `words/<h>x<w>` float32 (B, tokens, h, w): the attention that each latent pixel pays to each token, mean
over heads, summed over layers and steps (DAAM: Tang et al. 2022, eq. 4 to 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sdtui.checkpoint import CheckpointError, safetensors_header
from sdtui.settings import write_atomically
from sdtui.text import safe_text

if TYPE_CHECKING:
    import numpy as np

VERSION: Final = 1
PATTERN: Final = "inspected-*.safetensors"
SHEET_CHANNELS: Final = 36
SHEET_PX: Final = 32
"""The longest side of a channel's picture."""
HISTOGRAM_BINS: Final = 64
_MAX_BYTES: Final = 1 << 28
_DTYPES: Final = {"U8": "u1", "I64": "<i8", "F32": "<f4"}


class InspectedError(Exception):
    """A file that cannot be used; one sentence that names it."""


class SheetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One module's output at the end of the job: the first picture of the batch, of two answers the one with the prompt."""

    network: str
    path: str
    """Below its network; the empty one is the network itself."""
    class_name: str
    step_index: int | None
    """None outside of the steps."""
    shape: tuple[int, ...]
    """Of the whole output."""
    channels: int
    """How many there are; the sheet has at most `SHEET_CHANNELS`, each scaled from its own least to its greatest value."""
    low: float | None
    high: float | None
    """The ends of the histogram: the least and the greatest finite value."""
    mean: float | None
    std: float | None
    faults: int = 0
    """How many values are NaN or infinite."""


class WordFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the word maps are of."""

    tokens: tuple[str, ...]
    """As the tokenizer has them, from the start token to the last one before the padding, that one included once."""
    steps: int
    """Over how many steps was summed."""
    resolutions: tuple[tuple[int, int], ...]
    """Height and width of the maps, the finest first."""
    layers: tuple[int, ...]
    """How many layers are in the maps of each resolution."""
    heads: tuple[int, ...] = ()


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of an inspected job."""

    version: int = VERSION
    job: str
    batch_index: int
    model: str
    prompt: str
    seeds: tuple[int, ...]
    """One for each picture of the batch."""
    width_px: int
    height_px: int
    steps: int
    sheets: tuple[SheetFacts, ...] = ()
    words: WordFacts | None = None


def inspected_path(directory: Path, batch_index: int, part: tuple[int, int] | None = None) -> Path:
    """Where a batch's file lies in its job's directory; `part` is where in the batch it begins, and how many pictures it has."""
    split = f"-{part[0]:03d}-{part[1]:03d}" if part is not None else ""
    return directory / f"inspected-{batch_index:04d}{split}.safetensors"


def tape_of(path: Path) -> Path:
    """The denoiser tape of the same pictures, beside it; see `sdtui.tape`."""
    return path.with_name(path.name.replace("inspected", "batch", 1)).with_suffix(".tape")


def write_inspected(path: Path, facts: Inspected, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write all of it or nothing. Raises `OSError`."""
    from safetensors.numpy import save

    header = {"sdtui": msgspec.json.encode(facts).decode()}
    write_atomically(path, save(dict(arrays), metadata=header))


class InspectedFile:
    """A file that is read: its facts at once, each array when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises `InspectedError`."""
        self.path = path
        self._name = safe_text(str(path), limit=300)
        try:
            header = safetensors_header(path)
            with path.open("rb") as file:
                self._begin = 8 + int.from_bytes(file.read(8), "little")
            self.facts = msgspec.json.decode(str(header.get("__metadata__", {}).get("sdtui", "")), type=Inspected)
        except OSError as error:
            raise InspectedError(f"{self._name} cannot be read: {error.strerror}.") from error
        except (CheckpointError, msgspec.DecodeError, AttributeError, RecursionError) as error:
            raise InspectedError(f"{self._name} is no file of an inspected job: {safe_text(str(error), limit=200)}") from error
        if self.facts.version != VERSION:
            raise InspectedError(f"{self._name} has version {self.facts.version}; this sdtui reads {VERSION}.")
        self._tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """One array. Raises `InspectedError` where it is not there, or the file ends early."""
        import numpy as np

        entry = self._tensors.get(name)
        if entry is None:
            raise InspectedError(f"{self._name} has no {safe_text(name, limit=80)}.")
        try:
            begin, end = entry["data_offsets"]
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
            if end - begin > _MAX_BYTES:
                raise ValueError("it is too large")
            with self.path.open("rb") as file:
                file.seek(self._begin + begin)
                return np.frombuffer(file.read(end - begin), dtype=dtype).reshape(shape)
        except (OSError, KeyError, TypeError, ValueError) as error:
            reason = safe_text(str(error), limit=200)
            raise InspectedError(f"{safe_text(name, limit=80)} in {self._name} cannot be read: {reason}") from error

    def sheet(self, network: str, path: str) -> tuple[SheetFacts, int] | None:
        """The facts of a module's sheet and its number; None where the module was not looked at."""
        found = enumerate(self.facts.sheets)
        return next(((facts, index) for index, facts in found if (facts.network, facts.path) == (network, path)), None)


def newest(tapes: Path, *, words: bool = False) -> Path | None:
    """The file of the last inspected job; with `words`, of the last that has word maps."""
    for path in sorted(tapes.glob(f"*/{PATTERN}"), key=_age):
        if not words:
            return path
        try:
            if InspectedFile(path).facts.words is not None:
                return path
        except InspectedError:
            continue
    return None


def files_of(directory: Path) -> Sequence[Path]:
    """The files of one job, the first batch first."""
    return sorted(directory.glob(PATTERN))


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0
