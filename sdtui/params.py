"""What a generation takes: each parameter once, with its type, range, default, unit and help.

The form, the command line's options, the metadata and the checks are all derived from `GenerationParams`.
Names are diffusers'; `Spec.a1111` is the name in A1111's infotext.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from sdtui.schedulers import MODEL_DEFAULT, SIGMAS, find_scheduler, nearest_scheduler

SHIPPED_MODEL: Final = "scenes-128"
"""The name of the model that lies in the package."""
MAX_PROMPT_CHARACTERS: Final = 10_000
"""77 tokens are read; 10,000 characters leave room for every prompt with weights and comments, and stop a pasted file."""
MAX_SOURCE_CHARACTERS: Final = 4096
"""The longest path that Linux takes, and more than any server takes of a URL."""
MAX_SEED: Final = 2**53 - 1
"""The largest integer that survives JSON readers that use doubles."""
RANDOM_SEEDS: Final = 2**32
"""Random seeds are drawn below this, as A1111 does, so they can be typed again."""


class Spec(msgspec.Struct, frozen=True):
    """What is known of a parameter besides its type and default."""

    label: str
    help: str
    flag: str
    """The command line's option, without the dashes; empty for a positional argument."""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    """How far one press of an arrow key goes in the form."""
    choices: tuple[str, ...] = ()
    a1111: str | None = None
    group: str = "main"
    """Where the form shows it: `prompt`, `main`, `size`, `image`, `model`, `advanced`."""


class GenerationParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides the pixels of a generation. `None` means: what the model was made for, or for the seed, random."""

    prompt: Annotated[str, Spec("Prompt", "What the picture should show.", "", group="prompt")] = ""
    negative_prompt: Annotated[
        str,
        Spec(
            "Negative prompt",
            "What the picture should not show. It takes the place of the empty prompt in classifier-free guidance.",
            "negative",
            a1111="Negative prompt",
            group="prompt",
        ),
    ] = ""
    num_inference_steps: Annotated[
        int,
        Spec(
            "Steps",
            "How many times the scheduler asks the U-Net. More steps follow the path of the noise more closely.",
            "steps",
            minimum=1,
            maximum=1000,
            step=1,
            a1111="Steps",
        ),
    ] = 20
    guidance_scale: Annotated[
        float,
        Spec(
            "Guidance",
            "How strongly the prompt pulls: uncond + scale x (text - uncond). 1 or less turns it off and halves the work.",
            "guidance",
            minimum=0.0,
            maximum=50.0,
            step=0.5,
            a1111="CFG scale",
        ),
    ] = 4.0
    seed: Annotated[
        int | None,
        Spec(
            "Seed",
            "Starts the random numbers; the same seed and settings give the same picture. Empty: random, and recorded.",
            "seed",
            minimum=0,
            maximum=MAX_SEED,
            step=1,
            a1111="Seed",
        ),
    ] = None
    width: Annotated[
        int | None,
        Spec(
            "Width",
            "Width of the picture in pixels; a multiple of what the model can take. Empty: the size the model was trained at.",
            "width",
            unit="px",
            minimum=8,
            maximum=4096,
            step=64,
            group="size",
        ),
    ] = None
    height: Annotated[
        int | None,
        Spec(
            "Height",
            "Height of the picture in pixels; a multiple of what the model can take. Empty: the size the model was trained at.",
            "height",
            unit="px",
            minimum=8,
            maximum=4096,
            step=64,
            group="size",
        ),
    ] = None
    init_image: Annotated[
        str | None,
        Spec(
            "Initial image",
            "A picture to begin with instead of noise: a file or a URL. Empty: text to image.",
            "init",
            group="image",
        ),
    ] = None
    strength: Annotated[
        float,
        Spec(
            "Strength",
            "With an initial image: which share of the steps runs, and so how much of the picture may change (SDEdit).",
            "strength",
            minimum=0.0,
            maximum=1.0,
            step=0.05,
            a1111="Denoising strength",
            group="image",
        ),
    ] = 0.8
    resize: Annotated[
        Literal["fit", "exact", "fill", "crop"],
        Spec(
            "Resize",
            "How the initial image gets the size: fit keeps its proportions inside it, exact stretches, fill cuts what stands "
            "out, crop cuts the middle out.",
            "resize",
            choices=("fit", "exact", "fill", "crop"),
            group="image",
        ),
    ] = "fit"
    scheduler: Annotated[
        str,
        Spec(
            "Scheduler",
            "How the noise is taken away step by step. `default` is the one the model brings.",
            "scheduler",
            a1111="Sampler",
        ),
    ] = MODEL_DEFAULT
    sigmas: Annotated[
        Literal["default", "karras", "exponential", "beta"],
        Spec(
            "Sigmas",
            "How the noise levels are spaced, for schedulers that can choose (Karras et al. 2022, eq. 5).",
            "sigmas",
            choices=SIGMAS,
            a1111="Schedule type",
        ),
    ] = "default"
    batch_count: Annotated[
        int,
        Spec(
            "Batch count",
            "How many batches to make one after the other; the seed goes up with each picture.",
            "count",
            minimum=1,
            maximum=1000,
            step=1,
            group="advanced",
        ),
    ] = 1
    batch_size: Annotated[
        int,
        Spec(
            "Batch size",
            "How many pictures are made at the same time. Faster on a GPU, and takes more memory.",
            "batch-size",
            minimum=1,
            maximum=64,
            step=1,
            a1111="Batch size",
            group="advanced",
        ),
    ] = 1
    clip_skip: Annotated[
        int,
        Spec(
            "Clip skip",
            "How many of the text encoder's last layers are left out, as in diffusers (A1111 counts one more).",
            "clip-skip",
            minimum=0,
            maximum=11,
            step=1,
            a1111="Clip skip",
            group="advanced",
        ),
    ] = 0
    safety_checker: Annotated[
        bool,
        Spec(
            "Safety checker",
            "Run the model's safety checker, if it brings one, and black out what it flags.",
            "safety-checker",
            group="advanced",
        ),
    ] = False
    model: Annotated[
        str,
        Spec(
            "Model",
            f"A diffusers folder, a hub id such as owner/name, or `{SHIPPED_MODEL}`, which ships with sdtui.",
            "model",
            a1111="Model",
            group="model",
        ),
    ] = SHIPPED_MODEL
    revision: Annotated[
        str | None,
        Spec("Revision", "Branch, tag or commit of a hub model.", "revision", group="model"),
    ] = None
    variant: Annotated[
        str | None,
        Spec("Variant", "Which stored weights to prefer, such as fp16; falls back to the plain ones.", "variant", group="model"),
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        Spec(
            "Dtype",
            "Precision of the weights. auto: float16 on a GPU, float32 on a CPU without fast bfloat16.",
            "dtype",
            choices=("auto", "float32", "float16", "bfloat16"),
            group="model",
        ),
    ] = "auto"
    device: Annotated[
        str,
        Spec("Device", "auto, cpu, cuda or cuda:N. auto takes a GPU when there is one.", "device", group="model"),
    ] = "auto"


Kind = Literal["str", "int", "float", "bool"]


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with one parameter, in a sentence that says what would be right."""

    field: str
    message: str


class ParamField(msgspec.Struct, frozen=True):
    """One parameter with its Python type and default, as the form and the command line need it."""

    name: str
    spec: Spec
    kind: Kind
    optional: bool
    default: Any


def _read_fields() -> tuple[ParamField, ...]:
    hints = get_type_hints(GenerationParams, include_extras=True)
    defaults = GenerationParams()
    fields: list[ParamField] = []
    for name in GenerationParams.__struct_fields__:
        annotation, spec = get_args(hints[name])
        optional = get_origin(annotation) in (Union, types.UnionType)
        bare = next(arg for arg in get_args(annotation) if arg is not type(None)) if optional else annotation
        kind = cast(Kind, "str" if get_origin(bare) is Literal else bare.__name__)
        fields.append(ParamField(name, spec, kind, optional, getattr(defaults, name)))
    return tuple(fields)


FIELDS: Final = _read_fields()
BY_FIELD: Final[dict[str, ParamField]] = {field.name: field for field in FIELDS}


def parse_value(name: str, text: str) -> Any:
    """The value of parameter `name` written as `text`, as the form and the command line take it.

    Raises `ValueError` with a sentence for the user. Empty text is None where the parameter may be empty.
    """
    field = BY_FIELD[name]
    text = text.strip() if field.spec.group != "prompt" else text
    if field.optional and (not text or (field.kind != "str" and text.lower() in ("auto", "random"))):
        return None
    if field.kind == "bool":
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError(f"{field.spec.label} is yes or no, not {text[:40]!r}.")
    if field.kind in ("int", "float"):
        return _parse_number(field, text)
    return text


def _parse_number(field: ParamField, text: str) -> int | float:
    kind: type[int] | type[float] = int if field.kind == "int" else float
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"{field.spec.label} takes {wanted}{_range_text(field)}, not {text[:40]!r}.") from None


def _range_text(field: ParamField) -> str:
    low, high = field.spec.minimum, field.spec.maximum
    if low is None or high is None:
        return ""
    unit = f" {field.spec.unit}" if field.spec.unit else ""
    return f" from {low:g} to {high:.16g}{unit}"


def check_value(name: str, value: Any) -> str | None:
    """What is wrong with one value, as a sentence for the user; None when it is right."""
    field = BY_FIELD[name]
    label = field.spec.label
    if value is None:
        return None if field.optional else f"{label} may not be empty."
    if field.kind in ("int", "float"):
        low, high = field.spec.minimum, field.spec.maximum
        # no float(value): an int may be too large for it
        finite = isinstance(value, int) or math.isfinite(value)
        if not finite or (low is not None and value < low) or (high is not None and value > high):
            return f"{label} must be{_range_text(field)}; it is {str(value)[:40]}."
        return None
    if field.kind == "str":
        return _check_text(field, value)
    return None


def _check_text(field: ParamField, value: str) -> str | None:
    label = field.spec.label
    if any("\ud800" <= character <= "\udfff" for character in value):
        return f"{label} holds bytes that are not UTF-8 text."
    if field.name == "scheduler" and find_scheduler(value) is None:
        return f"Scheduler {value[:40]!r} is not known; the nearest one is {nearest_scheduler(value)!r}."
    if field.name == "prompt" and not value.strip():
        return "Prompt is empty; say what the picture should show."
    if field.name == "init_image" and (not value.strip() or len(value) > MAX_SOURCE_CHARACTERS or "\0" in value):
        return f"Initial image takes the path of a picture or a URL, of at most {MAX_SOURCE_CHARACTERS:,} characters."
    if field.name == "model" and not value.strip():
        return f"Model is empty; name a diffusers folder, a hub id or {SHIPPED_MODEL!r}."
    if field.spec.group == "prompt" and len(value) > MAX_PROMPT_CHARACTERS:
        return f"{label} has {len(value):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are taken (the model reads 77 tokens)."
    if field.spec.choices and value not in field.spec.choices:
        close = difflib.get_close_matches(value, field.spec.choices, n=1, cutoff=0.0)
        return f"{label} {value[:40]!r} is not one of {', '.join(field.spec.choices)}; did you mean {close[0]!r}?"
    if field.name == "device" and not _is_device(value):
        return f"Device {value[:40]!r} is not one of auto, cpu, cuda, cuda:N."
    return None


def _is_device(value: str) -> bool:
    name, _, index = value.partition(":")
    return value in ("auto", "cpu", "cuda") or (name == "cuda" and index.isdecimal())


def check_params(params: GenerationParams) -> list[Problem]:
    """Every problem that shows without the model, in the order of the fields; empty when all is well.

    Whether the model can take a width, a height or a scheduler only the worker knows; see `check_size`.
    """
    found = ((name, check_value(name, getattr(params, name))) for name in BY_FIELD)
    problems = [Problem(name, message) for name, message in found if message]
    if not problems and params.init_image is not None:
        message = check_strength(params.num_inference_steps, params.strength)
        problems += [Problem("strength", message)] if message else []
    return problems


def steps_that_run(steps: int, strength: float) -> int:
    """How many of the steps image to image runs: the last ones, as `get_timesteps` of diffusers' pipelines counts them.

    Meng et al. 2021 (SDEdit), section 3: the picture gets as much noise as the first of these expects.
    """
    return min(int(steps * strength), steps)


def check_strength(steps: int, strength: float) -> str | None:
    """Whether any step is left to run, as a sentence for the user."""
    if steps_that_run(steps, strength) > 0:
        return None
    least = next(value for value in range(1, 101) if steps_that_run(steps, value / 100) > 0) / 100 if steps > 0 else 1.0
    of_steps = "1 step" if steps == 1 else f"{steps} steps"
    return f"Strength {strength:g} of {of_steps} leaves none to run; at least {least:g} is needed, or more steps."


def check_size(name: str, value: int | None, multiple: int) -> str | None:
    """Whether a width or height in pixels is a multiple that the loaded model can take."""
    if value is None or value % multiple == 0:
        return None
    below = max(multiple, value // multiple * multiple)
    label = BY_FIELD[name].spec.label
    return f"{label} must be a multiple of {multiple} px for this model; it is {value}. Near it: {below} or {below + multiple}."


def changed(params: GenerationParams) -> Mapping[str, Any]:
    """The parameters that differ from their defaults, by name."""
    return {field.name: value for field in FIELDS if (value := getattr(params, field.name)) != field.default}
