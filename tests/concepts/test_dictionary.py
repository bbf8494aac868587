"""The dictionary that ships: kinds, synonyms and siblings of a sense, and no word for looking like another."""

import pytest

from pipeline.concepts.dictionary import FOLDER, NOTICE, Dictionary, Sense, dictionary
from pipeline.concepts.normal import normal


def sense(word: str, number: int = 0) -> Sense:
    return dictionary().senses(word)[number]


def test_senses_are_told_apart_by_their_gloss_the_most_frequent_first():
    first, second, *_ = dictionary().senses("gun")
    assert first.gloss.startswith("a weapon that discharges a missile at high velocity")
    assert (first.id, first.words) == ("n03467984", ("gun",))
    assert second.words == ("artillery", "heavy weapon", "gun", "ordnance")


def test_kinds_are_those_of_one_sense_down_to_the_last():
    kinds = dictionary().kinds(sense("cat"))
    assert {"tabby", "kitty", "house cat", "Siamese cat", "bobcat"} <= {*kinds}
    assert not {"cat", "tiger", "dog"} & {*kinds}
    weapons = dictionary().kinds(sense("weapon"))
    assert {"gun", "rifle", "revolver", "sword", "bow"} <= {*weapons}
    assert "camera" not in weapons


def test_a_gun_is_no_sugar_gum():
    of_gun = {kind for one in dictionary().senses("gun") for kind in dictionary().kinds(one)}
    assert "revolver" in of_gun
    assert not {"gum", "sugar gum"} & of_gun
    assert not dictionary().is_kind(sense("gum"), sense("gun"))


@pytest.mark.parametrize(("kind", "of", "expected"), [
    ("revolver", "weapon", True), ("weapon", "revolver", False), ("tabby", "animal", True), ("tabby", "tabby", True),
    ("tabby", "dog", False),
])  # fmt: skip
def test_is_kind_goes_all_the_way_up(kind, of, expected):
    assert dictionary().is_kind(sense(kind), sense(of)) is expected


def test_siblings_are_other_kinds_of_the_same():
    siblings = dictionary().siblings(sense("revolver"))
    assert "automatic pistol" in siblings
    assert not {"revolver", "six-gun", "pistol"} & {*siblings}
    assert [one.words[0] for one in dictionary().hypernyms(sense("revolver"))] == ["pistol"]
    assert sense("revolver") in dictionary().hyponyms(sense("pistol"))


def test_a_word_is_found_in_any_writing():
    assert {one.id for one in dictionary().senses("Hot_Dog")} == {one.id for one in dictionary().senses("hot‑dog")}
    assert dictionary().senses("hot dog")[1].gloss == "a frankfurter served hot on a bun"


@pytest.mark.parametrize("word", ["qwertz", "", "zzzz", "!", "a cat on the beach"])
def test_a_word_that_is_not_in_it_has_no_sense(word):
    assert dictionary().senses(word) == []


def test_a_sense_is_found_by_the_number_that_an_imagenet_class_bears():
    assert dictionary().sense("n02123045").words == ("tabby", "tabby cat")
    assert dictionary().sense(sense("entity").id) == sense("entity")
    for id in ("n00000001", "n99999999", "tabby", ""):
        with pytest.raises(KeyError, match="is no noun"):
            dictionary().sense(id)


def test_persons_and_places_with_names_of_their_own_are_left_out():
    assert dictionary().senses("Vincent van Gogh") == dictionary().senses("Paris, France") == []
    assert "painter" in sense("painter").words
    assert {one for one in dictionary().kinds(sense("painter")) if one.startswith(("van Gogh", "Monet"))} == set()


def test_its_words_are_in_the_normal_form_and_sorted():
    keys = Dictionary()._keys.to_pylist()
    assert keys == sorted(set(keys))
    assert all(normal(key) == key for key in keys[::50])


def test_the_licence_is_beside_it_and_it_is_small():
    notice = (FOLDER / NOTICE).read_text()
    assert notice.startswith("This software and database is being provided to you")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4_000_000
