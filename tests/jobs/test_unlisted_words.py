"""Words that no list has: none is listed, what is misspelt or compounded is unknown, and siblings stay shut."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from jobs import unlisted_words
from jobs.words.encoders import SentenceEncoder
from pipeline.concepts.mentions import Naming
from pipeline.concepts.spelling import is_known
from pipeline.config.schema import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.load import load_model


def test_each_word_is_asked_once_of_a_concept_that_does_not_list_it() -> None:
    groups = list(unlisted_words.groups())
    assert sum(len(group.words) for group in groups) > 150
    assert {group.split for group in groups} == {"choose", "report"}
    splits = {group.concept.name: {g.split for g in groups if g.concept == group.concept} for group in groups}
    assert all(len(split) == 1 for split in splits.values()), "a concept is of one split"
    assert max(Counter((g.concept.name, word) for g in groups for word in g.words).values()) == 1
    for group in groups:
        listed = Naming([group.concept])
        assert not [word for word in group.words if listed.is_word(word)]
        if group.what in ("misspelt", "compound"):
            assert not [word for word in group.words if is_known(word.lower())], group


def test_a_folder_without_an_encoder_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    for folder, said in (("none", "config.json is missing"), ("half", "holds no sentence encoder")):
        with pytest.raises(ConfigError, match=said) as error:
            SentenceEncoder(tmp_path / folder)
        assert str(error.value).startswith(f"{tmp_path / folder}: ")
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_siblings_and_like_looking_words_stay_shut_on_the_diorama() -> None:
    figures = unlisted_words.found(load_model(ModelConfig(path="diorama"), torch.device("cpu")).family)
    for groups in figures.values():
        assert groups["sibling"]["which"] == []
        opened, asked = groups["everyday"]["opened"]
        assert opened <= 2 * asked / 1000
