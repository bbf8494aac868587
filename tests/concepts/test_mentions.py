"""Whole words, any case, simple plurals."""

import pytest

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import concept_pattern, is_plural
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
    assert concept_pattern(CAT).findall("a tabby cat and cats") == ["tabby cat", "cats"]


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


def test_is_plural():
    assert is_plural("Cats", CAT)
    assert is_plural("tabby-cats", CAT)
    assert not is_plural("cat", CAT)
    assert not is_plural("dogs", CAT)
    assert not is_plural("glasses", Concept(name="glass", aliases=("glasses",)))
