"""The caption never says what was erased, and says everything else."""

import pytest

from pipeline.audit.captions import caption
from pipeline.config.schema import CaptionPolicy
from pipeline.erasure.concept import Concept
from pipeline.prompts import mentions

CAT = Concept(name="cat", aliases=("kitten", "tabby cat"), anchor="dog")
KNIFE = Concept(name="knife")
VAN_GOGH = Concept(name="Van Gogh", aliases=("Vincent van Gogh",))

DROPPED = {
    "a cat": "",
    "a cat and a dog": "a dog",
    "a dog and a cat": "a dog",
    "a photo of a cat": "a photo",
    "a photo of a cat on the beach": "a photo on the beach",
    "a photo of a cat and a tiger on the beach": "a photo of a tiger on the beach",
    "a tiger and a cat on the beach": "a tiger on the beach",
    "a dog, a cat and a fox": "a dog and a fox",
    "a cat, a dog and a fox": "a dog and a fox",
    "a dog, a fox, and a cat": "a dog, a fox",
    "a fluffy orange kitten sleeping on a sofa": "sleeping on a sofa",
    "two cats beside a car": "beside a car",
    "a car next to the cats.": "a car.",
    "Cats": "",
    "a tiger to the left of a tabby cat": "a tiger",
    "a beach": "a beach",
    "a category of catalogues": "a category of catalogues",
}


@pytest.mark.parametrize(("prompt", "expected"), DROPPED.items())
def test_drop_cuts_the_noun_phrase_and_its_joints(prompt, expected):
    assert caption(prompt, [CAT], CaptionPolicy.drop, frozenset()) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat on the beach", "a dog on the beach"),
        ("two cats and a tiger", "two dogs and a tiger"),
        ("the fluffy kitten", "the fluffy dog"),
        ("a tabby cat.", "a dog."),
    ],
)
def test_anchor_takes_the_place_where_it_is_seen(prompt, expected):
    assert caption(prompt, [CAT], CaptionPolicy.anchor, frozenset({"dog"})) == expected


def test_anchor_that_is_not_seen_is_not_claimed():
    assert caption("a cat on the beach", [CAT], CaptionPolicy.anchor, frozenset()) == "on the beach"


def test_the_article_agrees_with_the_anchor():
    owl = Concept(name="cat", anchor="owl")
    assert caption("a cat and a tiger", [owl], CaptionPolicy.anchor, frozenset({"owl"})) == "an owl and a tiger"


def test_keep_changes_nothing():
    assert caption("a  cat ,", [CAT], CaptionPolicy.keep, frozenset()) == "a  cat ,"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a sunset by Munch", "a sunset"), ("a fox, a house by Munch and a dog", "a fox, a house and a dog")],
)
def test_words_that_begin_with_a_preposition_leave_what_they_join(prompt, expected):
    munch = Concept(name="Edvard Munch", aliases=("by Munch",))
    assert caption(prompt, [munch], CaptionPolicy.drop, frozenset()) == expected


def test_styles_and_several_concepts():
    prompt = "a cat with a knife in the style of Vincent van Gogh"
    assert caption("a church in the style of Van Gogh", [VAN_GOGH], CaptionPolicy.drop, frozenset()) == "a church"
    text = caption(prompt, [CAT, KNIFE, VAN_GOGH], CaptionPolicy.drop, frozenset())
    assert not any(mentions(text, concept) for concept in (CAT, KNIFE, VAN_GOGH))


@pytest.mark.parametrize("policy", [CaptionPolicy.drop, CaptionPolicy.anchor])
@pytest.mark.parametrize("joint", [" and ", ", ", " with ", " on ", " of a ", " is a ", "; ", " (", " - "])
@pytest.mark.parametrize("word", ["cat", "Kitten", "CATS", "tabby cats", "kittens"])
def test_no_erased_word_survives_in_any_surrounding(policy, joint, word):
    for prompt in (f"a dog{joint}{word}", f"{word}{joint}a dog", f"a dog{joint}the small {word}{joint}a fox"):
        text = caption(prompt, [CAT], policy, frozenset({"dog"}))
        assert not mentions(text, CAT)
        assert "dog" in text
