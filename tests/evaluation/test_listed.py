"""A world that a config lists: its words, boxes as places on the grid of cells, and recipes evaluated in it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.audit.detector import Detector, Sight
from pipeline.cli import main
from pipeline.concepts.concept import Concept
from pipeline.config.concepts import concepts_of
from pipeline.config.sections.audit import DetectorConfig
from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.world import canonical
from pipeline.errors import ConfigError
from pipeline.evaluation.erasure.config import load_evaluation, run_config, settings, world_of
from pipeline.evaluation.erasure.prompts import KEPT, LEAKS, Task, questions
from pipeline.evaluation.listed import Judges, Listed, ListedConfig, cells
from tests import tiny_eyes

CAT = Concept(name="cat", aliases=("kitten",), preserve=("tiger", "dog"))
CONFIG = """
model: {path: diorama, dtype: float32}
world: listed
listed:
  size: [64, 64]
  judges: [{detector: "tests.evaluation.test_listed:Boxed"}]
  families: {fruit: [apple, banana], rides: [bus, car]}
  synonyms: {cat: [kitty]}
  places: [on the beach, in the snow]
tasks:
  one object:
    concepts: [{name: cat, aliases: [kitten], anchor: dog, preserve: [tiger, dog]}]
recipes:
  uce: [{method: uce}]
generation: {steps: 4, batch_size: 8}
cell: 2
timing: {repeats: 0}
"""


class Boxed(Detector):
    """Detector A of the diorama with a box round the cells in which it sees a thing."""

    def __init__(self, device: str):
        self.model = DioramaDetector.load("a", device=device)

    def knows(self, term: str) -> bool:
        return canonical(term) in self.model.classes

    def threshold(self, term: str) -> float:
        return 0.5

    def score(self, images: np.ndarray, terms) -> np.ndarray:
        return self.see(images, terms).scores

    def see(self, images: np.ndarray, terms) -> Sight:
        scores, maps = (found.cpu().numpy() for found in self.model.see(torch.from_numpy(images)))
        columns = [self.model.classes.index(canonical(term)) for term in terms]
        boxes = np.full((len(images), len(terms), 4), np.nan, np.float32)
        for i, t in np.ndindex(boxes.shape[:2]):
            down, across = np.nonzero(maps[i, columns[t]] >= 0.5)
            if len(down):
                boxes[i, t] = 8 * np.array([across.min(), down.min(), across.max() + 1, down.max() + 1])
        return Sight(scores[:, columns], boxes)


def listed(*judges: DetectorConfig, **words) -> ListedConfig:
    return ListedConfig(judges=list(judges) or [DetectorConfig(detector=f"{__name__}:Boxed")], size=[64, 64], **words)


def test_a_box_lies_in_the_cells_that_it_touches():
    boxes = np.array(
        [[[8, 0, 16, 8], [7.9, 8, 8.1, 23], [np.nan] * 4], [[-3, -3, 99, 99], [5, 5, 5, 5], [0, 39, 1, 40]]]
    )
    found = cells(boxes.astype(np.float32), 40, 24)
    assert found.shape == (2, 3, 5, 3)
    where = [[np.argwhere(found[i, t]).tolist() for t in range(3)] for i in range(2)]
    assert where[0] == [[[0, 1]], [[1, 0], [1, 1], [2, 0], [2, 1]], []]
    assert len(where[1][0]) == 15
    assert where[1][1:] == [[[0, 0]], [[4, 0]]]


def test_a_thing_is_where_the_diorama_says_that_it_is():
    """The box round A's own cells, laid on the grid, is the box that scores are reckoned outside of."""
    judge = Judges(Listed(listed(), [CAT]), "cpu")
    images = torch.from_numpy(tiny_eyes.pictures(6, 64, 64))
    scores, places = judge.see(images)
    world, a = judge.world, DioramaDetector.load("a", device="cpu")
    assert scores.shape == (6, len(world.classes))
    assert places.shape == (6, len(world.objects), 8, 8)
    assert set(judge.thresholds) == set(world.classes)
    expected, maps = a.see(images)
    for column, name in enumerate(world.objects):
        own = a.classes.index(name)
        assert torch.equal(scores[:, column], expected[:, own])
        for i in range(6):
            seen = np.argwhere((maps[i, own] >= 0.5).numpy())
            inside = np.argwhere(places[i, column].numpy())
            assert len(seen) == 0 or (seen.min(0) == inside.min(0)).all()
            assert len(seen) == 0 or (seen.max(0) == inside.max(0)).all()
            assert bool(len(seen)) == bool(len(inside))


def test_owl_tells_places_and_a_classifier_tells_none(tmp_path: Path):
    owl = DetectorConfig(
        detector="open_vocabulary", options={"model": str(tiny_eyes.owl(tmp_path / "owl"))}, concepts=["cat", "dog"]
    )
    clip = DetectorConfig(detector="clip", options={"model": str(tiny_eyes.clip(tmp_path / "clip"))})
    world = Listed(listed(owl, clip, synonyms={"cat": ["kitty"]}), [CAT])
    judge = Judges(world, "cpu")
    assert [[str(term) for term in eye.terms] for eye in judge.eyes] == [["cat", "dog"], ["tiger"]]
    assert judge.eyes[0].terms[0].words == ("cat", "kitten", "kitty"), "asked by all its words"
    images = tiny_eyes.pictures(3, 64, 64)
    scores, places = judge.see(torch.from_numpy(images))
    sight = judge.eyes[0].see(images)
    columns = [world.objects.index(name) for name in ("cat", "dog")]
    assert np.array_equal(scores[:, columns], sight.scores)
    assert np.array_equal(places[:, columns].numpy(), cells(sight.boxes, 64, 64).astype(np.float32))
    assert places[:, columns].any()
    assert not places[:, world.objects.index("tiger")].any()
    digest = world.judge_digest()
    assert Listed(listed(owl, clip, synonyms={"cat": ["kitty"]}), [CAT]).judge_digest() == digest
    strict = DetectorConfig(**{**vars(clip), "thresholds": {"tiger": 0.9}})
    assert Listed(listed(owl, strict), [CAT]).judge_digest() != digest


def test_its_words_are_those_of_the_tasks_and_of_the_config():
    words = {
        "families": {"felines": ["tiger", "lion"], "rides": ["bus"]},
        "synonyms": {"cat": ["kitty"]},
        "implied": {"a cat café": ["cat"], "a zoo": ["tiger", "cat"]},
        "styles": {"sketch": ["a sketch of {}", "{}, drawn in pencil"]},
    }
    world = Listed(listed(**words), [CAT])
    assert world.objects == ("tiger", "lion", "bus", "cat", "dog")
    assert world.classes == (*world.objects, "sketch")
    assert [world.canonical(word) for word in ("Cat", "kitten", "kitty", "whale")] == ["cat", "cat", "cat", None]
    assert world.indefinite("apple") == "an apple"
    assert world.style_phrases("sketch") == words["styles"]["sketch"]
    asked = questions(Task("one", (CAT,), world), 4, 0)
    by_cell = {cell: {q.prompt for q in asked if q.cell == cell} for cell in {q.cell for q in asked}}
    assert {"plain", "alias", "synonym", "implied", "neighbour", "unrelated", "beside unrelated"} <= set(by_cell)
    assert all(prompt.startswith("a zoo ") for prompt in by_cell["implied"]), "a cat café names it"
    assert {q.kept for q in asked if q.cell == "neighbour"} == {"tiger", "dog"}
    assert {q.kept for q in asked if q.cell == "unrelated"} <= {"lion", "bus"}


@pytest.mark.slow
def test_recipes_are_evaluated_and_what_changed_outside_is_measured(tmp_path: Path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    out = tmp_path / "out"
    assert main(["evaluate", "erasure", str(tmp_path / "c.yaml"), "-o", str(out)]) == 0
    found = json.loads((out / "scores.json").read_text())
    uce = found["tasks"]["one object"]["recipes"]["uce"]
    before = found["tasks"]["one object"]["recipes"]["none"]
    assert before["leak"]["plain"]["hits"] == 2
    assert uce["leak"]["plain"]["hits"] == 0
    assert 10 < uce["outside"]["value"] < 60  # dB
    assert "judged by tests.evaluation.test_listed:Boxed" in (out / "report.html").read_text()
    config = load_evaluation(tmp_path / "c.yaml")
    assert run_config(config, "one object", "uce").generation.pixels == (64, 64)
    other = load_evaluation(tmp_path / "c.yaml", ["listed.families.fruit=[apple]"])
    assert settings(other) != settings(config), "its columns are others, so another folder is asked for"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("listed.judges=[]", "listed.judges: is empty; expected detectors"),
        ("listed.judges=[{detector: open_vocabulry}]", "unknown detector 'open_vocabulry' (did you mean"),
        ("listed.judges=[{detector: diorama, role: witness}]", "listed.judges[0].role: is witness; expected a judge"),
        ("listed.size=[64, 60]", "listed.size: is [64, 60]; expected width and height, multiples of 8"),
        ("listed.synonyms={ct: [kitty]}", "listed.synonyms.ct: 'ct' is no object of this world (did you mean 'cat'?)"),
        ("listed.synonyms={cat: [apple]}", "listed.synonyms.cat: 'apple' is a word for 'apple'; expected words for it"),
        ("listed.synonyms={bus: [Kitten]}", "listed.synonyms.bus: 'Kitten' is a word for 'cat'; expected words for it"),
        ("listed.families={a: []}", "listed.families.a: is []; expected names of objects"),
        ("listed.families={a: ['']}", "listed.families.a: is ['']; expected names of objects"),
        ("listed.families={a: [van], b: [Van]}", "listed.families.b: 'Van' is in 'a' already"),
        ("listed.places=[]", "listed.places: is []; expected texts"),
        ("listed.styles={sketch: [a sketch]}", "listed.styles.sketch: 'a sketch': expected {} once"),
        ("world=diorama", "listed: is for `world: listed`, and world is 'diorama'"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, capsys, override: str, message: str):
    (tmp_path / "c.yaml").write_text(CONFIG)
    assert main(["evaluate", "erasure", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "out"), override]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_class_without_a_judge_is_refused():
    world = Listed(listed(families={"more": ["submarine"]}), [CAT])
    with pytest.raises(ConfigError, match=r"^listed\.judges: .*:Boxed cannot judge submarine; add one that can$"):
        world.judge("cpu")


def test_the_shipped_config_is_a_world_without_loading_its_judge():
    config = load_evaluation("configs/evaluation/photographs.yaml")
    world = world_of(config)
    concepts = concepts_of(run_config(config, "one object", "uce").erasure)
    cells = {question.cell for question in questions(Task("one object", concepts, world), 2, 0)}
    assert cells == {*LEAKS, *KEPT} - {"scene"}
