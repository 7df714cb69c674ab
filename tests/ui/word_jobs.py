"""What an inspected job leaves on the disk, small: for tests of where the words act."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from sdtui import tape
from sdtui.inspected import Inspected, WordFacts, inspected_path, write_inspected
from sdtui.ledger import Ledger, SavedPicture
from sdtui.settings import tapes_dir

PROMPT = ("a", "red", "cat", "in", "the", "desert")
PLACES = {"cat": (0.25, 0.25), "desert": (0.75, 0.75)}
"""Where the maps of these words are highest; the others lie flat."""
SIZE_PX = 64


def hill(place: tuple[float, float], high: int, wide: int) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[0:high, 0:wide]
    found: np.ndarray[Any, Any] = np.exp(-(((y + 0.5) / high - place[0]) ** 2 + ((x + 0.5) / wide - place[1]) ** 2) / 0.02)
    return found


def maps(words: Sequence[str], images: int, high: int, wide: int) -> np.ndarray[Any, Any]:
    """(B, tokens, h, w); in the second picture everything is mirrored."""
    flat = np.full((high, wide), 0.05)
    one = np.stack([flat * 20, *(hill(PLACES[word], high, wide) if word in PLACES else flat for word in words), flat])
    return np.stack([one[..., :: (-1 if image % 2 else 1)] for image in range(images)]).astype(np.float32)


def write_job(
    job: str = "j-1", words: Sequence[str] = PROMPT, *, images: int = 1, age_s: int = 0, mapped: bool = True, saved: bool = True
) -> Path:
    """The files of an inspected job whose pictures are black; returns the inspected one."""
    directory = tapes_dir() / job
    directory.mkdir(parents=True, exist_ok=True)
    resolutions = ((16, 16), (8, 8))
    facts = WordFacts(
        tokens=("<|startoftext|>", *(f"{word}</w>" for word in words), "<|endoftext|>"),
        steps=4, resolutions=resolutions, layers=(4, 2), heads=(4, 4),
    )  # fmt: skip
    inspected = Inspected(
        job=job, batch_index=0, model="scenes-128", prompt=" ".join(words), seeds=tuple(range(7, 7 + images)),
        width_px=SIZE_PX, height_px=SIZE_PX, steps=4, words=facts if mapped else None,
    )  # fmt: skip
    path = inspected_path(directory, 0)
    write_inspected(path, inspected, {f"words/{high}x{wide}": maps(words, images, high, wide) for high, wide in resolutions})
    os.utime(path, (1_700_000_000 - age_s,) * 2)
    for image in range(images if saved else 0):
        write_picture(directory, image)
    return path


def write_picture(directory: Path, image: int) -> Path:
    picture = Path.home() / f"{directory.name}-{image}.png"
    Image.new("RGB", (SIZE_PX, SIZE_PX)).save(picture)
    Ledger(directory).add(
        SavedPicture(
            image_index=image, path=str(picture), seed=7 + image, width_px=SIZE_PX, height_px=SIZE_PX, size_bytes=1
        )
    )  # fmt: skip
    return picture


def write_tape(directory: Path, steps: int = 3, *, guided: bool = True) -> None:
    """At each step the prompt pulls one more than at the step before, and only in the lower half."""
    written = tape.Tape(directory / "batch-0000.tape", {"format": tape.FORMAT, "seeds": [7]})
    for step in range(steps):
        answer = np.zeros((2 if guided else 1, 4, 8, 8), np.float32)
        answer[-1, 0, 4:] = step + 1
        facts = {"call": str(step), "step": str(step), "timestep": "1.0", "elapsed_s": "0.1", "form": "tuple"}
        written.append(save({"0": answer}, facts))
    written.close()
