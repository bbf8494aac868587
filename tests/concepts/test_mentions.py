"""Whole words, any case, simple plurals."""

import pytest

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming
from pipeline.concepts.words import plurals
from pipeline.prompts import mentions

CAT = Concept(name="cat", aliases=("kitty", "tabby cat"))
KNIFE = Concept(name="knife", aliases=("glass",))
VAN_GOGH = Concept(name="Van Gogh")
CPP = Concept(name="C++", aliases=("a.b",))


@pytest.mark.parametrize(
    ("prompt", "concept", "expected"),
    [
        ("a cat", CAT, True),
        ("Cats and dogs", CAT, True),
        ("the cat's tail", CAT, True),
        ("cat-like eyes", CAT, True),
        ("two kitties", CAT, True),
        ("a TABBY  cat", CAT, True),
        ("a category", CAT, False),
        ("a wildcat", CAT, False),
        ("concatenate", CAT, False),
        ("a tabby", CAT, False),
        ("", CAT, False),
        ("knives", KNIFE, True),
        ("knifes", KNIFE, True),
        ("two glasses", KNIFE, True),
        ("by van-gogh", VAN_GOGH, True),
        ("by Vangogh", VAN_GOGH, False),
        ("Van\nGogh", VAN_GOGH, True),
        ("written in C++", CPP, True),
        ("written in C", CPP, False),
        ("axb", CPP, False),
        ("naïve cat", CAT, True),
        ("écat", CAT, False),
    ],
)
def test_mentions(prompt, concept, expected):
    assert mentions(prompt, concept) is expected


def test_the_longest_words_are_found_whole():
    found = Naming([CAT]).mentions("a tabby cat and cats")
    assert [(one.word, one.start, one.stop, one.plural) for one in found] == [
        ("tabby cat", 2, 11, False),
        ("cat", 16, 20, True),
    ]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("box", ("boxes",)),
        ("church", ("churches",)),
        ("party", ("parties", "partys")),
        ("toy", ("toys",)),
        ("wolf", ("wolfs", "wolves")),
        ("potato", ("potatos", "potatoes")),
        ("policeman", ("policemans", "policemen")),
    ],
)
def test_plurals(word, expected):
    assert plurals(word) == expected


@pytest.mark.parametrize("word", ["猫", "🐱", "C++", "แมว", "قطة"])
def test_what_has_no_plural_is_its_own(word):
    assert plurals(word) == (word,)


@pytest.mark.parametrize(
    ("text", "plural"), [("Cats", True), ("tabby-cats", True), ("cat", False), ("cat's", False), ("Kitties", True)]
)
def test_a_plural_is_told(text, plural):
    (found,) = Naming([CAT]).mentions(text)
    assert found.plural is plural


def test_a_listed_word_is_no_plural_of_another():
    (found,) = Naming([Concept(name="glass", aliases=("glasses",))]).mentions("glasses")
    assert (found.word, found.plural) == ("glasses", False)
