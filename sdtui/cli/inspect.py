"""`sdtui inspect MODEL`: what a model is made of."""

from __future__ import annotations

import json as json_text
from collections.abc import Sequence
from typing import Annotated, Any, Final, cast, get_args

import msgspec
import typer

from sdtui.anatomy.diff import Difference, diff
from sdtui.anatomy.find import SortBy
from sdtui.anatomy.read import locate, open_anatomy
from sdtui.anatomy.structs import Anatomy, AnatomyError, Component, PickleRefused
from sdtui.cli import dry_run, pickles, weights_diff
from sdtui.cli.model_tree import View, headline, rows, show
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, CommandError, note, result, result_json
from sdtui.protocol import DryDtype, RunDry
from sdtui.text import count_noun, safe_text

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SORTS: Final[dict[str, SortBy]] = {"parameters": "parameters", "bytes": "bytes", "name": "name"}
_MOST_NAMES: Final = 10
_WHOLE: Final = 64
"""The deepest that any file may go; a LoRA is shown down to what it changes."""


@app.command()
def inspect(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="scenes-128, a hub id in the cache, a folder, a .safetensors or .index.json file."),
    ],
    *,
    component: Annotated[
        str | None, typer.Option("--component", metavar="NAME", help="This part alone, such as unet or vae.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", min=0, max=_WHOLE, help="How deep, 2 if nothing is searched for.")
    ] = None,
    filter: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Modules with this in path, class or shape: attn2, Conv2d, [320,")
    ] = "",
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="BY", help="Largest first: parameters or bytes; or by name.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON object.")] = False,
    lora: Annotated[str | None, typer.Option("--lora", metavar="FILE", help="Show what this LoRA changes, and how much.")] = None,
    other: Annotated[str | None, typer.Option("--diff", metavar="OTHER", help="Show what differs in another model.")] = None,
    unpickle: Annotated[
        bool,
        typer.Option("--pickle", help="Read a .ckpt or .bin with torch's weights_only in a process of its own: shapes alone."),
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="With --diff: read the numbers of both, and show by how much they differ.")
    ] = False,
    shapes: Annotated[
        str | None,
        typer.Option(
            "--shapes", metavar="WxH", help="Follow pictures of this size through it, or auto: shapes, multiply-adds, memory."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="With --shapes: how many pictures at once, 1 if not given.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="DTYPE", help="With --shapes: float16 if not given, bfloat16 or float32.")
    ] = None,
) -> int:
    """Say what a model is made of, from its files alone: nothing is loaded, nothing is run.

    With --shapes its networks are followed without their weights, by a process of its own on the CPU.

    A class with a question mark is guessed from names and shapes.

    Example: sdtui inspect model.safetensors --filter attn2
    """
    _check_together(lora=lora, other=other, shapes=shapes, sort=sort, weights=weights, dry=batch is not None or dtype is not None)
    if shapes is not None:
        request = _dry_run(model, shapes, batch, dtype)
        return dry_run.run(request, component=component, depth=depth, query=filter, json=json)
    try:
        anatomy = _opened(model, unpickle=unpickle)
        chosen = _chosen(anatomy, component)
        if other is not None:
            right = open_anatomy(other)
            if weights:
                return weights_diff.run(anatomy, right, component, json=json)
            return _compare(anatomy, right, component, json=json)
        if depth is None and anatomy.kind == "lora":
            depth = _WHOLE
        view = View(depth=depth, query=filter, sort=_SORTS[sort] if sort else None)
        if lora is not None:
            return _with_lora(anatomy, chosen, lora, view, json=json)
    except AnatomyError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error
    if json:
        result_json(_json(_described(anatomy, chosen, view)))
        return EXIT_DONE
    show(anatomy, chosen, view)
    for problem in anatomy.problems:
        note(problem)
    if filter and not any(True for part in chosen for _ in rows(part, view)):
        note(f"Nothing here has {safe_text(filter, limit=60)!r} in its path, class or shape.")
    return EXIT_DONE


def _opened(model: str, *, unpickle: bool) -> Anatomy:
    """The model; a pickle only where that is asked for. Raises `AnatomyError`, `CommandError`."""
    try:
        return open_anatomy(model)
    except PickleRefused as refused:
        if not unpickle:
            raise AnatomyError(f"{refused} Its shapes can be read with --pickle, which runs no code of it.") from refused
        return pickles.read(str(refused.path))


def _check_together(
    *, lora: str | None, other: str | None, shapes: str | None, sort: str | None, weights: bool, dry: bool
) -> None:
    """Raises `CommandError` for options that do not go together."""
    if sort is not None and sort not in _SORTS:
        raise CommandError(f"--sort: {safe_text(sort)!r} is not one of {', '.join(_SORTS)}.", EXIT_BAD_INPUT)
    if lora is not None and other is not None:
        raise CommandError("--lora and --diff cannot be used at once.", EXIT_BAD_INPUT)
    if weights and other is None:
        raise CommandError("--weights says how --diff is to compare; give that too.", EXIT_BAD_INPUT)
    if shapes is None and dry:
        raise CommandError("--batch and --dtype say how --shapes is to be run; give that too.", EXIT_BAD_INPUT)
    if shapes is not None and (lora is not None or other is not None or sort is not None):
        raise CommandError("--shapes cannot be used with --lora, --diff or --sort.", EXIT_BAD_INPUT)


def _dry_run(model: str, shapes: str, batch: int | None, dtype: str | None) -> RunDry:
    width, height = dry_run.size_of(shapes)
    known = get_args(DryDtype)
    if dtype is not None and dtype not in known:
        raise CommandError(f"--dtype: {safe_text(dtype, limit=60)!r} is not one of {', '.join(known)}.", EXIT_BAD_INPUT)
    chosen = cast(DryDtype, dtype or "float16")
    return RunDry(request=0, model=model, width_px=width, height_px=height, batch_size=batch or 1, dtype=chosen)


def _chosen(anatomy: Anatomy, name: str | None) -> Sequence[Component]:
    if name is None:
        return anatomy.components
    found = anatomy.component(name)
    if found is None:
        there = ", ".join(safe_text(component.name) for component in anatomy.components)
        raise CommandError(f"--component: there is no {safe_text(name, limit=60)!r}; this model has {there}.", EXIT_BAD_INPUT)
    return (found,)


def _json(described: object) -> bytes:
    """JSON in ASCII: names keep their spelling, and nothing in them acts on a terminal."""
    return json_text.dumps(described).encode()


def _described(anatomy: Anatomy, chosen: Sequence[Component], view: View) -> dict[str, Any]:
    """The model as plain values; all modules unless a depth or a search says which."""
    everything = view.depth is None and not view.query and view.sort is None and not view.notes
    parts = []
    for component in chosen:
        shown = component.modules if everything else [row.module for row in rows(component, view)]
        part: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(component, modules=()))
        parts.append(part | {"modules": msgspec.to_builtins(shown)})
    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(anatomy, components=()))
    return found | {"parameters": anatomy.parameters, "bytes": anatomy.bytes, "components": parts}


# --- another model --------------------------------------------------------------------------------------------------


def _compare(left: Anatomy, right: Anatomy, component: str | None, *, json: bool) -> int:
    found = [entry for entry in diff(left, right) if component in (None, entry.component)]
    if json:
        result_json(_json({"left": left.source, "right": right.source, "differences": msgspec.to_builtins(found)}))
        return EXIT_DONE
    for line in (*headline(left), *headline(right), ""):
        result(line)
    for line in map(_difference, found):
        result(line)
    result(f"{count_noun(len(found), 'difference')} in structure." if found else "No difference in structure.")
    return EXIT_DONE


def _difference(entry: Difference) -> str:
    where = ".".join(safe_text(part) for part in (entry.component, entry.path, entry.name) if part)
    if entry.what in ("class", "shape", "dtype"):
        return f"{where}: {entry.what} {safe_text(entry.left)} against {safe_text(entry.right)}"
    side = "left" if entry.what == "only left" else "right"
    return f"{where}: only in the {side} one ({count_noun(entry.tensors, 'tensor')})"


# --- a LoRA ---------------------------------------------------------------------------------------------------------


def _with_lora(anatomy: Anatomy, chosen: Sequence[Component], file: str, view: View, *, json: bool) -> int:
    from sdtui.anatomy.files import read_tensors
    from sdtui.anatomy.lora import is_lora, read_lora
    from sdtui.anatomy.lora_fit import Placed, change_norms, fit

    path = locate(file)
    tensors = read_tensors(path)
    if not is_lora(tensors.entries):
        raise CommandError(
            f"--lora: {safe_text(str(path), limit=300)} is no LoRA; look at it with sdtui inspect.", EXIT_BAD_INPUT
        )
    lora = read_lora(tensors)
    found = fit(lora, anatomy)
    norms = {(pair.component, pair.path): norm for pair, norm in change_norms(lora, tensors)}
    nowhere = [*(f"{pair.component}.{pair.path}" for pair in found.nowhere), *found.unknown]

    def said(placed: Placed) -> str:
        pair, norm = placed.pair, norms.get((placed.pair.component, placed.pair.path))
        facts = [pair.kind, f"rank {pair.rank}" if pair.rank else "", f"alpha {pair.alpha:g}" if pair.alpha is not None else ""]
        facts += [f"norm {norm:.3g}" if norm is not None else "", f"! {placed.problem}" if placed.problem else ""]
        return " ".join(fact for fact in facts if fact)

    if json:
        changes = [msgspec.to_builtins(p) | {"norm": norms.get((p.pair.component, p.pair.path))} for p in found.placed]
        family = {"name": lora.family.name, "sure": lora.family.sure, "why": lora.family.why}
        result_json(
            _json({"model": anatomy.source, "lora": str(path), "family": family, "changes": changes, "fits_nothing": nowhere})
        )
        return EXIT_DONE
    notes = {part.name: {where: said(placed) for where, placed in found.at(part.name).items()} for part in chosen}
    if any(notes.values()):
        show(anatomy, chosen, View(view.depth, view.query, view.sort, notes))
    ranks = ", ".join(map(str, lora.ranks)) or "none"
    sure = f"{lora.family.name}, {lora.family.sure:.0%} sure" if lora.family.sure else "a model that is not known"
    result(
        f"LoRA: {count_noun(len(lora.pairs), 'change')}, rank {ranks}, written as by {lora.format or 'nobody known'}, for {sure}."
    )
    if nowhere:
        names = ", ".join(safe_text(name, limit=80) for name in nowhere[:_MOST_NAMES])
        more = f" and {len(nowhere) - _MOST_NAMES:,} more" if len(nowhere) > _MOST_NAMES else ""
        result(f"{len(nowhere):,} fit nothing in this model: {names}{more}.")
    return EXIT_DONE
