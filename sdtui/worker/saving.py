"""The stage `save`: each picture on disk with its record, and its event as soon as it is there."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import diffusers
import msgspec
import torch
from PIL import Image

from sdtui import __version__
from sdtui.metadata import ImageRecord, save_png
from sdtui.protocol import ImageSaved
from sdtui.worker.stages import Batch


def save_images(batch: Batch, images: list[Image.Image]) -> list[str]:
    """Write the pictures of a batch; returns their paths. Raises `OutputError`; pictures saved before stay."""
    batch.clock.start("save")
    elapsed_s = time.perf_counter() - batch.began
    paths = []
    for position, (image, seed) in enumerate(zip(images, batch.seeds, strict=True)):
        began = time.perf_counter()
        index = batch.index * batch.params.batch_size + position
        path = save_png(image, Path(batch.submit.output_dir), batch.submit.name_pattern, _record(batch, index, seed, elapsed_s))
        paths.append(str(path))
        batch.emit(
            ImageSaved(
                job=batch.submit.job,
                path=str(path),
                seed=seed,
                image_index=index,
                width_px=image.width,
                height_px=image.height,
                size_bytes=path.stat().st_size,
                elapsed_s=time.perf_counter() - began,
            )
        )
    batch.clock.finish("save")
    return paths


def _record(batch: Batch, index: int, seed: int, elapsed_s: float) -> ImageRecord:
    info = batch.model.info
    return ImageRecord(
        params=msgspec.structs.replace(batch.params, seed=seed),
        model_name=info.model,
        scheduler_class=type(batch.pipe.scheduler).__name__,
        job=batch.submit.job,
        image_index=index,
        batch_size=batch.params.batch_size,
        first_seed=batch.seeds[0],
        version=__version__,
        torch=str(torch.__version__),
        diffusers=diffusers.__version__,
        device=info.device,
        dtype=info.dtype,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        elapsed_s=elapsed_s,
    )
