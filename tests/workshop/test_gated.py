"""What a recipe's gate makes of words beside a concept, as `lacuna words` shows it."""

from dataclasses import replace

import pytest

from pipeline.config import load_config
from pipeline.config.schema import Config, StepConfig
from pipeline.erasure.gate.calibration import MEANS, OPENS
from pipeline.workshop.words import WordsReport, words_report

pytestmark = pytest.mark.slow

CONFIG = """
model: {path: diorama}
erasure:
  concepts:
    - {name: cat, aliases: [tabby], preserve: [tiger, kitty], ignore: [tomcat]}
    - {name: gun}
    - {name: rifle, aliases: [shotgun]}
  recipe: [{method: cease}]
prompts: {template: "a {thing}", values: {thing: [dog]}}
output: {path: out}
audit: {policy: keep, captions: drop}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("gated") / "config.yaml"
    path.write_text(CONFIG)
    return load_config(path)


@pytest.fixture(scope="module")
def report(config: Config) -> WordsReport:
    return words_report(config)


def test_each_word_has_the_gates_score_its_sense_and_what_became_of_it(report):
    cat = report.concepts[0]
    words = {own.word: own for own in cat.gate}
    assert words["wildcat"].became == "means"
    assert words["wildcat"].gloss.startswith("any small or medium-sized cat")
    assert words["wildcat"].known == "other", "it is an oil well most often"
    assert (words["tomcat"].became, words["tomcat"].score) == ("leave", 0), "it is ignored"
    assert not {"cat", "tabby", "cats"} & words.keys(), "the list finds these"
    assert {own.known for own in cat.gate} >= {"kind", "sibling", "preserved"}
    for concept in report.concepts:
        scores = [own.score for own in concept.gate]
        assert scores == sorted(scores, reverse=True)
        assert len({own.word for own in concept.gate}) == len(scores)
        for own in concept.gate:
            expected = "means" if own.score >= MEANS else "implies" if own.score >= OPENS else "leave"
            assert own.became == ("leave" if own.instead else expected)
            assert not own.instead or own.score >= OPENS


def test_a_word_means_the_concept_that_it_comes_nearest_to(report):
    gun, rifle = ({own.word: own for own in concept.gate}["scattergun"] for concept in report.concepts[1:])
    assert (rifle.became, rifle.instead) == ("means", "")
    assert (gun.became, gun.instead) == ("leave", "rifle")
    assert rifle.score > gun.score >= OPENS
    assert f"scattergun {gun.score:.2f} (of rifle)" in report.text()


def test_what_is_something_else_and_opens_the_gate_is_too_near(report):
    cat = report.concepts[0]
    assert cat.too_near == [
        own.word for own in cat.gate if own.became != "leave" and own.known in ("sibling", "preserved")
    ]
    assert "kitty" in cat.too_near
    assert "tiger" not in cat.too_near
    lines = report.lines()
    assert any(line.startswith("  too near   ") and "kitty" in line for line in lines)
    assert lines[2].startswith("gate       acts on words of a score from 0.50 on, which mean the concept from 0.75 on")


def test_words_that_only_the_list_settles_have_no_score(config):
    recipe = [StepConfig(method="cease", options={"unlisted": False})]
    found = words_report(replace(config, erasure=replace(config.erasure, recipe=recipe)))
    assert all(own.became == "leave" and own.score == 0 for concept in found.concepts for own in concept.gate)


def test_without_a_gate_nothing_is_scored_and_no_model_loaded(config, monkeypatch):
    monkeypatch.setattr("pipeline.workshop.gated.load_model", None)
    found = words_report(replace(config, erasure=replace(config.erasure, recipe=[StepConfig(method="uce")])))
    assert found.gate == "no method of the recipe has one"
    assert not any(concept.gate for concept in found.concepts)
