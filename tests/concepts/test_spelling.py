"""Which unknown words may be a listed one, misspelt or in a compound; none that anybody knows."""

import pytest

from pipeline.concepts.everyday import everyday
from pipeline.concepts.spelling import Spelling, is_known, one_edit


@pytest.mark.parametrize("word", ["chruch", "churh", "chhurch", "chusch", "churhc", "churchy", "churc"])
def test_one_letter_left_out_put_in_changed_or_swapped_is_an_edit(word: str) -> None:
    assert one_edit(word, "church")
    assert one_edit("church", word)


@pytest.mark.parametrize("word", ["church", "hcurch", "lurch", "churches", "chrcuh", "chuhcr", "crurhch", "", "c"])
def test_none_two_and_one_of_the_first_letter_are_not(word: str) -> None:
    assert not one_edit(word, "church")


@pytest.mark.parametrize(
    ("word", "proposed"),
    [
        ("chruch", True), ("Chruch", True), ("Kathedral", False), ("churchs", True), ("catherdal", True),
        ("megachurch", False),
        ("catgirl", True), ("battlecats", True), ("beercat", True), ("catxq", False), ("xqcat", False),
        ("catalog", False), ("cattle", False), ("tomcat", False), ("lurch", False), ("march", False), ("catt", False),
        ("church", False), ("churches", False), ("hot chruch", False), ("chruch2", False), ("", False),
    ],
)  # fmt: skip
def test_what_nobody_knows_is_proposed(word: str, proposed: bool) -> None:
    assert Spelling(["church", "cathedral", "cat"]).proposes(word) == proposed


def test_no_everyday_word_is_ever_proposed() -> None:
    spelling = Spelling(["cat", "kitten", "beer", "lager", "gun", "rifle", "car", "church"])
    assert [word for word in everyday() if spelling.proposes(word)] == []
    assert is_known("larger"), "which no dictionary of nouns has"
    assert one_edit("larger", "lager")
