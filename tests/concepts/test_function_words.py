"""Function words: a closed class, none of which a list erases."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.concepts.function_words import FUNCTION_WORDS
from pipeline.concepts.normal import normal

LISTS = sorted(Path("configs/erasure").glob("*.yaml"))


def test_they_are_in_the_normal_form_and_each_is_one_word():
    assert all(word == normal(word) and word.isalpha() for word in FUNCTION_WORDS)
    assert {"and", "with", "two", "the"} <= FUNCTION_WORDS
    assert FUNCTION_WORDS.isdisjoint({"can", "will", "spring", "cat"}), "which may be things"


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_no_list_that_ships_erases_one(path):
    concepts = OmegaConf.to_container(OmegaConf.load(path))["concepts"]
    words = {normal(word) for concept in concepts for word in (concept["name"], *concept.get("aliases", ()))}
    assert words
    assert words.isdisjoint(FUNCTION_WORDS)
