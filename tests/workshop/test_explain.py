"""`lacuna explain`: a page for any recipe, with gates and masks where the methods have them."""

import re

import numpy as np
import pytest
import torch

from pipeline.config.schema import StepConfig
from pipeline.config.sections.audit import DetectorConfig
from pipeline.erasure.recipe import active_methods
from pipeline.errors import ConfigError
from pipeline.generation.engine import Engine
from pipeline.models.load import load_model
from pipeline.statistics import rounded_down
from pipeline.workshop.explain import draw, write_explanation
from tests import tiny
from tests.erasure import families
from tests.erasure.conftest import config

CEASE = StepConfig(method="cease", options={"unlisted": False, "context": False})


def explained(prompt: str, path, *steps: StepConfig) -> str:
    assert write_explanation(config(*steps), prompt, str(path)) == str(path)
    return path.read_text()


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_a_concerned_prompt_shows_gate_alternative_and_masks(family, tmp_path):
    step = CEASE if family in ("sd", "sdxl") else StepConfig(method="cease_joint")
    settings = config(step) if family == "sd" else families.config(family, step)
    page = tmp_path / "new" / "page.html"
    assert write_explanation(settings, "two kittens <by> a road", str(page)) == str(page)
    text = page.read_text()
    assert "“kittens” means cat (1.00)" in text
    assert "listens to “two dogs &lt;by&gt; a road”" in text
    assert f"{step.method}:cat" in text
    assert len(re.findall(r"step \d: (?:looks|switches)", text)) == 3
    assert text.count("data:image/png") == 3 + 3
    assert not re.search(r'(?:src|href)="(?!data:)', text)  # self-contained


def test_an_unconcerned_prompt_is_bit_identical_and_says_so(tmp_path):
    text = explained("a bowl of fruit", tmp_path / "page.html", CEASE)
    assert "nothing: bit-identical" in text
    assert "left alone" in text
    assert "shut: opens at 0.5" in text
    assert "No method of this recipe acted in a place" in text


def test_a_gate_is_shown_with_what_it_opens_at(tmp_path):
    step = StepConfig(method="cease", options={"unlisted": False, "context": False})
    text = explained("a cat by a road", tmp_path / "page.html", step)
    assert "open: opens at 0.5" in text
    assert "left:50.0%" in text


def test_a_score_is_not_told_as_a_threshold_that_it_does_not_reach(tmp_path):
    settings = config(StepConfig(method="semantic_surgery"))
    model = load_model(settings.model, torch.device("cpu"))
    (score,) = draw(settings, model, active_methods(settings, model), "a bowl of fruit").gates.values()
    digits = next(n for n in range(2, 9) if round(score, n) > score)
    beyond = round(score, digits)
    text = explained(
        "a bowl of fruit", tmp_path / "page.html", StepConfig(method="semantic_surgery", options={"threshold": beyond})
    )
    assert f"shut: opens at {beyond:g}" in text
    assert f"<td>{rounded_down(score, digits)}</td>" in text
    assert float(rounded_down(score, digits)) < beyond


def test_a_recipe_without_steps_has_a_page_too(tmp_path):
    assert "Nothing was erased, the recipe is empty" in explained("a cat", tmp_path / "page.html")


def test_watching_changes_no_picture():
    settings = config(CEASE)
    model = load_model(settings.model, torch.device("cpu"))
    trace = draw(settings, model, active_methods(settings, model), "a cat by a road")
    assert [step for step, _, _ in trace.masks] == [0, 1, 2]

    settings.generation.batch_size = 1
    (batch,) = Engine(settings, model, active_methods(settings, model)).generate(
        [tiny.sample(0, "a cat by a road", seed=settings.seed)]
    )
    assert np.abs(batch.images[0].astype(int) - trace.image).max() == 0


def test_an_empty_prompt_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the prompt is empty"):
        write_explanation(config(CEASE), "  ", str(tmp_path / "page.html"))


def test_a_size_that_the_detector_cannot_judge_is_refused_before_anything_is_drawn(tmp_path):
    settings = config(CEASE)
    settings.audit.detectors = [DetectorConfig(detector="diorama")]
    with pytest.raises(ConfigError, match="cannot judge pictures of 32x32 pixels"):
        write_explanation(settings, "a cat", str(tmp_path / "page.html"))
