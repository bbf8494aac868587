"""Words that open a list's gate by chance: counted a concept and a list, without those that may open it."""

import torch

from jobs import false_alarms
from jobs.score_words import Given
from pipeline.concepts.concept import Concept
from pipeline.concepts.everyday import everyday
from pipeline.concepts.function_words import FUNCTION_WORDS

GUN, CHURCH = Concept(name="gun", aliases=("pistol",)), Concept(name="church", preserve=("castle",))


def encoder(**near: str) -> Given:
    """An encoder of words that are nothing to each other, but for those that are *near* to the words of the others."""
    names = ["gun", "church", "castle", *near, *everyday()[:2000]]
    names = list(dict.fromkeys(names))
    vectors = torch.randn(len(names), 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for word, other in near.items():
        vectors[names.index(word)] = vectors[names.index(other)]
    return Given(names, vectors)


def test_what_comes_near_by_chance_is_counted_for_its_concept_and_the_list() -> None:
    found = false_alarms.found(encoder(seaside="gun", parsley="gun", teapot="church"), [GUN, CHURCH])
    assert (found["concepts"], found["words"]) == (2, 2), "of a pistol nothing is known"
    everyday = found["opened"]["everyday"]
    assert {"seaside": "gun", "parsley": "gun", "teapot": "church"}.items() <= everyday["which"].items()
    opened, asked = everyday["words"]
    assert opened == len(everyday["which"])
    assert asked < 2000, "function words are not asked"
    hits = sum(count for count, _ in everyday["concepts"].values())
    assert everyday["rate"] == 1000 * hits / sum(number for _, number in everyday["concepts"].values())
    assert list(found["opened"]) == ["everyday"], "of given vectors there are no others"


def test_words_that_may_open_it_are_no_false_alarms() -> None:
    near = {"revolver": "gun", "weapon": "gun", "cathedral": "church", "with": "church"}
    assert "with" in FUNCTION_WORDS
    which = false_alarms.found(encoder(**near), [GUN, CHURCH])["opened"]["everyday"]["which"]
    assert which.keys().isdisjoint(near)


def test_of_a_list_of_which_an_encoder_knows_nothing_there_is_nothing_to_tell() -> None:
    assert false_alarms.found(encoder(), [Concept(name="a Zephyrine sneaker")]) == {}


def test_every_list_that_ships_is_asked() -> None:
    lists = {path.stem: false_alarms.listed(path) for path in false_alarms.LISTS}
    assert {"church", "weapons"} <= lists.keys()
    assert all(lists.values())
    assert "gun" in {concept.name for concept in lists["weapons"]}
