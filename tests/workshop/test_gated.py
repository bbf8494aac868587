"""What a recipe's gate makes of words beside a concept, as `lacuna words` shows it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.concepts.dictionary import dictionary
from pipeline.config import load_config
from pipeline.config.schema import ConceptConfig, Config, Device, DType, StepConfig
from pipeline.erasure.gate.calibration import MEANS, OPENS
from pipeline.erasure.recipe import active_methods
from pipeline.erasure.tensors import apply_tensors
from pipeline.models.load import load_model
from pipeline.statistics import rounded_down
from pipeline.workshop.gated import Scored, gates_of, sense_beside, text_of
from pipeline.workshop.words import WordsReport, words_report

pytestmark = pytest.mark.slow

CONFIG = """
model: {path: diorama}
erasure:
  concepts:
    - {name: cat, aliases: [tabby], preserve: [tiger, kitty], ignore: [tomcat]}
    - {name: gun, preserve: [pussycat]}
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


def with_step(config: Config, **fields) -> Config:
    recipe = [StepConfig(method="cease", **fields)]
    return replace(config, erasure=replace(config.erasure, recipe=recipe))


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
    assert rifle.known == "kind", "of its alias"
    assert "scattergun" not in report.concepts[2].too_near
    assert rifle.score > gun.score >= OPENS
    assert f"scattergun {gun.told} (of rifle)" in report.text(10_000)


def test_what_is_something_else_and_opens_the_gate_is_too_near(report):
    cat = report.concepts[0]
    assert cat.too_near == [
        own.word for own in cat.gate if own.became != "leave" and own.known in ("sibling", "preserved")
    ]
    assert "kitty" in cat.too_near
    assert "tiger" not in cat.too_near
    assert "pussycat" in cat.too_near, "another concept preserves it"
    lines = report.lines()
    assert any(line.startswith("  too near   ") and "kitty" in line for line in lines)
    assert lines[2].startswith("gate       acts on words of a score from 0.50 on, which mean the concept from 0.75 on")
    assert "as a whole (context)" in lines[2]


def test_words_that_only_the_list_settles_have_no_score(config):
    found = words_report(with_step(config, options={"unlisted": False, "context": False}))
    for concept in found.concepts:
        assert concept.gate
        assert all(own.became == "leave" and own.score == 0 for own in concept.gate)
    assert found.gate == "acts on words that the list has, and that pictures proved (unlisted: false)"
    heard = words_report(with_step(config, options={"unlisted": False, "context": False, "attention": 0.5}))
    assert heard.gate.endswith("; and on pictures that hear of a concept (attention), of which nothing is told here")


def test_what_is_said_to_mean_or_to_imply_it_is_not_too_near(config):
    cat = replace(config.erasure.concepts[0], proven=["kitty"], implied=["tiger"], preserve=[])
    gun, rifle = config.erasure.concepts[1:]
    gun = replace(gun, preserve=["kitty", "tiger"])
    found = words_report(replace(config, erasure=replace(config.erasure, concepts=[cat, gun, rifle]))).concepts[0]
    assert not {"kitty", "tiger"} & {own.word for own in found.gate or ()}
    assert (found.proven, found.implied) == (["kitty"], ["tiger"])


def test_a_concept_that_no_gate_has_is_told(config):
    cat, gun, _rifle = words_report(with_step(config, concepts=["cat"], options={"always_on": True})).concepts
    assert cat.gate
    assert (gun.gate, gun.too_near) == (None, [])


def test_that_a_gate_is_always_open_is_told(config):
    found = words_report(with_step(config, concepts=["cat"], options={"always_on": True}))
    assert found.gate == "acts on every prompt (always_on)"
    assert found.lines().count("  no gate of the recipe has this concept") == 2


def test_a_score_is_never_told_as_a_threshold_that_it_does_not_reach():
    told = {score: Scored(word="w", score=score, became="", instead="", known="", sense="", gloss="").told
            for score in (0.499, 0.5, 0.58, 0.749, 1.0)}  # fmt: skip
    assert told == {0.499: "0.49", 0.5: "0.50", 0.58: "0.58", 0.749: "0.74", 1.0: "1.00"}


def test_the_sense_of_a_plural_is_that_of_its_singular():
    weapon = dictionary().senses("weapon")
    plural = sense_beside("cutlasses", weapon)
    assert plural is not None
    assert plural == sense_beside("cutlass", weapon)
    assert "a short heavy curved sword" in plural.gloss


def test_without_a_gate_nothing_is_scored_and_no_model_loaded(config, monkeypatch):
    monkeypatch.setattr("pipeline.workshop.gated.load_model", None)
    monkeypatch.setattr("pipeline.workshop.gated.load_text", None)
    found = words_report(replace(config, erasure=replace(config.erasure, recipe=[StepConfig(method="uce")])))
    assert found.gate == "no method of the recipe has one"
    assert all(concept.gate is None for concept in found.concepts)
    assert not any("no gate" in line for line in found.lines())


def test_where_the_gpu_that_is_to_draw_is_not_here_a_cpu_reads_the_words(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in Device:
        family = text_of(replace(config, cluster=replace(config.cluster, device=device)))
        assert family.device == torch.device("cpu")
        assert family.pipe.unet.device == torch.device("meta"), "it draws nothing"


def taught(folder: Path, config: Config, word: str, like: str) -> Config:
    """Return *config* with a step before its own which has the text encoder read *word* as it reads *like*."""
    model = load_model(config.model, torch.device("cpu"))
    ids = {w: model.pipe.tokenizer(w, add_special_tokens=False).input_ids for w in (word, like)}
    assert [len(own) for own in ids.values()] == [1, 1]
    name = next(name for name, _ in model.parameters() if name.endswith("token_embedding.weight"))
    weight = dict(model.parameters())[name].clone()
    weight[ids[word]] = weight[ids[like]]
    save_file({name: weight}, folder / "taught.safetensors")
    step = StepConfig(method="weights", concepts=[word], options={"path": str(folder / "taught.safetensors")})
    return replace(config, erasure=replace(config.erasure, recipe=[step, *config.erasure.recipe]))


def test_an_edit_of_the_text_encoder_is_applied_as_a_run_does(config, tmp_path):
    cat = ConceptConfig(name="cat", anchor="dog")
    erasure = replace(config.erasure, concepts=[cat], recipe=[StepConfig(method="cease", options={"context": False})])
    config = replace(config, model=replace(config.model, dtype=DType.float32), erasure=erasure)
    edited = taught(tmp_path, config, "cat", "dog")
    plain, gates = gates_of(config), gates_of(edited)
    assert plain is not None
    assert gates is not None
    model = load_model(edited.model, torch.device("cpu"))
    apply_tensors(model, load_file(tmp_path / "taught.safetensors"))  # as workers do
    (cease,) = active_methods(edited, model)
    for word in ("dog", "wolf", "wildcat", "tiger"):
        score, meant = cease.gate.scores(word)[0], any(hit.meant for hit in cease.gate.hits(word))
        told = gates.scored("cat", word)
        assert all(
            f"({rounded_down(hit.score)})" in line
            for hit, line in zip(cease.gate.hits(word), cease.explain(word), strict=False)
        )
        assert (told.score, told.became == "means") == (float(rounded_down(score, 3)), meant)
    assert gates.scored("cat", "dog").became == "means"
    assert plain.scored("cat", "dog").became == "leave"


def test_an_edit_of_the_denoiser_alone_is_not_solved(config, monkeypatch):
    monkeypatch.setattr("pipeline.workshop.gated.load_model", None)
    monkeypatch.setattr("pipeline.workshop.gated.compile_recipe", None)
    for method in ("uce", "rece", "speed", "esd"):
        recipe = [StepConfig(method=method), *config.erasure.recipe]
        assert text_of(replace(config, erasure=replace(config.erasure, recipe=recipe))).pipe.unet.device.type == "meta"
