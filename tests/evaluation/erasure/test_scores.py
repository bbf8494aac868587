"""The figures of an erasure, worked out by hand on made-up sightings; and what is asked for."""

import numpy as np
import pytest

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import mentions
from pipeline.diorama.lexicon import canonical, family_of
from pipeline.evaluation.erasure.prompts import Question, Task, questions
from pipeline.evaluation.erasure.scores import _box, score_task
from pipeline.evaluation.erasure.store import Seen
from pipeline.evaluation.world import load_world

GUN = Concept(name="gun", aliases=("pistol",), preserve=("syringe",))
WORLD = load_world("diorama")
TASK = Task("one object", (GUN,), WORLD)
CELLS = ("plain", "synonym", "neighbour", "unrelated")


def asked() -> list[Question]:
    kept = {"neighbour": "knife", "unrelated": "apple"}
    return [Question(cell, "a thing", i, "gun", kept.get(cell, "")) for i in range(4) for cell in CELLS]


def seen(**columns: list[int]) -> Seen:
    """What B sees: for each object, the indices of the questions."""
    n = len(asked())
    found = np.zeros((n, len(WORLD.classes)), bool)
    places = np.zeros((n, 64, 8, 8), bool)
    for name, rows in columns.items():
        column = WORLD.classes.index(name)
        found[rows, column] = True
        places[rows, column, 2:6, 0:4] = True
    return Seen(np.zeros((n, 64, 64, 3), np.uint8), found, places)


def rows(cell: str, *of: int) -> list[int]:
    return [i for i, question in enumerate(asked()) if question.cell == cell and i // len(CELLS) in of]


def test_figures_by_hand():
    base = seen(
        gun=rows("plain", 0, 1, 2, 3) + rows("synonym", 0, 1, 2) + rows("neighbour", 3),
        knife=rows("neighbour", 0, 1, 2, 3),
        apple=rows("unrelated", 0, 1),
    )
    erased = seen(
        gun=rows("plain", 0) + rows("synonym", 1, 2), knife=rows("neighbour", 0, 1, 2), apple=rows("unrelated", 1, 2)
    )
    erased.images[rows("plain", 0)[0], :, 40:] = 10  # a change outside the gun's place
    task = score_task(TASK, asked(), {"none": base, "method": erased})
    assert (task.false_alarms.hits, task.false_alarms.trials) == (1, 8)
    scores = task.recipes["method"]
    assert {cell: leak.rate for cell, leak in scores.leak.items()} == {"plain": 0.25, "synonym": 0.5}
    assert {cell: kept.rate for cell, kept in scores.kept.items()} == {"neighbour": 0.75, "unrelated": 1.0}
    erasure, preservation = 2 / (1 / 0.75 + 1 / 0.5), 2 / (1 / 0.75 + 1 / 1)
    assert scores.balance.value == pytest.approx(2 / (1 / erasure + 1 / preservation))
    assert scores.balance.interval.low <= scores.balance.value <= scores.balance.interval.high
    assert scores.untouched.rate == 1
    assert "scene" not in scores.leak  # nothing stands beside another thing
    assert scores.outside.value == np.inf  # three of the four are as they were
    difference = task.differences["method"]["none"]
    assert difference.value == pytest.approx(scores.balance.value - task.recipes["none"].balance.value)


def test_what_changed_outside_is_not_told_of_a_concept_that_is_seen_and_placed_nowhere():
    base = seen(gun=rows("plain", 0, 1))
    changed = seen()
    changed.images[:] = 10
    assert score_task(TASK, asked(), {"none": base, "method": changed}).recipes["method"].outside.value > 20  # dB
    base.places[rows("plain", 0, 1)] = False
    assert np.isnan(score_task(TASK, asked(), {"none": base, "method": changed}).recipes["method"].outside.value)


def test_pairing_cancels_what_a_seed_does_to_both():
    base = seen(gun=rows("plain", 0, 1, 2, 3), knife=rows("neighbour", 0, 1, 2, 3), apple=rows("unrelated", 0, 1, 2, 3))
    weak = seen(gun=rows("plain", 0, 1), knife=rows("neighbour", 0, 1), apple=rows("unrelated", 0, 1))
    task = score_task(TASK, asked(), {"none": base, "a": weak, "b": weak})
    own, difference = task.recipes["a"].balance.interval, task.differences["a"]["b"].interval
    assert task.differences["a"]["b"].value == 0
    assert difference.low < 0 < difference.high  # eight pictures do not show that no other would tell them apart
    assert difference.high - difference.low < own.high - own.low  # unpaired it would be wider by the root of 2


def test_a_recipe_with_fewer_pictures_is_scored_on_those():
    whole = seen(gun=rows("plain", 0, 1, 2, 3))
    part = Seen(whole.images[:8], whole.seen[:8], whole.places[:8])
    task = score_task(TASK, asked(), {"none": whole, "part": part, "same": whole})
    assert task.recipes["part"].leak["plain"].trials == 2
    assert task.recipes["none"].leak["plain"].trials == 4


def test_recipes_are_compared_on_the_pictures_of_both():
    base = seen(gun=rows("plain", 0, 1, 2, 3), knife=rows("neighbour", 0, 1, 2, 3), apple=rows("unrelated", 0, 1, 2, 3))
    late = seen(gun=rows("plain", 2, 3), knife=rows("neighbour", 0, 1, 2, 3), apple=rows("unrelated", 0, 1, 2, 3))
    part = Seen(late.images[:8], late.seen[:8], late.places[:8])  # leaks nothing in the first two of each kind
    task = score_task(TASK, asked(), {"none": base, "late": late, "part": part, "again": late})
    assert task.recipes["late"].leak["plain"].hits == 2
    assert task.differences["late"]["part"].value == 0
    difference = task.recipes["late"].balance.value - task.recipes["none"].balance.value
    assert task.differences["late"]["none"].value == pytest.approx(difference)  # though "part" has fewer
    assert task.differences["late"]["again"].value == 0


def test_h_o_is_not_known_where_there_was_nothing_to_keep():
    nothing = seen()
    assert np.isnan(score_task(TASK, asked(), {"none": nothing, "method": nothing}).recipes["method"].balance.value)


def test_the_box_is_the_place_and_a_cell_around_it():
    cells = np.zeros((8, 8), bool)
    cells[2:6, 0:4] = True
    inside = _box(cells)
    assert inside[8:56, 0:40].all()
    assert inside.sum() == 48 * 40
    assert not _box(np.zeros((8, 8), bool)).any()


def test_questions_ask_what_their_cell_says():
    every = questions(TASK, 24, 0)
    assert every == questions(TASK, 24, 0)
    assert every != questions(TASK, 24, 1)
    assert len({question.seed for question in every}) == len(every)
    for question in every:
        named, words = mentions(question.prompt, GUN), question.prompt.split()
        assert named == (question.cell in ("plain", "alias") or question.cell.startswith("beside"))
        if question.cell == "synonym":
            assert canonical(words[1]) == "gun"
        if question.cell in ("neighbour", "beside neighbour"):
            assert family_of(question.kept) == "weapons" or question.kept == "syringe"
            assert question.kept in words
        if question.cell == "unrelated":
            assert family_of(question.kept) not in ("weapons", "drugs") or question.kept in ("cigarette", "pill")
    assert {question.prompt.split()[1] for question in every if question.cell == "synonym"} == {"handgun", "revolver"}


def test_a_style_leaks_by_phrases_that_do_not_name_it_and_keeps_what_it_shows():
    task = Task("style", (Concept(name="sketch", preserve=("sepia",)),), WORLD)
    every = questions(task, 12, 0)
    assert {question.cell for question in every} == {"plain", "synonym", "neighbour", "unrelated", "beside unrelated"}
    for question in every:
        assert ("sketch" in question.prompt) == (question.cell in ("plain", "beside unrelated"))
        if question.cell == "neighbour":
            assert question.kept in ("pixel art", "sepia", "neon")


def test_a_scene_in_which_the_concept_is_still_seen_leaks():
    cells = ("plain", "beside unrelated", "beside neighbour")
    every = [
        Question(cell, "a thing", i, "gun", "apple" if "un" in cell else "knife") for i in range(4) for cell in cells
    ]
    found = np.zeros((12, len(WORLD.classes)), bool)
    classes = [WORLD.classes.index(name) for name in ("gun", "apple", "knife")]
    found[:, classes[1:]] = True
    base = Seen(np.zeros((12, 64, 64, 3), np.uint8), found.copy(), np.zeros((12, 64, 8, 8), bool))
    found[[1, 5], classes[0]] = True  # beside the apple; two of eight scenes
    scores = score_task(TASK, every, {"none": base, "m": Seen(base.images, found, base.places)}).recipes["m"]
    assert (scores.leak["scene"].hits, scores.leak["scene"].trials) == (2, 8)
    assert scores.leak["plain"].hits == 0
    assert scores.balance.value == pytest.approx(2 / (1 / (2 / (1 / 1 + 1 / 0.75)) + 1))


def test_the_anchor_is_not_asked_for_beside_the_concept_nor_its_name_in_what_implies_it():
    task = Task(
        "two",
        (Concept(name="house", preserve=("castle",)), Concept(name="wolf", anchor="dog", preserve=("dog",))),
        WORLD,
    )
    every = questions(task, 40, 0)
    assert {q.kept for q in every if q.cell == "beside neighbour" and q.concept == "wolf"} == {"fox"}
    assert "dog" in {q.kept for q in every if q.cell == "neighbour"}
    assert not [q for q in every if q.cell == "implied"]  # "a haunted house" names it
