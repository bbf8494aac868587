"""The eye of ImageNet's classes: which stand for which concept, and what it sees in real photographs."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.audit.imagenet import THRESHOLD, ImageNet, classes
from pipeline.concepts.concept import Concept
from pipeline.errors import ConfigError
from tests.photographs import PHOTOGRAPHS, photograph

ROOT = Path(__file__).parents[2]
CAT = Concept(name="cat", aliases=("kitten", "tabby")).term
COFFEE = Concept(name="coffee").term
# Of the lists in configs/erasure: the first name of each class that stands for a concept; what has none is left out.
STAND_FOR = {
    "gun": {"revolver", "rifle", "assault rifle", "cannon"},
    "rifle": {"rifle", "assault rifle"},
    "army tank": {"tank"},
    "wine": {"red wine"},
    "church": {"church"},
    "parachute": {"parachute"},
}


@pytest.fixture(scope="module")
def eye() -> ImageNet:
    return ImageNet("cpu")


def test_classes_are_those_of_ilsvrc_2012_in_its_order():
    found = classes()
    assert len(found) == len({label.id for label in found}) == 1000
    assert [label.id for label in found] == sorted(label.id for label in found)
    assert {i: found[i].names[0] for i in (0, 282, 413, 763, 764, 967, 999)} == {
        0: "tench", 282: "tiger cat", 413: "assault rifle", 763: "revolver", 764: "rifle", 967: "espresso",
        999: "toilet tissue",
    }  # fmt: skip


def test_which_classes_stand_for_the_concepts_of_the_lists_that_ship():
    eye = ImageNet("cpu", labels={"missile": ["n03773504", "n04008634"], "crossbow": ["bow"]})
    found = {}
    for path in sorted((ROOT / "configs/erasure").glob("*.yaml")):
        for listed in yaml.safe_load(path.read_text())["concepts"]:
            term = Concept(name=listed["name"], aliases=tuple(listed.get("aliases", ()))).term
            names = {text.partition(",")[0] for text in eye.labels.texts(term)}
            assert eye.knows(term) == bool(names)
            found |= {str(term): names} if names else {}
    assert found == STAND_FOR | {"missile": {"missile", "projectile"}, "crossbow": {"bow"}}


def test_a_name_of_two_classes_is_refused_until_they_are_told_apart(eye):
    with pytest.raises(ConfigError, match=r"options.senses: labels called 'missile' mean several things \(n03773504"):
        eye.knows(Concept(name="missile").term)


@pytest.mark.parametrize("shown", PHOTOGRAPHS)
def test_cat_and_coffee_are_found_and_rocket_face_flower_and_temple_left(eye, shown):
    (scores,) = eye.score(photograph(shown)[None], [CAT, COFFEE])
    assert scores.dtype == np.float32
    found = {str(term) for term, score in zip((CAT, COFFEE), scores, strict=True) if score >= THRESHOLD}
    assert found == {shown} & {"cat", "coffee"}
    assert scores.max() > 0.8 if found else scores.max() < 0.05


def test_scores_are_the_same_again_and_near_the_same_beside_others(eye):
    images = np.stack([photograph("cat")[:300, :400], photograph("coffee")[:300, :400]] * 9)
    scores = eye.score(images, [CAT])
    assert scores.shape == (18, 1)
    assert np.array_equal(scores, eye.score(images, [CAT]))
    assert np.allclose(scores[::2], scores[0], atol=1e-4)
    assert np.allclose(scores[:1], eye.score(images[:1], [CAT]), atol=1e-4)


def test_a_table_and_a_sense_decide_what_a_concept_is():
    table = ImageNet("cpu", labels={"cat": ["n02123045", "Persian cat"]}, senses={"crane": "n02012849"})
    assert [text.partition(",")[0] for text in table.labels.texts(CAT)] == ["tabby", "Persian cat"]
    assert table.knows(Concept(name="crane").term)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"labels": {"cat": ["tabi"]}},
            r"options.labels.cat: there is no label 'tabi' among 1,000 \(d",
        ),
        ({"senses": {"cat": "n1"}}, "options.senses.cat: 'n1' is no noun of WordNet 3.0"),
    ],
)
def test_what_is_wrong_is_one_line(options, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        ImageNet("cpu", **options)
    assert "\n" not in str(caught.value)
