"""What a client asks the explainer process, and what it answers: a sampling function runs there line by line.

A session: `StartExplaining` loads the pipeline and stops before the function's first line. Each `Advance` then runs one line or
more, and its `LinesRan` says what they made. One process explains one function at a time; a new `StartExplaining` drops the one
before. While a hub model is fetched the process also tells `DownloadProgress`, which answers no request.

Lines are numbers in the function's file, 1 is the first; `source` of `ExplainingStarted` begins at `first_line`, so line n is
`source.splitlines()[n - first_line]`. A statement that goes over several lines is one line here, the one where it begins.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sdtui.params import GenerationParams
from sdtui.protocol.base import Message

AdvanceTo = Literal["line", "stage", "end"]
"""`line`: run the next line.

`stage`: run to the end of the stage that the next line is in, and stop before the first line of the one after. The denoising loop
is gone through step by step: in it this is the end of the current iteration, before the line `for t in ...` is reached again. The
last iteration ends before the first line of the next stage, as there is nothing to see in a loop that has nothing left.

`end`: run until the function returns.
"""
HowMade = Literal["new", "rebound", "changed"]
"""`new`: the name did not exist before. `rebound`: it means another object now. `changed`: the tensor was written into."""


class StartExplaining(Message, frozen=True, kw_only=True):
    """Load the pipeline, go to the function's first line, and ask for an `ExplainingStarted` reply.

    The function is `image_to_image` where `params.init_image` is set, else `text_to_image`. Batch sizes and counts above 1 are
    refused, and so are clip skip and the safety checker, which the functions do not have. What was explained before is dropped,
    at once also where it is in the middle of a line; an `Advance` that still waits for it gets an `ExplainingFailed`.
    """

    request: int
    params: GenerationParams


class Advance(Message, frozen=True, kw_only=True):
    """Run on, and ask for a `LinesRan` reply.

    A reply comes after some 0.3 s of work, or some 1 MB, or one line that takes longer: while its `stopped` is False, ask the
    same again. Not to ask again is how to interrupt. After the function has returned the reply has no lines, and is `finished`.
    """

    request: int
    to: AdvanceTo = "line"
    guidance_scale: float | None = None
    """From the next line on the function's own variable has this value, 0 to 50; None leaves it. It stays changed. Once `guided`
    is False (the run began with a scale of 1 or less) the U-Net is not asked without the prompt, and a change is refused."""
    pictures: bool = True
    """Whether tensors are to have their `picture`."""


class SaveExplained(Message, frozen=True, kw_only=True):
    """Save the picture of a function that has returned as a PNG with its record, and ask for an `ExplainedSaved` reply."""

    request: int
    path: str
    """An absolute one, ending in `.png`. Another name is chosen where this one is taken: `cat-2.png`."""


class ExplainStage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the function, as the comments `# --- title ---` divide it. What stands before the first one is none."""

    line: int
    """Of the comment."""
    title: str


class ExplainingStarted(Message, frozen=True, kw_only=True):
    """The function stands before its first line, and nothing of it has run."""

    request: int
    function: str
    """`text_to_image` or `image_to_image`."""
    file: str
    """From the package's folder on: `sdtui/scratch/text_to_image.py`."""
    first_line: int
    """Of `source` in the file."""
    source: str
    """From the decorator to the last line."""
    next_line: int
    """The first one that will run."""
    lines: tuple[int, ...]
    """Every line that can run, as `LineRan.line` calls it, in the order of the file."""
    notes: dict[int, str]
    """For each of `lines` why it is there, in a sentence."""
    stages: tuple[ExplainStage, ...]
    given: dict[str, str]
    """The function's arguments, as text that is safe to show."""
    params: GenerationParams
    """Resolved: size, seed and scheduler are filled in."""
    total_steps: int
    """How often the loop will go round: the timesteps, of which some schedulers have more than steps."""
    device: str
    """`cpu`, `cuda:0`."""
    device_name: str
    """`NVIDIA L4`, or `CPU, 8 threads`."""
    dtype: str
    """Of the weights: `float32`."""


class TensorPicture(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A small picture of a tensor: one pixel of it or one number is a pixel here, and nothing is enlarged."""

    width_px: int
    height_px: int
    rgb: bytes
    """height x width x 3 bytes, row by row from the top left."""
    what: str
    """What is seen, in half a sentence: `by linear factors, divided by their spread 14.6`."""


class MadeTensor(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A tensor, or a numpy array, that a line made. Figures are of its finite numbers, and None where it has none."""

    name: str
    """Of the function's variable."""
    how: HowMade
    shape: tuple[int, ...]
    dtype: str
    """`float32`, without torch's prefix."""
    device: str
    """`cpu`, `cuda:0`; of an array `numpy`."""
    low: float | None = None
    mean: float | None = None
    high: float | None = None
    std: float | None = None
    faults: int = 0
    """How many of its numbers are NaN or infinite."""
    picture: TensorPicture | None = None
    words: tuple[tuple[str, ...], ...] = ()
    """Of token ids: for each row its tokens with the start and the end mark, and without what fills up the row; safe to show."""


class LineRan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line that ran, and what it made: tensors in `made`, all else in `values`."""

    line: int
    next_line: int | None
    """Before which the function stands now; None when it has returned."""
    step_index: int | None = None
    """Of the loop's iteration that the line is in, 0 is the first; None outside of the loop. The line `for t in ...` belongs to
    the iteration that it begins; when it finds nothing left it is outside."""
    total_steps: int | None = None
    """As in `ExplainingStarted`; None outside of the loop."""
    timestep: float | None = None
    """The model's t of that iteration."""
    elapsed_s: float = 0.0
    """Without what looking took; a GPU has been waited for."""
    made: tuple[MadeTensor, ...] = ()
    values: dict[str, str] = {}
    """Names that are new or mean another object now and are no tensors, as short text that is safe to show."""
    finished: bool = False
    """The function has returned."""


class LinesRan(Message, frozen=True, kw_only=True):
    """What an `Advance` ran, in order."""

    request: int
    lines: tuple[LineRan, ...]
    stopped: bool
    """The line, the stage or the end that was asked for is reached; else ask again."""
    finished: bool = False
    """The function has returned."""
    picture: TensorPicture | None = None
    """What it returned, with the reply that tells of it; its longer side is at most 512 px. `SaveExplained` saves it as it is."""


class ExplainedSaved(Message, frozen=True, kw_only=True):
    """The picture is on the disk."""

    request: int
    path: str


class ExplainingFailed(Message, frozen=True, kw_only=True):
    """A request that cannot be answered; one sentence that may be shown.

    Where a line failed the function is over, and each further `Advance` gets this again. Lines that ran before it are told first.
    """

    request: int
    message: str
    field: str | None = None
    """The parameter to change, of `GenerationParams` or of the request."""
    line: int | None = None
    """That failed."""
    detail: str = ""
    """The traceback, for `--debug`."""


ExplainerRequest = StartExplaining | Advance | SaveExplained
ExplainerReply = ExplainingStarted | LinesRan | ExplainedSaved | ExplainingFailed
