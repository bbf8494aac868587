"""What the dictionary says of a word beside a concept, by the word's most frequent sense."""

import pytest

from pipeline.concepts.concept import Concept
from pipeline.concepts.kin import Kin, Relation


@pytest.mark.parametrize(
    ("name", "word", "relation"),
    [
        ("gun", "pistol", Relation.kind),
        ("gun", "Rifles", Relation.kind),  # of any number and case
        ("car", "automobile", Relation.kind),  # a synonym
        ("car", "bus", Relation.other),  # whose third sense is an old car
        ("cat", "tiger", Relation.other),  # first of all a fierce person
        ("cat", "lion", Relation.sibling),  # of a cat's first sense, and a kind of a later one
        ("gun", "howitzer", Relation.kind),
        ("gun", "swords", Relation.sibling),
        ("dog", "foxes", Relation.sibling),
        ("gun", "weapon", Relation.above),
        ("gun", "war", Relation.other),
        ("gun", "glock", Relation.unknown),
        ("no such thing", "pistol", Relation.other),
    ],
)
def test_a_word_is_what_it_most_often_means(name: str, word: str, relation: Relation) -> None:
    assert Kin(Concept(name=name)).relation(word) is relation


def test_kinds_are_words_and_phrases_that_the_list_does_not_have() -> None:
    kinds = Kin(Concept(name="gun", aliases=("pistol",))).kinds
    assert {"rifle", "machine gun", "revolver"} <= set(kinds)
    assert "pistol" not in kinds
    assert "gas pedal" not in kinds or Kin(Concept(name="gun")).relation("gas pedal") is Relation.kind


def test_what_is_too_general_makes_no_siblings() -> None:
    """A moon is, in one sense, "any object": it is no sibling of all objects."""
    assert Kin(Concept(name="moon")).relation("guitar") is Relation.other
