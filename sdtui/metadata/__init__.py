"""What an image file says of how it was made: written into PNG text chunks, and read again.

`parameters` holds A1111's infotext, which Civitai and most readers take; `sdtui` holds `ImageRecord` as ASCII JSON, with
nothing left out.
"""

from __future__ import annotations

from sdtui.metadata.infotext import infotext, parse_infotext
from sdtui.metadata.names import NAME_FIELDS, check_pattern, file_stem, initial_name
from sdtui.metadata.read import read_png
from sdtui.metadata.record import A1111_KEY, OUR_KEY, ImageMetadata, ImageRecord, MetadataError, OutputError, StorageProblem
from sdtui.metadata.write import UnsavedPicture, prepare_output, save_png

__all__ = [
    "A1111_KEY",
    "NAME_FIELDS",
    "OUR_KEY",
    "ImageMetadata",
    "ImageRecord",
    "MetadataError",
    "OutputError",
    "StorageProblem",
    "UnsavedPicture",
    "check_pattern",
    "file_stem",
    "infotext",
    "initial_name",
    "parse_infotext",
    "prepare_output",
    "read_png",
    "save_png",
]
