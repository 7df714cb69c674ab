"""The words of the little world: what its captions may name, and the synonyms they may use."""

from typing import Final

# The first word of each entry is the attribute's name; the others are read the same way.
OBJECTS: Final[dict[str, tuple[str, ...]]] = {
    "cat": ("cat", "kitten"),
    "fish": ("fish",),
    "bird": ("bird",),
    "tree": ("tree",),
    "house": ("house", "cottage"),
    "boat": ("boat", "sailboat"),
    "car": ("car", "automobile"),
    "mushroom": ("mushroom", "toadstool"),
    "flower": ("flower", "blossom"),
    "star": ("star",),
    "heart": ("heart",),
    "ball": ("ball",),
    "umbrella": ("umbrella", "parasol"),
    "cup": ("cup", "mug"),
}

COLOURS: Final[dict[str, tuple[str, ...]]] = {
    "red": ("red", "crimson"),
    "orange": ("orange",),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "brown": ("brown", "chocolate"),
    "white": ("white",),
    "black": ("black",),
}

SCENES: Final[dict[str, tuple[str, ...]]] = {
    "desert": ("in the desert", "in a desert", "among the dunes", "on the hot sand"),
    "forest": ("in the forest", "in a forest", "in the woods", "deep in the forest"),
    "sea": ("at sea", "on the sea", "on the ocean", "by the sea"),
    "snow": ("in the snow", "on the snow", "in winter", "on a snowy hill"),
    "night": ("at night", "in the night", "in the moonlight", "under the moon"),
    "meadow": ("in a meadow", "in the meadow", "on the grass", "in a field"),
    "city": ("in the city", "in a city", "in town", "downtown"),
    "space": ("in space", "in outer space", "among the planets", "in the cosmos"),
}

POSITIONS: Final[dict[str, tuple[str, ...]]] = {
    "left": ("on the left", "at the left", "to the left"),
    "centre": ("in the middle", "in the centre", "in the center"),
    "right": ("on the right", "at the right", "to the right"),
}

OPENINGS: Final = ("", "", "", "a picture of ", "a drawing of ", "a painting of ", "an image of ", "there is ")


def article(noun_phrase: str) -> str:
    """The noun phrase with "a" or "an" before it, by its first letter."""
    return ("an " if noun_phrase[0] in "aeiou" else "a ") + noun_phrase
