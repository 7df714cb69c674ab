"""What a client asks the inspector process, and what it answers: models are looked at there, and none is loaded or run."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from sdtui.anatomy.structs import Anatomy, Component
from sdtui.protocol.base import Message
from sdtui.protocol.values import TensorFact

DryDtype = Literal["float32", "float16", "bfloat16"]


class ReadModules(Message, frozen=True, kw_only=True):
    """Build one component's class from its configuration, without weights, and ask for a `ModulesRead` reply."""

    request: int
    model: str
    """A path, a hub id in the cache, or the shipped model's name."""
    component: str


class ReadPickle(Message, frozen=True, kw_only=True):
    """Read a pickle's tensors with torch's `weights_only`, and ask for a `PickleRead` reply; shapes and dtypes alone are kept."""

    request: int
    model: str
    """The path of a file."""


class RunDry(Message, frozen=True, kw_only=True):
    """Run text encoders, denoiser and VAE once without weights and numbers, and ask for a `DryRunDone` reply."""

    request: int
    model: str
    width_px: int = 0
    """0: the size that the model was made for; so for the height."""
    height_px: int = 0
    batch_size: int = 1
    guidance: bool = True
    """With a negative prompt the denoiser sees each picture twice."""
    dtype: DryDtype = "float16"


class MeasureWeight(Message, frozen=True, kw_only=True):
    """Read one tensor piece by piece, and ask for a `WeightMeasured` reply."""

    request: int
    model: str
    component: str
    key: str
    """The tensor's whole name in its file."""
    singular_values: bool = False
    """Also those, where the tensor is small enough for it."""


class CompareWeights(Message, frozen=True, kw_only=True):
    """Read the tensors that two models have in common, and ask for a `WeightsCompared` reply."""

    request: int
    model: str
    other: str
    component: str
    path: str = ""
    """Only what stands at this module and below."""


class ReadSource(Message, frozen=True, kw_only=True):
    """Ask for a `SourceRead` reply: the code of the class that stands at a path; the empty path is the component itself."""

    request: int
    model: str
    component: str
    path: str = ""


class ModulesRead(Message, frozen=True, kw_only=True):
    """A component as its class makes it, merged with its files; what does not fit is in `problems` of its module.

    A weight that no file has, has neither dtype nor key, and no bytes.
    """

    request: int
    component: Component


class PickleRead(Message, frozen=True, kw_only=True):
    """What a pickle holds, as the tree of a file."""

    request: int
    anatomy: Anatomy


class DryModule(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What went through a module in one forward; shapes are those of its first call."""

    path: str
    class_name: str
    calls: int
    inputs: tuple[TensorFact, ...]
    outputs: tuple[TensorFact, ...]
    macs: int
    """Multiply-adds of matrix products and convolutions in its whole branch, all calls together."""
    output_bytes: int
    """Of all calls together."""


class DryStage(msgspec.Struct, frozen=True, kw_only=True):
    """One component's forward: a text encoder's, one step of the denoiser's, or the VAE's decoding."""

    component: str
    class_name: str
    batch_size: int
    """Of the forward itself: with guidance twice the pictures'."""
    macs: int
    parameters: int
    weight_bytes: int
    """In the dtype of the run."""
    activation_bytes: int
    """All that was ever made during the forward."""
    peak_bytes: int
    """The most that lived at once, without the weights."""
    modules: tuple[DryModule, ...]


class DryRunDone(Message, frozen=True, kw_only=True):
    """The stages in the order in which they run, and what a whole job would need."""

    request: int
    width_px: int
    height_px: int
    batch_size: int
    guidance: bool
    dtype: DryDtype
    stages: tuple[DryStage, ...]
    weight_bytes: int
    """Of all stages' components, which stay in memory."""
    peak_bytes: int
    """An estimate; `how` says of what it is made."""
    how: str
    skipped: tuple[str, ...] = ()
    """Components that could not be run, each with the reason."""


class WeightMeasured(Message, frozen=True, kw_only=True):
    """One tensor's figures; those of a tensor without a finite number are None. NaN and infinities are counted, and left out."""

    request: int
    component: str
    key: str
    file: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None
    norm: float | None
    """The square root of the sum of squares."""
    zeros: float
    """The share of exact zeros, 0 to 1."""
    nans: int
    infinities: int
    histogram: tuple[int, ...]
    """Counts in bins of equal width from `minimum` to `maximum`."""
    singular_values: tuple[float, ...] | None = None
    """The largest first; of a convolution, those of its kernel as a matrix with a row for each output."""
    note: str = ""
    """Why there are no singular values, where they were asked for."""


class WeightDifference(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one tensor differs: the numbers of the other model minus those of this one."""

    path: str
    """Of its module, as diffusers calls it."""
    name: str
    norm: float
    """Of this model's tensor: the square root of the sum of squares; so for the next."""
    change: float
    absmax: float
    """The largest change of one number."""
    changed: float
    """The share of numbers that are not the same, 0 to 1."""
    faults: int = 0
    """Places where only one side has a finite number, or they have other infinities; they are in `changed`, not in the rest."""

    @property
    def told(self) -> str:
        """The change as a share of the norm, the largest of one number, and how many numbers changed."""
        share = self.change / self.norm if self.norm else math.inf
        size = f"by {share:.2%} of its norm".replace("%", " %") if share < math.inf else f"from 0 to a norm of {self.change:.3g}"
        many = "all numbers" if self.changed >= 1 else f"{self.changed:.2%} of the numbers".replace("%", " %")
        faults = f", {self.faults:,} of them not finite on one side" if self.faults else ""
        return f"changed {size}, a number at most by {self.absmax:.3g}; {many}{faults}"


class WeightsCompared(Message, frozen=True, kw_only=True):
    """The tensors that differ, the one whose share of change is greatest first; those that are the same are only counted.

    NaN is the same as NaN.
    """

    request: int
    component: str
    path: str
    other: str
    compared: int
    same: int
    differences: tuple[WeightDifference, ...]


class SourceRead(Message, frozen=True, kw_only=True):
    """The code of a module's class; `file` begins with the library's name."""

    request: int
    component: str
    path: str
    class_name: str
    python_module: str
    file: str
    line: int
    """Of `source` in the file; 1 is the first."""
    signature: str
    """Of `forward`."""
    settings: dict[str, str]
    source: str
    """Of `forward`."""


class InspectionFailed(Message, frozen=True, kw_only=True):
    """A request that cannot be answered; one sentence that may be shown."""

    request: int
    message: str


InspectorRequest = ReadModules | ReadPickle | RunDry | MeasureWeight | CompareWeights | ReadSource
InspectorReply = ModulesRead | PickleRead | DryRunDone | WeightMeasured | WeightsCompared | SourceRead | InspectionFailed
