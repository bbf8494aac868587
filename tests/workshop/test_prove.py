"""Words are proved by drawing: what the diorama draws of them is found, killed or not, and a run acts on it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.config import identity, load_config
from pipeline.config.schema import Audited, ConceptConfig, Config, OutputConfig, StepConfig
from pipeline.config.sections.audit import DetectorConfig, Policy, QualityConfig, Role
from pipeline.corpus import finish, open_store, read_run_record, verify
from pipeline.corpus.words import WordTable, read_words
from pipeline.errors import ConfigError, CorpusError
from pipeline.evaluation.words.budget import Budget
from pipeline.evaluation.words.cache import WordCache
from pipeline.evaluation.words.judge import look_again
from pipeline.evaluation.words.questions import Question, read_questions, with_article
from pipeline.evaluation.words.settle import with_proved_words
from pipeline.models.settle import as_begun, settle
from pipeline.run import RunOutcome, run
from pipeline.workshop import drawing
from pipeline.workshop.prove import Proof, as_list, draw, prove
from pipeline.workshop.words_page import WordsPage

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
NOTHING = Budget(pictures=0)


def quiet(line: str) -> None:
    """What is said is not looked at."""


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
        return prove(config, everything=True, budget=None, price=None, say=quiet)


def test_synonyms_and_scenes_are_found_and_neighbours_are_not(proof: Proof) -> None:
    found = proof.record()["concepts"]
    assert proof.exit_code == 0
    meant = {concept: {w for w, j in found[concept]["words"].items() if j["verdict"] == "means"} for concept in found}
    assert {"cat", "kitten"} <= meant["cat"]
    assert {"beer", "lager"} <= meant["beer"]
    assert not {"tiger", "wine", "guitar", "house", "bus", "apple", "rose", "moon"} & (meant["cat"] | meant["beer"])
    assert found["beer"]["words"]["a party"]["verdict"] in ("means", "implies")
    assert json.loads(json.dumps(proof.record())) == proof.record()
    assert "kitten 8/8" in proof.text(120)


def test_nothing_is_drawn_twice_and_other_lists_share_what_was_drawn(
    config: Config, proof: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.evaluation.words.selection.KINDS", 3)
    monkeypatch.setattr(drawing, "run", None)  # nothing may be drawn
    again = prove(config, everything=True, budget=None, price=None, say=quiet)
    assert again.record() == proof.record()
    one = replace(config, erasure=replace(config.erasure, concepts=config.erasure.concepts[:1]))
    assert prove(one, everything=False, budget=NOTHING, price=None, say=quiet).record()["concepts"]["cat"]["rate"] == 1


def test_what_a_budget_leaves_out_is_named_once(config: Config, proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.words.selection.KINDS", 3)
    monkeypatch.setattr(drawing, "run", None)
    more = replace(config, words=replace(config.words, vocabulary=str(Path(config.words.vocabulary))))
    with Path(config.words.vocabulary).open("a") as file:
        file.write("zebra\nanchor\n")
    assert prove(more, everything=True, budget=NOTHING, price=None, say=quiet).unreached == ("zebra", "anchor")


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


def test_the_table_goes_with_the_corpus_and_run_yaml_pins_it(
    config: Config, proof: Proof, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat, beer = with_steps(config).erasure.concepts
    listed = replace(with_steps(config).erasure, concepts=[replace(cat, proven=["moggy"]), beer])
    begun = replace(with_steps(config), erasure=listed, output=OutputConfig(path=str(tmp_path / "corpus")))
    assert run(begun).exit_code == 0
    store = open_store(begun.output.path)
    record = read_run_record(store)
    assert record is not None
    assert record.words is not None
    assert record.config["erasure"]["concepts"][0]["proven"] == ["moggy", *record.words["proven"]["cat"]]
    table = read_words(store, record.words)
    assert table is not None
    (row,) = [row for row in table.rows if (row.word, row.concept) == ("kitten", "cat")]
    assert (row.hits, row.pictures, row.verdict) == (8, 8, "means")
    assert {row.word for row in table.rows} == {*proof.words}, "what is left alone too"
    assert verify(begun.output.path) == []
    card = store.read("README.md").decode()
    assert "its pictures show it at least half as often as those of the concept's name" in card
    assert f"kitten 8/8 ({100 * row.low:.0f} to 100 %)" in card
    assert record.words["file"] in card
    assert "kitten" in store.read("report.html").decode()
    assert run(begun).exit_code == 0, "gone on with as it was begun"
    for concept, told in ((cat, r'\["moggy", .*\] -> \[(?!"moggy")'), (replace(cat, proven=["moggy", "mog"]), ".*mog")):
        changed = replace(begun, erasure=replace(listed, concepts=[concept, beer]))
        with pytest.raises(ConfigError, match=r"holds another corpus .*concepts\[0\]\.proven: " + told):
            run(changed)
    (tmp_path / "corpus" / record.words["file"]).write_bytes(b"cut")
    fault = f"{record.words['file']}: sha256 is not the one pinned in run.yaml"
    assert verify(begun.output.path) == [fault]
    assert finish(begun.output.path).damaged == [fault]


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


def test_another_way_of_sampling_is_another_cache_and_another_way_of_looking_another_eye(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = WordCache(config)
    assert WordCache(replace(config, seed=5)).url == here.url
    other = replace(config, generation=replace(config.generation, steps=5))
    assert WordCache(other).url != here.url
    (eye,) = config.audit.detectors
    strict = WordCache(with_eye(config, replace(eye, thresholds={"cat": 0.9})))
    assert (strict.url == here.url, strict.eye == here.eye) == (True, False)
    dropping = WordCache(replace(config, audit=replace(config.audit, policy=Policy.drop)))
    assert dropping.eye == here.eye
    measuring = WordCache(replace(config, audit=replace(config.audit, quality=[QualityConfig(measure="hash")])))
    assert (measuring.url, measuring.eye, measuring.config.audit.quality) == (here.url, here.eye, [])
    (tmp_path / "my_eye_of_words.py").write_text(EYE.format(weights=str(tmp_path / "weights.bin")))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"one")
    (tmp_path / "option.bin").write_bytes(b"one")
    own = replace(eye, detector="my_eye_of_words:Eye", options={"weights": str(tmp_path / "option.bin")})
    looking = with_eye(config, own)
    before = WordCache(looking).eye
    assert WordCache(looking).eye == before
    (tmp_path / "weights.bin").write_bytes(b"two")
    after = WordCache(looking).eye
    assert after != before, "a file that only the detector knows of"
    (tmp_path / "option.bin").write_bytes(b"two")
    assert WordCache(looking).eye != after, "a file that an option names"


def with_eye(config: Config, eye: DetectorConfig) -> Config:
    return replace(config, audit=replace(config.audit, detectors=[eye]))


EYE = """
from pathlib import Path
from pipeline.audit.detector import Detector

class Eye(Detector):
    def __init__(self, device, weights: str = ""):
        self.weights = weights
    def files(self):
        return [Path({weights!r})]
    def knows(self, term):
        return True
    def threshold(self, term):
        return 0.5
    def score(self, images, terms):
        raise AssertionError("nothing is looked at")
"""


def test_a_list_with_another_concept_looks_at_what_is_there_and_an_interrupted_sweep_is_gone_on_with(
    config: Config, proof: Proof, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a sweep of another list had been killed before its last shard was committed."""
    monkeypatch.setattr("pipeline.evaluation.words.selection.KINDS", 3)
    copy = Path(shutil.copytree(config.words.cache, tmp_path / "cache"))
    (copy / Path(WordCache(config).url).name).rename(copy / "kept")
    monkeypatch.setattr("pipeline.evaluation.words.cache.SHARD", 8)
    begun = replace(config, words=replace(config.words, cache=str(copy)))
    words = ["cat", "beer"]
    draw(WordCache(begun), words, None, None, quiet)
    sweep = max(sweeps_in(copy), key=lambda path: len(list((path / "commits").iterdir())))
    last = max((sweep / "commits").iterdir())
    for path in (last, sweep / "train" / f"{last.stem}.tar", sweep / "manifests" / f"{last.stem}.parquet"):
        path.unlink()
    guitar = ConceptConfig(name="guitar", anchor="violin")
    more = replace(begun, erasure=replace(begun.erasure, concepts=[*begun.erasure.concepts, guitar]))
    cache = WordCache(more)
    look_again(cache, "cpu", quiet)
    ((left, asked),) = cache.unfinished(cache.tally())
    assert left.output.path == str(sweep)
    assert 0 < len(asked) <= 8
    sweeps, runs = sweeps_in(copy), []

    def counted(sweep: Config, **options: bool) -> RunOutcome:
        runs.append(sweep.output.path)
        return run(sweep, **options)

    monkeypatch.setattr(drawing, "run", counted)
    found = draw(cache, words, None, None, quiet)
    assert runs[0] == str(sweep), "it is gone on with"
    assert last.exists()
    new = sweeps_in(copy) - sweeps
    drawn = {row.question.word for part in cache.parts() if Path(part.store.url) in new for row in part.rows}
    assert drawn == {"guitar"}, "all else was there, and had only to be looked at"
    assert found.record()["concepts"]["guitar"]["rate"] == 1
    monkeypatch.setattr(drawing, "run", None)
    one = WordCache(replace(more, erasure=replace(more.erasure, concepts=[guitar])))
    assert not one.unjudged(), "what is looked for belongs to each concept alone"
    assert draw(one, words, None, None, quiet).record()["concepts"]["guitar"]["rate"] == 1


def sweeps_in(cache: Path) -> set[Path]:
    return {path.parent for path in cache.glob("*/sweeps/*/*/run.yaml")}


def test_what_is_gone_from_the_cache_is_named(config: Config, proof: Proof, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(config.words.cache, tmp_path / "cache"))
    guitar = ConceptConfig(name="guitar")
    other = replace(
        config, words=replace(config.words, cache=str(copy)), erasure=replace(config.erasure, concepts=[guitar])
    )
    for tar in copy.glob("*/sweeps/*/*/train/000000.tar"):
        tar.unlink()
    with pytest.raises(CorpusError, match=r"train/000000\.tar: is missing; delete .*, and its words are drawn anew"):
        look_again(WordCache(other), "cpu", quiet)


def test_before_anything_is_drawn_it_says_what_that_will_take(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(drawing, "run", lambda sweep, **options: RunOutcome(exit_code=130, failed=(), message="halt"))
    cache = WordCache(replace(config, words=replace(config.words, cache=str(tmp_path))))
    stopped = draw(cache, ["cat", "beer", "bus"], Budget(hours=0.5), 2.0, said.append)
    words, pictures, time, cost, budget, halt = said
    assert (words, halt) == ("words     3, of which 3 lack pictures", "halt")
    assert pictures == "pictures  17 in the first round; of words that stay open up to 8 each"
    pace = float(time.partition("(")[2].partition(" s per image")[0])
    assert time.startswith("time      about ")
    assert re.fullmatch(r"cost      about [\d.e-]+ worker-hours, [\d.]+ at 2 per worker and hour", cost)
    number = int(budget.split()[1].replace(",", ""))
    assert number == pytest.approx(1800 / pace, rel=0.01)
    assert (stopped.exit_code, stopped.unreached) == (130, ())


def test_of_what_no_detector_looks_for_nothing_is_drawn(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.evaluation.words.selection.KINDS", 3)
    sweeps: list[Config] = []

    def halt(sweep: Config, **options: bool) -> RunOutcome:
        sweeps.append(sweep)
        return RunOutcome(exit_code=130, failed=(), message="halt")

    monkeypatch.setattr(drawing, "run", halt)
    unicorn = ConceptConfig(name="unicorn", aliases=["monoceros"], preserve=["rhino"])
    free = ConceptConfig(name="beer", aliases=["stout"], audit=Audited.none)
    listed = replace(config.erasure, concepts=[config.erasure.concepts[0], unicorn, free])
    excused = replace(config.audit, unjudged=["unicorn"])
    words = replace(config.words, cache=str(tmp_path))
    found = prove(
        replace(config, erasure=listed, audit=excused, words=words),
        everything=False, budget=None, price=None, say=quiet,
    )  # fmt: skip
    (sweep,) = sweeps
    asked = {question.word for question in read_questions(Path(str(sweep.prompts.source)).read_bytes())}
    assert "cat" in asked
    assert not asked & {"unicorn", "monoceros", "rhino", "beer", "stout"}
    for name in ("unicorn", "beer"):
        assert f"{name}: no detector looks for it, so it is not drawn" in found.text(1000)
    none = replace(config.erasure, concepts=[free])
    witness = replace(config.audit, detectors=[replace(config.audit.detectors[0], role=Role.witness)])
    with pytest.raises(ConfigError, match=r"^audit\.detectors"):
        prove(replace(config, erasure=none, audit=witness), everything=False, budget=None, price=None, say=quiet)


def test_nothing_listed_and_nobody_who_looks_are_refused(config: Config) -> None:
    for changed, key in (
        (replace(config, erasure=replace(config.erasure, concepts=[])), "erasure.concepts"),
        (replace(config, audit=replace(config.audit, detectors=[])), "audit.detectors"),
    ):
        with pytest.raises(ConfigError, match=key):
            prove(changed, everything=False, budget=None, price=None, say=quiet)


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


def test_of_what_no_detector_looks_for_nothing_is_said_to_be_seen(config: Config, proof: Proof, tmp_path: Path) -> None:
    cat, beer = config.erasure.concepts
    concepts = [cat, replace(beer, audit=Audited.none)]
    steps = [StepConfig(method="cease", concepts=["cat"])]
    free = replace(config, erasure=replace(config.erasure, concepts=concepts, recipe=steps))
    found = draw(WordCache(free), ["cat", "beer"], None, None, quiet)
    assert "beer: no detector looks for it, so it is not drawn" in found.text(1000)
    assert list(found.record()["concepts"]) == ["cat"]
    begun, line = with_proved_words(free, open_store(str(tmp_path / "corpus")))
    assert line.endswith("; no detector looks for beer")
    assert "not provable" not in line
    assert begun.proved is not None
    assert {row.concept for row in WordTable.loads(begun.proved.table).rows} == {"cat"}
    assert "No detector looks for it." in WordsPage(free).html(live=False)
