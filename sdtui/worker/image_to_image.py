"""Image to image: the sibling of a loaded pipeline that begins with a picture, and the picture as that pipeline gets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from diffusers import AutoPipelineForImage2Image
from PIL import Image

from sdtui.initial_image import InitialImageError, digest_of_file, read_initial_image, resized, target_size
from sdtui.params import GenerationParams
from sdtui.text import safe_text
from sdtui.worker.errors import JobProblem
from sdtui.worker.quiet import quieten_pipeline


@dataclass(frozen=True)
class InitialImage:
    """The picture that a job begins with."""

    image: Image.Image
    """RGB, of the job's width and height."""
    digest: str
    """A hash of the file's bytes."""
    note: str
    """Where it came from and what was done to it, for the log."""


def image_pipeline(pipe: Any) -> Any:
    """The pipeline of the same family for image to image, made of the same components. Raises `JobProblem`."""
    try:
        sibling = AutoPipelineForImage2Image.from_pipe(pipe)
    except (ValueError, AttributeError) as error:
        message = f"{type(pipe).__name__} has no image to image; leave the initial image empty, or take another model."
        raise JobProblem(message, "init_image") from error
    quieten_pipeline(sibling)
    return sibling


def read_for(params: GenerationParams, width: int, height: int, multiple: int) -> tuple[GenerationParams, InitialImage | None]:
    """The initial image at its size, and the parameters with that size. Raises `JobProblem`.

    `width` and `height` are the size asked for, in pixels. With `fit` the picture's own proportions decide what becomes of it;
    from there on the size is exact.
    """
    if params.init_image is None:
        return msgspec.structs.replace(params, width=width, height=height), None
    path = Path(params.init_image)
    try:
        picture = read_initial_image(path)
        size = target_size(picture.size, width, height, params.resize, multiple)
        resize = "exact" if params.resize == "fit" else params.resize
        image = resized(picture, *size, resize, multiple)
        digest = digest_of_file(path)
    except InitialImageError as error:
        raise JobProblem(str(error), "init_image") from error
    except OSError as error:
        message = f"The initial image {safe_text(str(path), limit=300)} cannot be read: {error.strerror}."
        raise JobProblem(message, "init_image") from error
    note = f"{picture.width}x{picture.height} to {image.width}x{image.height} px, {params.resize}"
    return msgspec.structs.replace(params, width=size[0], height=size[1], resize=resize), InitialImage(image, digest, note)
