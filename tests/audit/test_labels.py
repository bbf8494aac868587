"""Which labels stand for which concept: by the user's table, by name, by WordNet; mostly in ImageNet's own words."""

import pytest

from pipeline.audit.labels import Label, Labels
from pipeline.concepts.term import Term
from pipeline.errors import ConfigError

IMAGENET = [
    "tabby, tabby cat", "tiger cat", "Persian cat", "tiger, Panthera tigris", "rifle", "revolver, six-gun, six-shooter",
    "assault rifle, assault gun", "missile",
    "n02879718 bow", "n02950826 cannon", "church, church building", "bow tie, bow-tie, bowtie",
    "espresso", "coffee mug", "cup", "ram, tup", "n02012849 crane", "n03126707 crane", "howitzer",
]  # fmt: skip


def labels(table=None, senses=None) -> Labels:
    return Labels("options", [Label.read(text) for text in IMAGENET], table, senses)


@pytest.mark.parametrize(
    ("term", "words", "expected"),
    [
        ("cat", (), ["tabby, tabby cat", "tiger cat", "Persian cat"]),  # kinds, of domestic cats and no tiger
        ("feline", (), ["tabby, tabby cat", "tiger cat", "Persian cat", "tiger, Panthera tigris"]),
        ("rifles", (), ["rifle"]),  # a plural
        (
            "gun",
            (),
            ["rifle", "revolver, six-gun, six-shooter", "assault rifle, assault gun", "cannon"],
        ),  # its most usual sense
        ("gun", ("revolver",), ["rifle", "revolver, six-gun, six-shooter", "assault rifle, assault gun", "cannon"]),
        ("gun", ("artillery", "heavy weapon"), ["howitzer"]),  # the sense that has most of the listed words
        ("bow", (), ["bow"]),  # by name: the dictionary's first sense is the knot
        ("church", (), ["church, church building"]),  # of its senses the one that has labels
        ("sheep", (), ["ram, tup"]),  # not the computer's memory: what both names mean
        ("coffee", (), ["espresso"]),  # and no mug
        ("place of prayer", ("church",), ["church, church building"]),  # by an alias
        ("firearms", (), ["rifle", "revolver, six-gun, six-shooter", "assault rifle, assault gun"]),
        ("dagger", (), []),
        ("Van Gogh", ("van gogh",), []),
    ],
)
def test_labels_of_a_concept(term, words, expected):
    assert labels().texts(Term(term, (term, *words))) == expected


def test_weapons_are_all_that_the_dictionary_calls_so():
    weapons = {"rifle", "revolver, six-gun, six-shooter", "assault rifle, assault gun", "missile", "bow", "cannon"}
    assert set(labels().texts(Term("weapon"))) == weapons  # of artillery it says "armament"


def test_a_table_decides_before_all_else():
    found = labels(table={"cat": ["tiger cat"], "drink": ["cup", "Espresso", "six-gun"]})
    assert found.texts(Term("cat")) == ["tiger cat"]
    assert found.texts(Term("drink")) == ["revolver, six-gun, six-shooter", "espresso", "cup"]


def test_a_name_of_several_things_is_refused_until_a_sense_is_given():
    with pytest.raises(
        ConfigError, match=r"labels called 'crane' mean several things \(n02012849, .*; n03126707, .*\); say"
    ):
        labels().columns(Term("crane"))
    assert labels(senses={"crane": "n02012849"}).columns(Term("crane")) == (16,)
    assert labels(senses={"gun": "n02746365"}).texts(Term("gun")) == ["howitzer"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"table": {"cat": ["tabi cat"]}},
            "options.labels.cat: there is no label 'tabi cat' among 19 (did you mean 't",
        ),
        ({"table": {"cat": "tabby"}}, "options.labels.cat: expected a list of labels"),
        ({"table": {"cat": []}}, "options.labels.cat: expected a list of labels"),
        ({"table": ["tabby"]}, "options.labels: expected a list of labels for each concept"),
        ({"senses": {"gun": "n1"}}, "options.senses.gun: 'n1' is no noun of WordNet 3.0; expected an id such as n034"),
    ],
)
def test_what_is_wrong_is_one_line(options, message):
    with pytest.raises(ConfigError) as caught:
        labels(**options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_label_of_an_id_alone_is_called_by_it():
    assert Label.read("n02123045") == Label("n02123045", "n02123045")
    assert Labels("options", [Label.read("n02123045")]).columns(Term("cat")) == (0,)
