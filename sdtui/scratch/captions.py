"""What is said of a scene: one caption of many, with synonyms and varied word order."""

import random

from sdtui.scratch.scenes import Scene, Thing
from sdtui.scratch.words import COLOURS, OBJECTS, OPENINGS, POSITIONS, SCENES, article

# People type the plain word most of the time; so do our captions.
PLAIN_WORD_SHARE = 0.6
POSITION_SHARE = 0.6


def caption(scene: Scene, rng: random.Random) -> str:
    """One caption of the scene in lower case: always every object, its colour and the place; left or right often."""
    subject = _two_things(scene, rng) if len(scene.things) == 2 else _one_thing(scene, rng)
    place = _word(SCENES[scene.place], rng)
    if rng.random() < 0.12:
        return f"{place}, {subject}"
    return f"{rng.choice(OPENINGS)}{subject}{rng.choice((' ', ' ', ' ', ', '))}{place}"


def _word(words: tuple[str, ...], rng: random.Random) -> str:
    """The first word mostly, else any."""
    return words[0] if rng.random() < PLAIN_WORD_SHARE else rng.choice(words)


def _name(thing: Thing, rng: random.Random) -> str:
    """ "a red cat": colour before object."""
    return article(f"{_word(COLOURS[thing.colour], rng)} {_word(OBJECTS[thing.kind], rng)}")


def _one_thing(scene: Scene, rng: random.Random) -> str:
    thing = scene.things[0]
    said = 0.25 if thing.position == "centre" else POSITION_SHARE
    where = f" {rng.choice(POSITIONS[thing.position])}" if rng.random() < said else ""
    return _name(thing, rng) + where


def _two_things(scene: Scene, rng: random.Random) -> str:
    """The left thing is named first unless the caption says which side each is on."""
    left, right = (_name(thing, rng) for thing in scene.things)
    return rng.choice(
        (
            f"{left} and {right}",
            f"{left} and {right}",
            f"{left} next to {right}",
            f"{left} to the left of {right}",
            f"{right} to the right of {left}",
            f"{left} on the left and {right} on the right",
        )
    )
