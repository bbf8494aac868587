"""What names a concept: whole words in any writing, in the plural too, but for exceptions."""

import pytest

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming, mentions
from pipeline.concepts.words import plurals

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


PEOPLE_WRITE = Naming(
    [
        Concept(name="cat", aliases=("kitten", "猫", "แมว", "قطة", "🐱", "кошка"), keep=("cat burglar", "copy cat")),
        Concept(name="rifle", aliases=("AK-47", "machine gun")),
        Concept(name="gun"),
        Concept(name="dog", keep=("hot dog", "corn dogs")),
        Concept(name="sausage", aliases=("hot dog",)),
        Concept(name="Edvard Munch", aliases=("Munch's", "by Munch")),
        Concept(name="café"),
        Concept(name="palm tree"),
    ]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # tags, and what clings to numbers, signs and brackets
        ("1girl, cat_ears, black_cat, photo_of_a_cat", ["cat"] * 3),
        ("1cat, cat2, kittens2, 2cats", ["cat"] * 4),
        ("(cat:1.3) ((cat)) {cat|dog} [cat:dog:0.5] cat++ <cat>", ["cat"] * 3 + ["dog", "cat", "dog", "cat", "cat"]),
        ("cat/dog cat&dog cat+dog “cat”", ["cat", "dog"] * 3 + ["cat"]),
        ("machine_gun, 1gun", ["rifle", "gun"]),
        # possessives, dashes, what cannot be seen
        ("a kitten's, a kitten’s and a kittenʼs nap", ["cat"] * 3),
        ("Munch's, Munch’s, Munch", ["Edvard Munch"] * 2),
        ("AK-47 AK47 AK 47 AK‑47 AK–47 AK−47 AK_47 two AK-47s", ["rifle"] * 8),
        ("a c\u00adat, a c\u200bat and a palm\u00adtree", ["cat", "cat", "palm tree"]),
        ("palm‐tree palm\u2003tree PALM\nTREES", ["palm tree"] * 3),
        # letters of other widths, forms and scripts
        ("ｃａｔ 𝗰𝗮𝘁 ⓒⓐⓣ CAFÉ cafe\u0301", ["cat"] * 3 + ["café"] * 2),
        ("КОШКА и Кошка", ["cat"] * 2),
        ("一只猫在海滩上, 熊猫, 一只cat, 海滩上的cat和雪", ["cat"] * 4),
        ("แมวบนชายหาด", ["cat"]),
        ("القطة على الشاطئ", ["cat"]),
        ("🐱 on the beach, 🐱️!", ["cat", "cat"]),
        # other words
        ("category, wildcat, catgirl, concatenate, scat", []),
        ("AK-470, AK-4 7, machine, guns", ["gun"]),
        ("cafe, palmtree, نقطة, 🐈", []),
        # of words that overlap the longest, and no exception
        ("a machine gun and a gun", ["rifle", "gun"]),
        ("a cat burglar with a copy-cat and a cat", ["cat"]),
        ("a hot dog, a hot, dog, two corn dogs and hot-dogs", ["sausage", "dog", "sausage"]),
    ],
)
def test_words_are_found_as_people_write_them(text, expected):
    assert [mention.concept.name for mention in PEOPLE_WRITE.mentions(text)] == expected


def test_a_mention_says_which_listed_word_it_is_and_where():
    text = "two AK‑47s and 一只猫"
    assert [(one.word, text[one.start : one.stop], one.plural) for one in PEOPLE_WRITE.mentions(text)] == [
        ("AK-47", "AK‑47s", True),
        ("猫", "猫", False),
    ]
    text = "Cat_Burglars"
    assert [(one.word, text[one.start : one.stop]) for one in PEOPLE_WRITE.exceptions(text)] == [
        ("cat burglar", "Cat_Burglars")
    ]


def test_an_exception_is_found_written_together_unless_that_is_a_listed_word():
    naming = Naming([Concept(name="beer", keep=("root beer", "beer-batter")), Concept(name="batter")])
    text = "rootbeer, two RootBeers, beerbatter and a beer"
    assert [text[one.start : one.stop] for one in naming.exceptions(text)] == ["rootbeer", "RootBeers", "beerbatter"]
    assert [one.concept.name for one in naming.mentions(text)] == ["beer"]
    beer = Concept(name="beer", aliases=("rootbeer",), keep=("root beer",))
    assert [one.word for one in Naming([beer]).mentions("a rootbeer and a root beer")] == ["rootbeer"]
    for listed in (beer, Concept(name="beer", implied=("rootbeer",), keep=("root beer",))):
        exceptions = Naming([listed]).exceptions("two rootbeers and a root beer")
        assert [(one.word, one.start) for one in exceptions] == [("root beer", 20)]


@pytest.mark.parametrize(
    ("text", "expected"), [("Cats", True), (" cat ", True), ("a cat", False), ("cat burglar", False), ("dog", False)]
)
def test_a_word_is_told_from_a_text_with_it(text, expected):
    assert Naming([Concept(name="cat", keep=("cat burglar",))]).is_word(text) is expected


def test_an_exception_holds_for_its_own_concept_alone():
    listed = [Concept(name="dog", keep=("hot dog",)), Concept(name="hot thing", aliases=("dog on a plate",))]
    assert [one.concept.name for one in Naming(listed).mentions("a hot dog on a plate")] == ["hot thing"]
    assert [one.concept.name for one in Naming(listed[:1]).mentions("a hot dog on a plate")] == []


def test_no_words_name_nothing():
    assert not Naming.of_words([]).names("a cat")
    assert Naming.of_words(["cat", "dog"]).names("two dogs")
