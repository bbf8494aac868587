"""What a person chose becomes a list that loads again, and what is no choice is refused in a line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load_config
from pipeline.config.schema import ConceptConfig
from pipeline.errors import ConfigError
from pipeline.workshop.choices import chosen
from pipeline.workshop.lists import list_yaml

CAT = ConceptConfig(name="cat", aliases=["tabby"], proven=["tom"], implied=["ball of wool"], keep=["cat burglar"])
BEER = ConceptConfig(name="beer", preserve=["wine"])
SHOWN = {"cat": ["tabby", "tom", "ball of wool", "kitten"], "beer": ["lager", "a party"]}


def choose(**words: str) -> list[dict[str, str]]:
    concepts = {word: name for name, shown in SHOWN.items() for word in shown}
    return [{"concept": concepts[word], "word": word, "choice": choice} for word, choice in words.items()]


def test_words_go_where_they_were_put_and_what_is_confirmed_is_listed(tmp_path: Path) -> None:
    choices = choose(tom="means", kitten="means", tabby="leave", lager="means", **{"a party": "implies"})
    cat, beer = chosen([CAT, BEER], SHOWN, choices)
    assert (cat.aliases, cat.proven, cat.implied, cat.ignore) == (["tom", "kitten"], [], [], ["tabby"])
    assert cat.keep == ["cat burglar"]
    assert (beer.aliases, beer.implied, beer.preserve) == (["lager"], ["a party"], ["wine"])
    (tmp_path / "list.yaml").write_text(list_yaml([cat, beer]))
    (tmp_path / "config.yaml").write_text(
        "model: {path: diorama}\nerasure: {lists: [list.yaml], recipe: []}\nprompts: {template: a, values: {}}\n"
        "audit: {policy: keep, captions: drop}\noutput: {path: out}\n"
    )
    assert load_config(tmp_path / "config.yaml").erasure.concepts == [cat, beer]
    assert yaml.safe_load(list_yaml([BEER])) == {"concepts": [{"name": "beer", "preserve": ["wine"]}]}


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({}, "choices: expected a list"),
        ([3], r"choices\[0\]: expected concept, word and choice"),
        ([{"concept": "cat", "word": ["tom"], "choice": "means"}], r"choices\[0\]: expected concept, word and choice"),
        ([{"concept": "cats", "word": "tom", "choice": "means"}], r"unknown concept 'cats' \(did you mean 'cat'\?\)"),
        ([{"concept": "cat", "word": "lager", "choice": "means"}], "'lager' is no word of 'cat' on this page"),
        ([{"concept": "cat", "word": "tom", "choice": "keep"}], "unknown choice 'keep'; expected one of means"),
        (choose(tom="means") * 2, "'tom' is already a word for this concept"),
    ],
)
def test_what_is_no_choice_is_refused(choices: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        chosen([CAT, BEER], SHOWN, choices)


def test_a_word_of_two_concepts_is_refused() -> None:
    shown = {"cat": ["tom"], "beer": ["tom"]}
    both = [{"concept": name, "word": "tom", "choice": "means"} for name in shown]
    with pytest.raises(ConfigError, match="'tom' is already a word for 'cat'"):
        chosen([CAT, BEER], shown, both)
