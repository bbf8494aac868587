"""The evaluation asks for what it says, resumes, and counts what B sees."""

import numpy as np
import pytest

from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.lexicon import canonical
from pipeline.diorama.suite import evaluate as module
from pipeline.diorama.suite.card import from_json, scores_text
from pipeline.diorama.suite.evaluate import evaluate_diorama
from pipeline.diorama.suite.prompts import CELLS, demand, demands
from pipeline.diorama.world import OBJECTS
from pipeline.errors import ConfigError
from pipeline.evaluation.results import read_result


def test_demands_are_fixed_and_cover_every_cell():
    asked = demands(2000)
    assert asked == demands(2000)
    assert abs(len(asked) - 2000) <= len(CELLS)
    assert {item.cell for item in asked} == set(CELLS)
    assert {item.objects[0] for item in asked if item.cell == "one"} == set(OBJECTS)
    assert sum(CELLS.values()) == pytest.approx(1)
    assert len({item.seed for item in asked}) == len(asked)


def test_a_synonym_is_said_and_the_plain_name_is_not():
    item = demand("synonym", 0)
    word = item.prompt.split()[1]
    assert word != item.objects[0]
    assert canonical(word) == item.objects[0]


def test_too_few_pictures_for_a_distance_of_distributions_are_scored_without_it():
    asked = demands(8)
    assert sum(item.cell == "caption" for item in asked) <= 1
    detectors = {"A": DioramaDetector.load("a"), "B": DioramaDetector.load("b")}
    scores = module.judge_generated(detectors, np.zeros((len(asked), 64, 64, 3), np.uint8), asked)
    assert "frechet" not in scores
    assert scores["all objects asked for are there"]["one object"].hits == 0


@pytest.mark.slow
def test_evaluates_resumes_and_refuses_other_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", 1)
    monkeypatch.setattr(module, "_RENDERS_PER_STYLE", 4)
    card = evaluate_diorama(tmp_path, images=16, results=tmp_path / "results.json")
    written = read_result(tmp_path / "results.json")
    scores = scores_text(from_json(written["figures"]) | {"settings": written["config"]})
    assert f"<!-- table: diorama -->\n{scores}<!-- end -->\n" in card  # the same from the file
    assert "Noto Color Emoji" in card
    assert "one object" in card
    assert (tmp_path / "contact.png").exists()
    assert (tmp_path / "scores.json").exists()
    first = np.load(tmp_path / "pictures" / "00000.npy")
    (tmp_path / "pictures" / "00000.npy").unlink()
    evaluate_diorama(tmp_path, images=16)
    evaluate_diorama(tmp_path, images=16, results=tmp_path / "results.json")  # nothing was drawn, so nothing timed
    again = read_result(tmp_path / "results.json")["figures"]
    assert (again["pictures per second"], again["A and B"]) == (None, written["figures"]["A and B"])
    assert np.array_equal(first, np.load(tmp_path / "pictures" / "00000.npy"))
    with pytest.raises(ConfigError, match="another folder"):
        evaluate_diorama(tmp_path, images=20)
