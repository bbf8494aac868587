"""The page of words shows what is known of each, with pictures of those that were drawn, and saves a list."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from pipeline.cli import main
from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.evaluation.words.cache import WordCache
from pipeline.models.settle import settle
from pipeline.workshop.prove import draw
from pipeline.workshop.words_page import WordsPage

pytestmark = pytest.mark.slow

CONFIG = """
model: {path: diorama, scheduler: UniPCMultistepScheduler}
erasure:
  concepts:
    - {name: cat, aliases: [tabby], preserve: [tiger], keep: [cat burglar], ignore: [puma]}
    - {name: beer, preserve: [pussycat]}
  recipe: [{method: cease}]
words: {vocabulary: words.txt, cache: CACHE, pictures: 8}
prompts: {template: "a {thing}", values: {thing: [dog]}}
generation: {steps: 4, size: [64, 64], batch_size: 16}
audit: {detectors: [{detector: diorama}], policy: keep}
output: {path: out}
cluster: {backend: local}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "words.txt").write_text("kitten\nlager\ntiger\nguitar\n<b>\nhouse cat\n")
    (folder / "config.yaml").write_text(CONFIG.replace("CACHE", str(folder / "cache")))
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def page(path: Path) -> WordsPage:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.evaluation.words.verdict.ROUNDS", 1)
        config = settle(load_config(path))
        assert draw(WordCache(config), ["cat", "beer", "kitten", "tiger"], None, None, lambda line: None).exit_code == 0
        return WordsPage(config)


def test_each_word_is_shown_with_what_became_of_it(page: WordsPage) -> None:
    cat, beer = page.shown
    words = {shown.word: shown for shown in (*cat.acted_on, *cat.others)}
    assert (words["tabby"].choice, words["tabby"].became) == ("means", "listed; not drawn")
    assert (words["kitten"].choice, words["kitten"].became[:24]) == ("means", "proved by its pictures; ")
    assert words["puma"].choice == "leave"
    assert (words["tiger"].fixed, words["cat burglar"].fixed, words["kitten"].fixed) == (True, True, False)
    assert "0 of 8 pictures show it" in words["tiger"].became
    assert re.fullmatch(r"in the dictionary; the gate acts on it \(means, 0\.\d\d\); not drawn", words["tomcat"].became)
    assert words["tomcat"] in cat.acted_on
    assert words["guitar"].became == "near; not drawn"
    assert words["guitar"] in cat.others
    assert words["tomcat"].sense is not None
    assert words["tomcat"].sense.gloss.startswith("male cat")
    assert words["guitar"].choice == ""
    assert "house cat" not in words, "the list finds it already"
    assert words["kitten"].score > words["guitar"].score
    assert (len(words["kitten"].pictures), len(cat.pictures), len(words["tiger"].pictures)) == (4, 4, 0)
    assert beer.said == "Its own name shows it in 8 of 8 pictures."


def test_the_report_has_what_pictures_proved_and_the_page_what_its_gate_acts_on(
    page: WordsPage, path: Path, tmp_path: Path, capsys
) -> None:
    assert main(["words", str(path), f"output.path={tmp_path}/out", "words.require=true", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["concepts"][0]["proven"] == ["kitten"]
    assert any(concept["too_near"] for concept in report["concepts"])
    for concept, shown in zip(report["concepts"], page.shown, strict=True):
        rows = {row.word: row for row in (*shown.acted_on, *shown.others)}
        acts_on = [own for own in concept["gate"] if own["became"] != "leave"]
        assert acts_on
        for own in acts_on:
            gated = f"the gate acts on it ({own['became']}, {round(1000 * own['score']) // 10 / 100:.2f}"
            assert rows[own["word"]].choice or rows[own["word"]].gated.startswith(gated)
            if own["word"] in concept["too_near"]:
                assert rows[own["word"]].gated.endswith(", too near)")


def test_only_a_page_that_is_served_lets_words_be_moved(page: WordsPage) -> None:
    still, live = page.html(live=False), page.html(live=True)
    assert "<script" not in still
    assert "<input" not in still
    assert 'fieldset data-word="kitten"' in live
    assert re.search(r'value="means" checked>means', live)
    assert 'fieldset data-word="cat burglar"' not in live
    for text in (still, live):
        assert "<b>&lt;b&gt;</b>" in text, "a word is text"
        assert not re.search(r'(?:src|href)="(?!data:)', text), "nothing comes from elsewhere"


def test_what_is_saved_is_a_list(page: WordsPage, tmp_path: Path) -> None:
    choices = [
        {"concept": "cat", "word": "kitten", "choice": "means"},
        {"concept": "cat", "word": "guitar", "choice": "implies"},
    ]
    said = page.save(tmp_path / "list.yaml", choices)
    assert said == f"saved to {tmp_path}/list.yaml: 1 words mean a concept, 1 imply one, 0 are left alone"
    cat, beer = yaml.safe_load((tmp_path / "list.yaml").read_text())["concepts"]
    assert (cat["aliases"], cat["implied"], cat["keep"]) == (["kitten"], ["guitar"], ["cat burglar"])
    assert beer == {"name": "beer", "preserve": ["pussycat"]}
    with pytest.raises(ConfigError, match="'tiger' is no word of 'cat' on this page"):
        page.save(tmp_path / "list.yaml", [{"concept": "cat", "word": "tiger", "choice": "leave"}])
    assert "guitar" in (tmp_path / "list.yaml").read_text(), "what was saved stands"


def test_a_page_of_no_concepts_is_refused_in_a_line(path: Path, tmp_path: Path, capsys) -> None:
    empty = ["erasure.concepts=[]", "erasure.recipe=[]"]
    assert main(["words", str(path), *empty, "--page", str(tmp_path / "page.html")]) == 2
    expected = "lacuna: erasure.concepts: is empty; expected the concepts whose words are to be shown\n"
    assert capsys.readouterr().err == expected


def test_a_still_page_is_written_also_where_nothing_is_drawn_and_the_gpu_is_not_here(
    path: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    elsewhere = ["cluster.device=cuda", "model.dtype=float32", f"words.cache={tmp_path}/none"]
    arguments = ["words", str(path), *elsewhere, "--page", str(tmp_path / "page.html")]
    assert main(arguments) == 0
    assert "No words are drawn for this list" in (tmp_path / "page.html").read_text()
    for more, told in (
        (["--write", "x.yaml"], "--write is for a page that is served"),
        (["--json"], "--json is not for --page"),
        (["--prove"], "--page shows what is drawn, and --prove draws"),
        (["--budget", "2h"], "--budget is for --prove"),
        (["--price", "2"], "--price is for --prove"),
    ):
        assert main([*arguments, *more]) == 2
        assert told in capsys.readouterr().err
