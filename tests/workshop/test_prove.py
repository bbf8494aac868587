"""Words are proved by drawing: what the diorama draws of them is found, killed or not, and a run acts on it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.config import identity, load_config
from pipeline.config.schema import Config, StepConfig
from pipeline.corpus import open_store
from pipeline.errors import ConfigError
from pipeline.evaluation.words.cache import WordCache
from pipeline.evaluation.words.questions import Question, with_article
from pipeline.evaluation.words.settle import with_proved_words
from pipeline.models.settle import as_begun, settle
from pipeline.workshop import prove as module
from pipeline.workshop.prove import Proof, as_list, prove

pytestmark = pytest.mark.slow

CONFIG = """
model: {path: diorama, scheduler: UniPCMultistepScheduler}
erasure: {concepts: [{name: cat}, {name: beer, preserve: [wine]}], recipe: []}
words: {vocabulary: words.txt, cache: CACHE, pictures: 1}
prompts: {template: "a {thing}", values: {thing: [dog]}}
generation: {steps: 4, size: [64, 64], batch_size: 16}
audit: {detectors: [{detector: diorama}], policy: keep}
output: {path: out}
cluster: {backend: local}
"""
# "a party" shows a beer among other things.
VOCABULARY = ["kitten", "lager", "a party", "tiger", "guitar", "house", "bus", "apple", "rose", "moon"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("words")
    (folder / "words.txt").write_text("# some\n" + "".join(f"{word}\n" for word in VOCABULARY))
    (folder / "config.yaml").write_text(CONFIG.replace("CACHE", str(folder / "cache")))
    return settle(load_config(folder / "config.yaml"))


@pytest.fixture(scope="module")
def proof(config: Config) -> Proof:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.evaluation.words.selection.KINDS", 3)
        return prove(config, everything=True, budget=None, say=lambda line: None)


def test_synonyms_and_scenes_are_found_and_neighbours_are_not(proof: Proof) -> None:
    found = proof.record()["concepts"]
    assert proof.exit_code == 0
    meant = {concept: {w for w, j in found[concept]["words"].items() if j["verdict"] == "means"} for concept in found}
    assert {"cat", "kitten"} <= meant["cat"]
    assert {"beer", "lager"} <= meant["beer"]
    assert not {"tiger", "wine", "guitar", "house", "bus", "apple", "rose", "moon"} & (meant["cat"] | meant["beer"])
    assert found["beer"]["words"]["a party"]["verdict"] in ("means", "implies")
    assert json.loads(json.dumps(proof.record())) == proof.record()
    assert "kitten 8/8" in proof.text()


def test_nothing_is_drawn_twice_and_other_lists_share_what_was_drawn(
    config: Config, proof: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.evaluation.words.selection.KINDS", 3)
    monkeypatch.setattr(module, "run", None)  # nothing may be drawn
    again = prove(config, everything=True, budget=None, say=lambda line: None)
    assert again.record() == proof.record()
    one = replace(config, erasure=replace(config.erasure, concepts=config.erasure.concepts[:1]))
    assert prove(one, everything=False, budget=0, say=lambda line: None).record()["concepts"]["cat"]["rate"] == 1


def test_what_a_budget_leaves_out_is_named_once(config: Config, proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.words.selection.KINDS", 3)
    monkeypatch.setattr(module, "run", None)
    more = replace(config, words=replace(config.words, vocabulary=str(Path(config.words.vocabulary))))
    with Path(config.words.vocabulary).open("a") as file:
        file.write("zebra\nanchor\n")
    assert prove(more, everything=True, budget=0, say=lambda line: None).unreached == ("zebra", "anchor")


def test_a_run_takes_what_was_proved_and_a_resume_what_it_began_with(
    config: Config, proof: Proof, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "corpus"))
    steered = with_steps(config)
    settled, line = with_proved_words(steered, store)
    cat, beer = settled.erasure.concepts
    assert "kitten" in cat.proven
    assert "lager" in beer.proven
    assert "party" in beer.proven + beer.implied, "without its article"
    assert "wine" not in cat.proven + cat.implied + beer.proven + beer.implied, "it is preserved"
    assert line.startswith("words     ")
    begun = identity(settled, "source")
    assert begun.digest != identity(steered, "source").digest
    assert identity(as_begun(steered, begun.fields), "source").digest == begun.digest


def test_what_the_list_says_of_a_word_by_hand_stands(config: Config, proof: Proof, tmp_path: Path) -> None:
    cat, beer = with_steps(config).erasure.concepts
    cat, beer = replace(cat, proven=["Lager"], ignore=["KITTEN"]), replace(beer, implied=["party"])
    by_hand = replace(with_steps(config), erasure=replace(with_steps(config).erasure, concepts=[cat, beer]))
    settled, _ = with_proved_words(by_hand, open_store(str(tmp_path / "corpus")))
    cat, beer = settled.erasure.concepts
    assert "kitten" not in cat.proven + cat.implied + beer.proven + beer.implied, "it is ignored, in another writing"
    assert cat.proven[0] == "Lager"
    assert "lager" not in cat.proven + beer.proven, "it is proven by hand, of another concept"
    assert beer.implied.count("party") == 1
    assert "party" not in beer.proven


def test_without_a_sweep_a_run_goes_on_unless_one_is_required(config: Config, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "corpus"))
    other = with_steps(replace(config, words=replace(config.words, cache=str(tmp_path / "none"))))
    assert with_proved_words(other, store) == (other, "")
    with pytest.raises(ConfigError, match="lacuna words CONFIG --prove"):
        with_proved_words(replace(other, words=replace(other.words, require=True)), store)


def with_steps(config: Config) -> Config:
    return replace(config, erasure=replace(config.erasure, recipe=[StepConfig(method="cease")]))


def test_another_way_of_sampling_or_looking_is_another_cache(config: Config, tmp_path: Path) -> None:
    url = WordCache(config, "cache").url
    assert WordCache(replace(config, seed=5), "cache").url == url
    other = replace(config, generation=replace(config.generation, steps=5))
    assert WordCache(other, "cache").url != url
    (eye,) = config.audit.detectors
    strict = replace(config, audit=replace(config.audit, detectors=[replace(eye, thresholds={"cat": 0.9})]))
    assert WordCache(strict, "cache").url != url
    weights = tmp_path / "weights.bin"
    eye = replace(eye, options={"weights": str(weights)})
    looking = replace(config, audit=replace(config.audit, detectors=[eye]))
    weights.write_bytes(b"one")
    before = WordCache(looking, "cache").url
    assert WordCache(looking, "cache").url == before
    weights.write_bytes(b"two")
    assert WordCache(looking, "cache").url != before


def test_nothing_listed_and_nobody_who_looks_are_refused(config: Config) -> None:
    for changed, key in (
        (replace(config, erasure=replace(config.erasure, concepts=[])), "erasure.concepts"),
        (replace(config, audit=replace(config.audit, detectors=[])), "audit.detectors"),
    ):
        with pytest.raises(ConfigError, match=key):
            prove(changed, everything=False, budget=None, say=lambda line: None)


@pytest.mark.parametrize(
    ("word", "text"),
    [("cat", "a cat"), ("apple", "an apple"), ("a war", "a war"), ("Two cats", "Two cats"), ("猫", "猫"), ("42", "42")],
)
def test_a_word_gets_an_article_unless_it_has_one(word: str, text: str) -> None:
    assert with_article(word) == text
    assert Question(word, 0).prompt == text
    assert Question(word, 1).prompt == f"a photo of {text}"
    assert Question(word, 0).seed != Question(word, 1).seed


def test_what_is_for_a_sweep_is_refused_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.replace("CACHE", str(tmp_path / "cache")))
    (tmp_path / "words.txt").write_text("# none\n")
    config = str(tmp_path / "config.yaml")
    assert main(["words", config, "--budget", "5"]) == 2
    assert capsys.readouterr().err == "lacuna: --budget is for --prove\n"
    assert main(["words", config, "--prove"]) == 2
    where = tmp_path / "words.txt"
    assert capsys.readouterr().err == f"lacuna: words.vocabulary: {where}: has no words; expected a word a line\n"


def test_what_was_found_is_written_as_a_list(config: Config, proof: Proof) -> None:
    cat, beer = yaml.safe_load(as_list(config, proof))["concepts"]
    assert cat["name"] == "cat"
    assert "kitten" in cat["aliases"]
    assert beer["preserve"] == ["wine"]
    assert "lager" in beer["aliases"]
