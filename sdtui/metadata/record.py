"""What is known of a picture, what was read from a file, and the errors of both directions."""

from __future__ import annotations

from typing import Final

import msgspec

from sdtui.params import GenerationParams
from sdtui.protocol import BranchPoint

OUR_KEY: Final = "sdtui"
A1111_KEY: Final = "parameters"


class OutputError(Exception):
    """A picture that could not be written; the text says what to do, `field` which setting to change."""

    def __init__(self, message: str, field: str = "output") -> None:
        super().__init__(message)
        self.field = field


class StorageProblem(OutputError):
    """A picture that could not be written because the disk is full or broken; it may work later."""

    def __init__(self, message: str, path: str, needed_bytes: int) -> None:
        super().__init__(message)
        self.path, self.needed_bytes = path, needed_bytes


class MetadataError(Exception):
    """A file from which no generation data can be read; the text names the file and why."""


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of how one picture was made."""

    params: GenerationParams
    """As resolved: real width and height, the scheduler's name, and the seed of this very picture."""
    model_name: str
    model_hash: str | None = None
    """AutoV2: the first ten hex digits of the file's SHA-256, where the model is a single file."""
    scheduler_class: str
    job: str = ""
    image_index: int = 0
    """Counts from 0 over the whole job."""
    batch_size: int = 1
    first_seed: int
    """Seed of the first picture of the batch; the same bits need the same batch."""
    version: str
    torch: str
    diffusers: str
    device: str
    dtype: str
    created_at: str
    """ISO 8601, UTC."""
    elapsed_s: float
    inexact: tuple[str, ...] = ()
    """Faster modes in use that change the picture's bits."""
    memory_remedies: tuple[str, ...] = ()
    """What was done after memory ran out; a smaller batch and a decode in tiles change the picture's bits."""
    init_image_digest: str = ""
    """BLAKE2b-128 of the initial image's file, hexadecimal; the file itself may be gone. Empty for text to image."""
    branch: BranchPoint | None = None
    """The job and step that this one branched from."""


class ImageMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What was read from a file. All texts are untrusted: pass them through `safe_text` before they are shown."""

    path: str
    width_px: int
    height_px: int
    record: ImageRecord | None = None
    """None when the file was not made by sdtui, or says so unreadably; see `problem`."""
    infotext: str | None = None
    fields: dict[str, str] = {}
    """`infotext`, parsed."""
    problem: str = ""
