"""What a job in inspect mode tells of the networks' modules while they run."""

from __future__ import annotations

from typing import Literal

import msgspec

from sdtui.protocol.base import Message

InspectMode = Literal["off", "blocks", "modules"]
Fault = Literal["", "nan", "inf"]
"""What a module gave beside numbers; infinity only where there is no NaN."""


class ModuleRun(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One module's calls in one step or stage: its output, and what it took.

    `shape` and `dtype` are those of the first tensor of its first output; one that gives none has neither. Statistics are over
    all calls, and None where they are no numbers or where there is no floating-point tensor. Those of modules that are no blocks
    are taken in turn, each in every nth step, and are None in the steps between; `fault` is looked for in all.
    """

    path: str
    """Below its network; the empty one is the network itself."""
    class_name: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    mean: float | None = None
    std: float | None = None
    absmax: float | None = None
    fault: Fault = ""
    elapsed_s: float = 0.0
    """With what lies inside it, all calls together; on a GPU measured there."""
    output_bytes: int = 0
    """Of its first output's first tensor."""
    memory_bytes: int = 0
    """What the work held after it, as in `StepFinished`; asked at blocks only, 0 elsewhere."""
    calls: int = 1


class ModulesRan(Message, frozen=True, kw_only=True):
    """The modules of one network that ran in a step, or in the stage `embeddings` or `decode`, in the order in which they began.

    It is not recorded, and a client that is far behind does not get all of them.
    """

    job: str
    batch_index: int
    step_index: int | None
    """None outside of the steps."""
    network: str
    """`unet`, `transformer`, `vae`, `text_encoder`, `text_encoder_2`, `text_encoder_3`."""
    modules: tuple[ModuleRun, ...]
    probing_s: float
    """What looking took, of all networks in this step or stage; it is part of that one's time."""


class JobInspected(Message, frozen=True, kw_only=True):
    """A batch of an inspected job has its activations and word maps in a file; see `sdtui.inspected`."""

    job: str
    batch_index: int
    path: str
    modules: int = 0
    """Whose activations are in it."""
    words: int = 0
    """Words of the prompt whose maps are in it."""


class NotANumber(Message, frozen=True, kw_only=True):
    """The first module of a job whose output holds a NaN or an infinity; told once a job by one worker."""

    job: str
    batch_index: int
    step_index: int | None
    """None outside of the steps."""
    network: str
    module: str
    """Its path; the empty one is the network itself."""
    fault: Literal["nan", "inf"]
    given: bool = False
    """The network was given it already, so that no module is to blame."""
