"""Which words a sweep over the diorama's world asks, and how what it found is counted."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.diorama.lexicon import IMPLIED, OBJECTS, SYNONYMS
from pipeline.evaluation.words.questions import Question, with_article
from pipeline.evaluation.words.tally import Row, Tally

SCRIPT = Path(__file__).resolve().parents[2] / "jobs" / "prove_words.py"


@pytest.fixture(scope="module")
def job() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prove_words", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_vocabulary_is_the_worlds_each_word_once_with_what_has_a_name_first(job: ModuleType) -> None:
    words = job.vocabulary()
    named = {*OBJECTS, *IMPLIED, *(word for group in SYNONYMS.values() for word in group)}
    assert named <= set(words[:200])
    assert len(words) > 1400
    assert len({with_article(word) for word in words}) == len(words)
    assert set(job.CONCEPTS) <= named


def test_a_concept_has_synonyms_scenes_and_siblings_by_the_lexicon(job: ModuleType) -> None:
    beer = job.groups("beer")
    assert beer["synonyms"] == {"lager", "ale", "pint", "lagers", "ales", "pints"}
    assert {"a party", "party", "a bar", "bar"} <= beer["scenes"]
    assert {"wine", "merlot", "coffee", "latte"} <= beer["siblings"]


def test_misses_siblings_and_other_words_are_told_apart(job: ModuleType) -> None:
    shown = {"cat": "cat", "kitten": "cat", "tiger": "cat", "zebra": "cat", "a party": "beer", "beer": "beer"}
    words = ["cat", "beer", "kitten", "tabby", "kitty", "tiger", "lion", "zebra", "table", "a party"]
    words += [f"other {i}" for i in range(90)]
    tally = Tally(job.CONCEPTS, job.CONCEPTS)
    names = [name for name in job.CONCEPTS if name not in words]
    for word in [*words, *names]:
        seen = frozenset({shown[word]} if word in shown else {word} & set(names))
        tally.add(Row(f"{word} {i}", Question(word, i), 0, 1, "", seen) for i in range(16))
    figures = job.judged(words, tally)
    assert figures["synonyms"]["found"] == [1, 3]
    assert figures["synonyms"]["missed"] == ["cat: kitty", "cat: tabby"]
    assert figures["scenes"]["found"] == [1, 1]
    assert figures["siblings"]["which"] == ["cat: tiger"]
    assert figures["others"]["which"] == ["cat: zebra (means)"]
    agreed = job.agreement(words, tally, tally)
    assert (agreed["confirmed"], agreed["refuted"], agreed["found by B alone"]) == ([4, 4], [], [])
