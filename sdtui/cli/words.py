"""`sdtui words`: where the words of a prompt act in a picture, and where the guidance pulls."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from sdtui.cli.inspected_job import Inspected, find_inspected
from sdtui.cli.options import ProtocolOption
from sdtui.cli.output import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, CommandError, note, result, result_json, table
from sdtui.cli.start import settings_or_error, with_image_protocol
from sdtui.inspected import InspectedError, WordFacts, tape_of
from sdtui.settings import nearest
from sdtui.text import count_noun, safe_text

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from sdtui.words import Word

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_HUES: Final = ("orange", "azure")


class _WordRow(msgspec.Struct, frozen=True):
    """What is said of a word; places are in pixels of the picture, from the left and from the top."""

    word: str
    tokens: tuple[int, ...]
    share: float
    centre_px: tuple[int, int]
    peak_px: tuple[int, int]
    contrast: float


class _StepRow(msgspec.Struct, frozen=True):
    """What is said of a step's guidance."""

    step: int
    mean: float
    centre_px: tuple[int, int]
    peak_px: tuple[int, int]
    contrast: float


@dataclass(frozen=True)
class _Asked:
    """What is wanted of it."""

    save: str | None
    protocol: str
    json: bool


@app.command()
def words(
    target: Annotated[
        str | None,
        typer.Argument(metavar="JOB|FILE", help="A job's name, or a picture of it; without it the last job with maps."),
    ] = None,
    *,
    word: Annotated[str | None, typer.Option(metavar="WORD", help="Show where this word, or these words in a row, act.")] = None,
    compare: Annotated[str | None, typer.Option("--with", metavar="WORD", help="A second word, in another hue.")] = None,
    image: Annotated[int | None, typer.Option(metavar="N", min=1, help="Which picture of the job, from 1 on.")] = None,
    guidance: Annotated[
        bool, typer.Option("--guidance", help="How far the prompt pulls each place of the picture, instead of its words.")
    ] = False,
    step: Annotated[int | None, typer.Option(metavar="N", min=1, help="The guidance of this step; else of all.")] = None,
    save: Annotated[str | None, typer.Option(metavar="FILE", help="Write the picture with its heat to this PNG file.")] = None,
    image_protocol: ProtocolOption = None,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object, and no picture.")] = False,
) -> int:
    """Show where the words of a prompt act in a picture; the job must have been made with --words.

    Example: sdtui words --word cat --with desert --save heat.png
    """
    settings = settings_or_error()
    if image_protocol is not None:
        settings = with_image_protocol(settings, image_protocol)
    _check_options(word, compare, guidance=guidance, step=step, save=save)
    found = find_inspected(target, image)
    asked = _Asked(save, settings.terminal.image_protocol, json)
    try:
        if guidance:
            return _show_guidance(found, step, asked)
        return _show_words(found, [text for text in (word, compare) if text is not None], asked)
    except InspectedError as error:
        raise CommandError(str(error), EXIT_BAD_INPUT) from error


def _check_options(word: str | None, compare: str | None, *, guidance: bool, step: int | None, save: str | None) -> None:
    """Raises `CommandError` for options that do not go together."""
    problem = ""
    if guidance and word is not None:
        problem = "--guidance and --word: give one of them."
    elif compare is not None and word is None:
        problem = "--with: give the first word with --word."
    elif step is not None and not guidance:
        problem = "--step: it is for --guidance; the maps of words are sums over all steps."
    elif save is not None and word is None and not guidance:
        problem = "--save: say what is to be seen, with --word or --guidance."
    elif save is not None and not save.lower().endswith(".png"):
        problem = f"--save: {save!r} must end in .png."
    if problem:
        raise CommandError(problem, EXIT_BAD_INPUT)


# --- words ----------------------------------------------------------------------------------------------------------


def _show_words(found: Inspected, texts: Sequence[str], asked: _Asked) -> int:
    from sdtui.words import shares, spread_of, word_map, words_of  # numpy and Pillow come with it

    facts = found.file.facts.words
    if facts is None:
        raise CommandError(f"Job {found.file.facts.job} has no word maps.", EXIT_BAD_INPUT)
    known = words_of(facts)
    if not known:
        raise CommandError(f"The prompt of job {found.file.facts.job} has no words.", EXIT_BAD_INPUT)
    chosen = [_find(text, known, option) for text, option in zip(texts, ("--word", "--with"), strict=False)]
    each = dict(zip(known, shares(found.file, found.position), strict=True))
    size = found.file.facts.width_px, found.file.facts.height_px
    rows, maps = [], []
    for word in chosen or known:
        values = word_map(found.file, word, found.position)
        maps.append(values)
        spread = spread_of(values)
        share = sum(share for one, share in each.items() if set(one.tokens) <= set(word.tokens))
        rows.append(_WordRow(word.text, word.tokens, share, _px(spread.centre, size), _px(spread.peak, size), spread.contrast))
    saved = _drawn(found, maps if chosen else [], [word.text for word in chosen], asked)
    if asked.json:
        result_json(msgspec.json.encode(_about(found, facts) | {"words": rows} | ({"saved": saved} if saved else {})))
    elif not (chosen and (saved or sys.stdout.isatty())):
        note(_headline(found, facts))
        cells = [[row.word, f"{row.share:.1%}", *_places(row)] for row in rows]
        for line in table([("word", "share", "centre", "peak", "peak/mean"), *cells], right=(1, 2, 3, 4)):
            result(line)
    return EXIT_DONE


def _find(text: str, known: Sequence[Word], option: str) -> Word:
    """The word, or words that follow each other, wherever they stand in the prompt. Raises `CommandError`."""
    from sdtui.words import Word

    wanted = text.lower().split()
    texts = [word.text.lower() for word in known]
    starts = [at for at in range(len(texts)) if wanted and texts[at : at + len(wanted)] == wanted]
    if not starts:
        names = list(dict.fromkeys(word.text for word in known))
        raise CommandError(f"{option}: {text!r} is not in the prompt; {nearest(text.lower(), names)}", EXIT_BAD_INPUT)
    tokens = sorted({token for at in starts for word in known[at : at + len(wanted)] for token in word.tokens})
    return Word(" ".join(word.text for word in known[starts[0] : starts[0] + len(wanted)]), tuple(tokens))


def _about(found: Inspected, facts: WordFacts | None) -> dict[str, Any]:
    whole = found.file.facts
    about: dict[str, Any] = {
        "job": whole.job,
        "model": whole.model,
        "prompt": whole.prompt,
        "image": found.number,
        "seed": found.seed,
        "picture": str(found.picture) if found.picture is not None else None,
        "width_px": whole.width_px,
        "height_px": whole.height_px,
    }
    if facts is not None:
        about |= {"steps": facts.steps, "resolutions": facts.resolutions, "layers": facts.layers}
    return about


def _headline(found: Inspected, facts: WordFacts) -> str:
    sizes = zip(facts.resolutions, facts.layers, strict=False)
    layers = " + ".join(f"{count_noun(layers, 'layer')} at {width}x{height}" for (height, width), layers in sizes)
    whole = found.file.facts
    made = count_noun(facts.steps, "step") if facts.steps >= whole.steps else f"the last {facts.steps} of {whole.steps} steps"
    which = f"picture {found.number} of {found.of}, " if found.of > 1 else ""
    return f"Job {whole.job}, {which}seed {found.seed}: {made}, {layers}"


def _px(place: tuple[float, float], size: tuple[int, int]) -> tuple[int, int]:
    return int(place[0] * size[0]), int(place[1] * size[1])


def _places(row: _WordRow | _StepRow) -> tuple[str, str, str]:
    (x, y), (peak_x, peak_y) = row.centre_px, row.peak_px
    return f"{x},{y}", f"{peak_x},{peak_y}", f"{row.contrast:.1f}x"


# --- guidance -------------------------------------------------------------------------------------------------------


def _show_guidance(found: Inspected, step: int | None, asked: _Asked) -> int:
    from sdtui.answers import guidance_maps
    from sdtui.words import spread_of

    maps = [every[found.position] for every in guidance_maps(tape_of(found.file.path))]
    if step is not None and step > len(maps):
        raise CommandError(f"--step: {step} is too much, {count_noun(len(maps), 'step')} are recorded.", EXIT_BAD_INPUT)
    size = found.file.facts.width_px, found.file.facts.height_px
    rows = []
    for number, values in enumerate(maps, start=1):
        spread = spread_of(values)
        mean = float(values.mean())
        rows.append(_StepRow(number, mean, _px(spread.centre, size), _px(spread.peak, size), spread.contrast))
    if step is not None:
        rows = [rows[step - 1]]
    seen = maps[step - 1] if step is not None else sum(maps[1:], start=maps[0]) / len(maps)
    text = f"guidance of step {step}" if step is not None else "guidance, mean of all steps"
    saved = _drawn(found, [seen], [text], asked)
    if asked.json:
        result_json(msgspec.json.encode(_about(found, None) | {"guidance": rows} | ({"saved": saved} if saved else {})))
    elif not (saved or (step is not None and sys.stdout.isatty())):
        cells = [[str(row.step), f"{row.mean:.4f}", *_places(row)] for row in rows]
        for line in table([("step", "mean", "centre", "peak", "peak/mean"), *cells], right=range(5)):
            result(line)
    return EXIT_DONE


# --- pictures -------------------------------------------------------------------------------------------------------


def _drawn(found: Inspected, maps: Sequence[np.ndarray[Any, Any]], names: Sequence[str], asked: _Asked) -> str:
    """Save the picture with its heat where that is wanted, draw it on a terminal; where it was saved. Raises `CommandError`."""
    draws = sys.stdout.isatty() and not asked.json
    if not maps or not (draws or asked.save):
        return ""
    from sdtui.words import heat, save_png

    picture = heat(_picture(found), maps)
    saved = ""
    if asked.save:
        path = Path(asked.save).expanduser()
        try:
            save_png(picture, path)
        except OSError as error:
            raise CommandError(f"--save: {path} cannot be written: {error.strerror or error}.", EXIT_BAD_INPUT) from error
        saved = str(path)
    if draws:
        hues = [f"{name} {hue}" for name, hue in zip(names, _HUES, strict=False)] if len(names) > 1 else names
        _draw(picture, f"{', '.join(hues)}  job {found.file.facts.job}  seed {found.seed}", asked.protocol)
    if saved and not asked.json:
        result(saved)
    return saved


def _picture(found: Inspected) -> Image:
    """The picture itself. Raises `CommandError`."""
    from sdtui.terminal.picture import MAX_PIXELS, read_picture

    if found.picture is None:
        raise CommandError(f"Nothing is known of where the pictures of job {found.file.facts.job} are.", EXIT_BAD_INPUT)
    try:
        return read_picture(found.picture, MAX_PIXELS).image()
    except FileNotFoundError as error:
        hint = "give the file instead of the job, where it is now."
        raise CommandError(f"The picture {found.picture} is gone; {hint}", EXIT_BAD_INPUT) from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or safe_text(str(error), limit=200)
        raise CommandError(f"The picture {found.picture} cannot be read: {reason}.", EXIT_BAD_INPUT) from error


def _draw(picture: Image, caption: str, protocol: str) -> None:
    """The picture on the terminal that stdout leads to, and a line below it. Raises `CommandError` where none can be drawn."""
    from sdtui.cli.inline import Inline
    from sdtui.cli.picture import asked_terminal
    from sdtui.terminal.picture import Frame

    with asked_terminal() as asked:
        inline = Inline(asked, protocol)
    if inline.cannot:
        raise CommandError(f"No picture can be drawn here: {inline.cannot}", EXIT_FAILED)
    if inline.complaint:
        note(inline.complaint)
    columns, rows = inline.room(picture.width, picture.height)
    width_px, height_px = inline.cell
    shown = picture.copy()
    shown.thumbnail((round(columns * width_px), round(rows * height_px)))
    inline.draw(Frame.of(shown), columns, rows)
    inline.say(caption)
