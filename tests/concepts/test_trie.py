"""Which of many words are in a text: exactly those that stand between word borders, and where."""

import random
import re

import pytest

from pipeline.concepts.trie import Trie

WORDS = (
    "cat", "hot dog", "dog", "AK-47", "47", "palm tree", "C++", "a.b", "by Munch", "Munch's", "猫", "熊猫", "แมว", 
    "قطة", "קטן", "고양이", "ヴァン・ゴッホ", "🐱", "🐈\u200d⬛", "T恤",
)  # fmt: skip


def found(text: str) -> list[tuple[str, str]]:
    """The listed words in *text*, each with what stands there."""
    return [(value, text[start:stop]) for start, stop, value in Trie((word, word) for word in WORDS).find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a Cat and a hot-dog", [("cat", "Cat"), ("hot dog", "hot-dog"), ("dog", "dog")]),
        ("hot, dog", [("dog", "dog")]),
        ("category wildcat écat catgirl", []),
        ("1cat cat2 (cat:1.3) {cat|dog} <cat>", [("cat", "cat")] * 4 + [("dog", "dog"), ("cat", "cat")]),
        ("AK‑47", [("AK-47", "AK‑47"), ("47", "47")]),
        ("AK470, 1947 and 4 7", []),
        ("a palm\u00adtree", [("palm tree", "palm\u00adtree")]),
        ("a pa\u200blm\u00adtr\u200cee", [("palm tree", "pa\u200blm\u00adtr\u200cee")]),
        ("palmtree", []),
        ("wild\u00adcat", [("cat", "cat")]),
        ("C++ or C", [("C++", "C++")]),
        ("a.b axb a b", [("a.b", "a.b")]),
        ("by munch’s side", [("by Munch", "by munch"), ("Munch's", "munch’s")]),
        ("一只猫和熊猫", [("猫", "猫"), ("熊猫", "熊猫"), ("猫", "猫")]),
        ("熊 猫", [("猫", "猫")]),
        ("แมวบนชายหาด", [("แมว", "แมว")]),
        ("القطة وقطة نقطة", [("قطة", "القطة"), ("قطة", "وقطة")]),
        ("הקטן", [("קטן", "הקטן")]),
        ("고양이가 고양이과", [("고양이", "고양이가"), ("고양이", "고양이과")]),
        ("ヴァンゴッホ", [("ヴァン・ゴッホ", "ヴァンゴッホ")]),
        ("🐱🐱️ 🐈⬛", [("🐱", "🐱"), ("🐱", "🐱\ufe0f"), ("🐈\u200d⬛", "🐈⬛")]),
        ("一件T恤", [("T恤", "T恤")]),
        ("", []),
        ("?!", []),
    ],
)
def test_words_are_found_where_they_stand(text, expected):
    assert found(text) == expected


def test_a_word_may_be_listed_for_several():
    trie = Trie([("cat", 1), ("Cat", 2)])
    assert [one.value for one in trie.find("cats and CAT")] == [1, 2]


@pytest.mark.parametrize("word", ["", " ", "-_", "\u00ad", "\u0301"])
def test_what_could_never_be_found_cannot_be_listed(word):
    with pytest.raises(ValueError, match="no letter, digit or sign"):
        Trie([(word, None)])


def test_it_finds_what_a_search_for_each_word_finds():
    """On texts of a few letters, where words overlap and lie in each other all the time."""
    draw = random.Random(0)
    words = {" ".join("".join(draw.choices("ab", k=draw.randint(1, 2))) for _ in range(draw.randint(1, 3)))
             for _ in range(40)}  # fmt: skip
    trie = Trie((word, word) for word in words)
    for _ in range(300):
        text = "".join(draw.choices("ab  -", k=20))
        searched = {
            (match.start(1), match.end(1), word)
            for word in words
            for match in re.finditer(rf"(?<![ab])(?=({re.sub(' ', '[ -]+', word)})(?![ab]))", text)
        }
        assert {*trie.find(text)} == searched
