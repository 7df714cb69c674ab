"""The stage `save`: each picture on disk with its record, exactly once, and its event as soon as it is there."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import diffusers
import msgspec
import torch
from PIL import Image

from sdtui import __version__
from sdtui.ledger import SavedPicture
from sdtui.metadata import ImageRecord, StorageProblem, UnsavedPicture
from sdtui.protocol import ImageSaved, StorageFreed, StorageFull
from sdtui.worker.stages import Batch

RETRY_S: Final = 1.0
"""Between two tries on a disk that is full."""
_LOOK_S: Final = 0.05
_log: Final = logging.getLogger(__name__)


def save_images(batch: Batch, images: list[Image.Image]) -> None:
    """Write the pictures of a batch, but for those that are saved already. Raises `OutputError`, `Cancelled`.

    Pictures saved before stay.
    """
    batch.clock.start("save")
    elapsed_s = time.perf_counter() - batch.began
    for position, (image, seed) in enumerate(zip(images, batch.seeds, strict=True)):
        began = time.perf_counter()
        index = batch.first_image + position
        if index in batch.saved:
            continue
        record = _record(batch, index, seed, elapsed_s)
        unsaved = UnsavedPicture(image, Path(batch.submit.output_dir), batch.submit.name_pattern, record)
        picture = _save(batch, unsaved)
        batch.saved[index] = picture
        batch.emit(saved_event(batch.submit.job, picture, time.perf_counter() - began))
    batch.clock.finish("save")


def saved_event(job: str, picture: SavedPicture, elapsed_s: float = 0.0) -> ImageSaved:
    """The event of a picture that is on disk."""
    return ImageSaved(
        job=job,
        path=picture.path,
        seed=picture.seed,
        image_index=picture.image_index,
        width_px=picture.width_px,
        height_px=picture.height_px,
        size_bytes=picture.size_bytes,
        elapsed_s=elapsed_s,
    )


def _save(batch: Batch, unsaved: UnsavedPicture) -> SavedPicture:
    """Save a picture; while the disk is full or broken, keep it and try again, until the job is to stop or pause."""
    ledger = batch.journal.ledger if batch.journal is not None else None
    full_since, place = 0.0, ""
    while True:
        try:
            picture = unsaved.save(ledger)
        except StorageProblem as problem:
            if not full_since:
                full_since, place = time.monotonic(), problem.path
                _say_full(batch, problem)
        else:
            if full_since:
                batch.emit(StorageFreed(job=batch.submit.job, path=place, waited_s=time.monotonic() - full_since))
            return picture
        _wait(batch)


def _say_full(batch: Batch, problem: StorageProblem) -> None:
    _log.warning("job %s: %s", batch.submit.job, problem)
    message = f"{problem} The picture is kept in memory, and saved by itself as soon as that works."
    batch.emit(StorageFull(job=batch.submit.job, path=problem.path, message=message, needed_bytes=problem.needed_bytes))


def _wait(batch: Batch) -> None:
    """Until the next try; a job that is paused loses its decoded pictures, but its tape has every step."""
    until = time.monotonic() + RETRY_S
    while time.monotonic() < until:
        batch.token.stop_between_steps()
        time.sleep(_LOOK_S)


def _record(batch: Batch, index: int, seed: int, elapsed_s: float) -> ImageRecord:
    info = batch.model.info
    return ImageRecord(
        params=msgspec.structs.replace(batch.params, seed=seed),
        model_name=info.model,
        scheduler_class=type(batch.pipe.scheduler).__name__,
        job=batch.submit.job,
        image_index=index,
        batch_size=len(batch.seeds),
        first_seed=batch.seeds[0],
        version=__version__,
        torch=str(torch.__version__),
        diffusers=diffusers.__version__,
        device=info.device,
        dtype=info.dtype,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        elapsed_s=elapsed_s,
        memory_remedies=batch.ladder.in_force,
        init_image_digest=batch.image_digest,
        branch=batch.submit.branch,
    )
