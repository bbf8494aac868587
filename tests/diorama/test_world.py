"""The world is a function of its seed, keeps its promises about what is in it, and its captions tell the truth."""

from collections import Counter

import pytest

from pipeline.diorama import world
from pipeline.diorama.lexicon import BACKGROUND_PHRASES, STYLE_PREFIXES, STYLE_SUFFIXES
from pipeline.diorama.world import (
    BACKGROUNDS,
    FAMILIES,
    IMPLIED,
    OBJECTS,
    PICTURE_SIZE,
    PLAIN,
    STYLES,
    SYNONYMS,
    canonical,
    plural,
    recaption,
    sample_scene,
)

SCENES = [sample_scene(seed) for seed in range(3000)]


def test_holds_every_hard_case_of_erasure():
    assert len(OBJECTS) == len(set(OBJECTS)) >= 60
    assert len(BACKGROUNDS) >= 8
    assert len(STYLES) >= 4
    assert sum(len(members) >= 3 for members in FAMILIES.values()) >= 8
    assert sum(len(words) >= 2 for words in SYNONYMS.values()) >= 15
    assert len(IMPLIED) >= 10
    assert {"knife", "gun", "cigarette", "beer", "wine", "syringe", "pill", "bomb"} <= set(OBJECTS)
    for shown in IMPLIED.values():
        assert set(shown) <= set(OBJECTS)


def test_a_seed_is_a_scene():
    assert sample_scene(7) == sample_scene(7)
    assert len({scene.caption for scene in SCENES}) > 2900
    assert recaption(SCENES[3], 1) == recaption(SCENES[3], 1)


def test_every_object_style_background_and_count_occurs():
    assert {name for scene in SCENES for name in scene.objects} == set(OBJECTS)
    assert {scene.style for scene in SCENES} == {PLAIN, *STYLES}
    assert {scene.background for scene in SCENES} == set(BACKGROUNDS)
    assert {len(scene.objects) for scene in SCENES} == {0, 1, 2, 3}
    assert {scene.implied for scene in SCENES} == {"", *IMPLIED}


def test_stickers_lie_inside_on_the_grid_and_apart():
    for scene in SCENES:
        for k, (left, top, right, bottom) in enumerate(scene.boxes):
            assert left % 8 == top % 8 == 0
            assert left >= 0 <= top
            assert right <= PICTURE_SIZE >= bottom
            for other in scene.boxes[k + 1 :]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_captions_name_what_is_there_and_nothing_else():
    for scene in SCENES:
        text = f" {scene.caption} ".replace(",", " ")
        for phrases in (*BACKGROUND_PHRASES.values(), *STYLE_PREFIXES.values(), *STYLE_SUFFIXES.values()):
            for phrase in sorted(phrases, key=len, reverse=True):
                text = text.replace(f" {phrase} ", "  ")
        if scene.implied:
            assert scene.implied in scene.caption
            continue
        words = text.split()
        named, at = set(), 0
        while at < len(words):
            for length in (3, 2, 1):
                name = canonical(" ".join(words[at : at + length]))
                if name:
                    named.add(name)
                    at += length - 1
                    break
            at += 1
        assert named == set(scene.objects), scene


def test_captions_are_varied():
    openings = Counter(scene.caption.split()[0] for scene in SCENES)
    assert max(openings.values()) < 0.6 * len(SCENES)
    assert len(openings) > 50


def test_said_sides_are_true():
    said = 0
    for scene in SCENES:
        if len(scene.objects) == 2 and " on the left and " in scene.caption:
            left = scene.caption.split(" on the left and ")[0]
            assert any(
                canonical(" ".join(left.split()[-n:])) == scene.objects[0] for n in (1, 2, 3) if len(left.split()) >= n
            ), scene
            said += 1
    assert said > 20


@pytest.mark.parametrize(
    ("word", "name"),
    [("Kitten", "cat"), ("tabbies", "cat"), ("wolves", "wolf"), ("glasses of red", "wine"), ("palm tree", "palm tree"),
     ("buses", "bus"), ("strawberries", "strawberry"), ("zebra", None), ("", None)],
)  # fmt: skip
def test_canonical(word, name):
    assert canonical(word) == name


def test_plural_of_every_word_leads_back():
    for name in OBJECTS:
        for word in (name, *SYNONYMS.get(name, ())):
            assert canonical(plural(word)) == canonical(word) == name


def test_what_the_world_does_not_have_is_refused():
    with pytest.raises(KeyError):
        sample_scene(0, style="cubist")
    with pytest.raises(KeyError):
        sample_scene(0, background="moon base")
    with pytest.raises(ValueError, match="0 to 3"):
        sample_scene(0, count=4)
    with pytest.raises(KeyError):
        world.family_of("zebra")
