"""The options of `sdtui generate`, made from the parameters, and the parameters made from what was given."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from sdtui.checkpoint import CheckpointError, check_model_folder, resolve_model
from sdtui.cli.output import EXIT_BAD_INPUT, CommandError, result_json
from sdtui.params import (
    BY_FIELD,
    FIELDS,
    MAX_PROMPT_CHARACTERS,
    SHIPPED_MODEL,
    GenerationParams,
    ParamField,
    check_params,
    parse_value,
)
from sdtui.protocol import Refused, as_json
from sdtui.schedulers import SCHEDULERS

MIN_PRIORITY, MAX_PRIORITY = -100, 100
_SIZE: Final = re.compile(r"(\d{1,9})x(\d{1,9})")
_METAVARS: Final = {"init_image": "FILE|URL", "resize": "HOW"}
_OTHER_VALUES: Final = {"resize": ", or WIDTHxHEIGHT: exact, at that size"}


class BadParams(CommandError):
    """Parameters that cannot be right; the first problem's field is kept for `--json`."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message, EXIT_BAD_INPUT)
        self.field = field

    def as_refused(self) -> Refused:
        """The same as the server would say it."""
        return Refused(message=str(self), field=self.field)


ProtocolOption = Annotated[
    str | None,
    typer.Option(
        "--image-protocol",
        metavar="NAME",
        help="auto, kitty, iterm2, sixel, sextant, quadrant, half; without it, as the settings say.",
        show_default=False,
    ),
]
"""How a command's pictures are drawn."""


def parameter_options(*, without_defaults: Container[str] | None = None) -> list[inspect.Parameter]:
    """One Typer option for each parameter but the prompt; values are text, None where not given.

    `without_defaults`: only for these, and their help names no default, as what is not given is taken from elsewhere.
    """
    if without_defaults is None:
        return [_option(field, _help(field)) for field in FIELDS if field.spec.flag]
    return [_option(field, _help(field, default=False)) for field in FIELDS if field.name in without_defaults]


def _option(field: ParamField, text: str) -> inspect.Parameter:
    flag = f"--{field.spec.flag}"
    kind: Any = str | None
    if field.kind == "bool":
        kind, flag = bool | None, f"{flag}/--no-{field.spec.flag}"
    option = typer.Option(flag, help=text, show_default=False, metavar=_metavar(field))
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _metavar(field: ParamField) -> str | None:
    if field.kind == "bool":
        return None
    if field.name in _METAVARS:
        return _METAVARS[field.name]
    if field.spec.unit:
        return field.spec.unit.upper()
    return {"int": "N", "float": "X", "str": "NAME"}[field.kind] if field.spec.group != "prompt" else "TEXT"


def _help(field: ParamField, *, default: bool = True) -> str:
    extra = []
    if field.name == "scheduler":
        extra.append(f"One of {', '.join(spec.name for spec in SCHEDULERS)}.")
    elif field.spec.choices:
        extra.append(f"One of {', '.join(field.spec.choices)}{_OTHER_VALUES.get(field.name, '')}.")
    if field.spec.minimum is not None and field.spec.maximum is not None:
        extra.append(f"{field.spec.minimum:g} to {field.spec.maximum:.16g}.")
    if default and field.default not in (None, "", False):
        extra.append(f"[{field.default}]")
    return " ".join([field.spec.help, *extra])


def params_from(prompt: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> GenerationParams:
    """The parameters of a generation from the command line's texts. Raises `BadParams` naming every wrong option."""
    if given.get("init_image") is not None and not given["init_image"].strip():  # a script's variable that was never set
        raise BadParams(f"{option_name('init_image')}: The name is empty; give a file or a URL, or leave it out.", "init_image")
    return _checked({**defaults, "prompt": prompt}, given)


def edited_params(
    params: GenerationParams, prompt: str | None, given: Mapping[str, Any], *, allow_pickle: bool = False
) -> GenerationParams:
    """The same parameters with those changed that were given. Raises `BadParams` naming every wrong option."""
    values = msgspec.structs.asdict(params) | ({} if prompt is None else {"prompt": prompt})
    edited = _checked(values, given)
    return with_model_path(edited, allow_pickle=allow_pickle) if edited.model != params.model else edited


def _checked(values: dict[str, Any], given: Mapping[str, Any]) -> GenerationParams:
    problems: list[tuple[str, str]] = []
    for name, value in _with_size(given, problems).items():
        if value is None:
            continue
        try:
            values[name] = parse_value(name, value) if isinstance(value, str) else value
        except ValueError as error:
            problems.append((name, str(error)))
    params = GenerationParams(**values)
    unparsed = {name for name, _ in problems}
    if params.init_image is None:
        init = option_name("init_image")
        unused = [name for name in ("strength", "resize") if given.get(name) is not None and name not in unparsed]
        problems += [
            (name, f"It says what becomes of an initial image, and there is none; name one with {init}.") for name in unused
        ]
    problems += [(problem.field, problem.message) for problem in check_params(params) if problem.field not in unparsed]
    if problems:
        raise BadParams("\n".join(f"{option_name(field)}: {message}" for field, message in problems), problems[0][0])
    return params


def _with_size(given: Mapping[str, Any], problems: list[tuple[str, str]]) -> dict[str, Any]:
    """What was given, with `--resize 768x512` as `exact` and that size; where `--width` says another one it is a problem."""
    found = _SIZE.fullmatch((given.get("resize") or "").strip())
    if found is None:
        return dict(given)
    size = {"width": found[1], "height": found[2]}
    for name, value in size.items():
        other = (given.get(name) or value).strip()
        if other != value:
            problems.append(
                ("resize", f"{found[0]} and {option_name(name)} {other[:40]} say different things; give one of them.")
            )
    return {**given, **size, "resize": "exact"}


@contextmanager
def problems_in_json(*, wanted: bool) -> Iterator[None]:
    """Bad parameters are said on stdout too, as the server would refuse them, where JSON is wanted."""
    try:
        yield
    except BadParams as error:
        if wanted:
            result_json(as_json(error.as_refused()))
        raise


def with_model_path(params: GenerationParams, *, allow_pickle: bool = False) -> GenerationParams:
    """The same with a model folder's path made absolute, since the server has its own directory. Raises `BadParams`.

    A folder is checked here, so that a broken one shows before a worker is started for it.
    """
    try:
        found = resolve_model(params.model)
        if isinstance(found, Path):
            check_model_folder(found, allow_pickle=allow_pickle)
    except CheckpointError as error:
        raise BadParams(f"{option_name('model')}: {error}", "model") from error
    if params.model == SHIPPED_MODEL or isinstance(found, str):
        return params
    return msgspec.structs.replace(params, model=str(found))


def option_name(field: str | None) -> str:
    """A parameter as the command line calls it: `--steps`, or `PROMPT`; other names stay."""
    known = BY_FIELD.get(field or "")
    if known is None:
        return f"--{(field or '').replace('_', '-')}"
    return f"--{known.spec.flag}" if known.spec.flag else known.name.upper()


def read_prompt(prompt: str) -> str:
    """The prompt itself; `-` means all of stdin."""
    if prompt != "-":
        return prompt
    try:
        return sys.stdin.read(MAX_PROMPT_CHARACTERS + 2).removesuffix("\n")
    except UnicodeDecodeError as error:
        raise BadParams(f"PROMPT: stdin is not UTF-8 text: {error.reason} at byte {error.start}.", "prompt") from error
