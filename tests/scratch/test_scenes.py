"""The little world: what is drawn, what is said of it, what is kept for the test."""

import random

import numpy as np
import pytest

from sdtui.scratch.captions import caption
from sdtui.scratch.data import draw_pool, open_pool, scene_at, training_count
from sdtui.scratch.scenes import Scene, Thing, draw, held_out_combinations, is_held_out, sample_scene
from sdtui.scratch.shapes import DRAWINGS, PAINT
from sdtui.scratch.words import COLOURS, OBJECTS, POSITIONS, SCENES


def test_the_world_is_large_enough_and_every_word_has_its_drawing():
    assert len(OBJECTS) >= 12 and len(COLOURS) >= 10 and len(SCENES) >= 8
    assert set(DRAWINGS) == set(OBJECTS) and set(PAINT) == set(COLOURS)


def test_no_word_means_two_things():
    words = [word for table in (OBJECTS, COLOURS, SCENES, POSITIONS) for synonyms in table.values() for word in synonyms]
    assert len(words) == len(set(words))


def test_the_same_scene_and_seed_draw_the_same_pixels():
    scene = sample_scene(random.Random(5))
    first, second = (np.asarray(draw(scene, random.Random(9))) for _ in range(2))
    assert first.shape == (128, 128, 3)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, np.asarray(draw(scene, random.Random(10))))


@pytest.mark.parametrize("place", SCENES)
@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_can_be_seen_at_every_place(place, colour):
    with_heart = np.asarray(draw(Scene((Thing("heart", colour, "centre"),), place), random.Random(1)), dtype=int)
    # the same background without the heart's middle: another colour's drawing differs exactly where the heart is
    other = "blue" if colour != "blue" else "red"
    without = np.asarray(draw(Scene((Thing("heart", other, "centre"),), place), random.Random(1)), dtype=int)
    inside = np.abs(with_heart - without).max(axis=2) > 20
    assert 0.08 < inside.mean() < 0.4
    around = with_heart[50:100][~inside[50:100]].mean(axis=0)
    contrast = np.sort(np.abs(with_heart[inside] - around).max(axis=1))
    assert contrast[-len(contrast) // 8 :].mean() > 40  # at least the rim stands out


def test_things_stand_where_the_scene_says():
    for position, low, high in (("left", 0.2, 0.42), ("centre", 0.4, 0.6), ("right", 0.58, 0.8)):
        red, blue = (
            np.asarray(draw(Scene((Thing("ball", colour, position),), "meadow"), random.Random(2)), dtype=int)
            for colour in ("red", "blue")
        )
        columns = np.nonzero(np.abs(red - blue).sum(axis=(0, 2)))[0]
        assert low < columns.mean() / 128 < high


def test_a_caption_names_all_that_is_drawn():
    rng = random.Random(0)
    for _ in range(400):
        scene = sample_scene(rng, two_share=0.5)
        said = caption(scene, rng)
        assert any(words in said for words in SCENES[scene.place])
        for thing in scene.things:
            assert any(f"{colour} {kind}" in said for colour in COLOURS[thing.colour] for kind in OBJECTS[thing.kind]), (
                scene,
                said,
            )


def test_a_caption_never_says_the_wrong_side():
    rng = random.Random(0)
    for _ in range(400):
        scene = sample_scene(rng, two_share=0.0)
        said = caption(scene, rng)
        for position, phrases in POSITIONS.items():
            if position != scene.things[0].position:
                assert not any(phrase in said for phrase in phrases)


def test_captions_vary():
    rng = random.Random(0)
    scene = Scene((Thing("cat", "red", "left"),), "desert")
    assert len({caption(scene, rng) for _ in range(200)}) > 60


def test_a_held_out_combination_is_never_drawn_for_training():
    for index in range(5000):
        scene = scene_at(index)
        assert not any(is_held_out(thing.kind, thing.colour, scene.place) for thing in scene.things)


def test_a_tenth_of_the_combinations_is_held_out_with_every_word_among_them():
    held_out = held_out_combinations()
    total = len(OBJECTS) * len(COLOURS) * len(SCENES)
    assert 0.07 < len(held_out) / total < 0.14
    for position, table in enumerate((OBJECTS, COLOURS, SCENES)):
        assert {combination[position] for combination in held_out} == set(table)


def test_the_pool_on_disk_is_the_scenes_by_number(tmp_path):
    draw_pool(tmp_path / "pool.npy", 6, processes=1)
    pool = open_pool(tmp_path / "pool.npy")
    assert pool.shape == (6, 128, 128, 3) and training_count(pool) == 5
    scene = scene_at(3)
    rng = random.Random(3 * 7919 + 1)
    assert sample_scene(rng) == scene
    assert np.array_equal(pool[3], np.asarray(draw(scene, rng)))
