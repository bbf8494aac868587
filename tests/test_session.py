"""Whoever prepares first decides: what becomes of starts that overlap, and which model a pinned run is drawn with."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import constants

from pipeline.audit.detector import Detector
from pipeline.audit.measure import Measure
from pipeline.config.schema import Backend, BadRows, ConceptConfig, Config, ErasureConfig, StepConfig
from pipeline.config.sections.audit import DetectorConfig, Policy, QualityConfig
from pipeline.corpus import RunRecord, open_store
from pipeline.errors import ConfigError
from pipeline.pairs import draw_evidence
from pipeline.prompts import Plan, open_source
from pipeline.run import run
from pipeline.session import Session, prepare
from pipeline.worker import Worker
from tests import rivals, tiny, tiny_families
from tests.erasure.conftest import uce_step
from tests.progress import Lines

COMMITS = ("a" * 40, "b" * 40)


def configure(folder: Path, *steps: StepConfig, model: str | None = None) -> Config:
    (folder / "prompts.txt").write_text("a photo of a cat\n")
    concept = ConceptConfig(name="cat", aliases=["kitten"], anchor="dog", preserve=["tiger", "lion"])
    config = tiny.config(model or tiny.path(), erasure=ErasureConfig(concepts=[concept], recipe=list(steps)))
    config.prompts.source, config.output.path = str(folder / "prompts.txt"), str(folder / "corpus")
    config.audit.detectors = []
    return config


def plan(config: Config) -> Plan:
    return Plan.build(config, open_source(config.prompts))


def start(config: Config) -> RunRecord:
    return prepare(Session(config, device="cpu"), plan(config).summary())


def overtaken(folder: Path) -> Config:
    return configure(folder, StepConfig(method="tests.rivals:OvertakenUCE", options=uce_step().options))


@pytest.mark.slow
def test_of_two_configs_on_one_new_path_the_later_is_refused(tmp_path: Path):
    first, second = overtaken(tmp_path), overtaken(tmp_path)
    first.seed, second.seed = 1, 2
    rivals.meanwhile.append(lambda: start(first))
    with pytest.raises(ConfigError, match=r"corpus: holds another corpus \(seed: 1 -> 2\); choose another output.path"):
        start(second)
    assert start(first).config["seed"] == 1


@pytest.mark.slow
def test_of_two_starts_at_once_the_recipe_that_was_pinned_stays(tmp_path: Path):
    config = overtaken(tmp_path)
    pinned: list[RunRecord] = []
    rivals.meanwhile.append(lambda: pinned.append(start(config)))
    store = open_store(config.output.path)
    assert start(config) == pinned[0]
    assert len(list(store.list("recipe"))) == 2  # the edits came out otherwise
    Session(config).pinned_recipe(pinned[0])  # raises where its bytes are not those pinned


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a hub that has two commits of a model, of which the first is ``main``."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--somebody--tiny"
    for commit in COMMITS:
        shutil.copytree(tiny.path(), model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMITS[0])
    return model


def test_a_run_goes_on_with_the_commit_it_was_begun_with(tmp_path: Path, hub: Path):
    config = configure(tmp_path, model="somebody/tiny")
    record = start(config)
    assert record.model_revision == COMMITS[0]
    (hub / "refs" / "main").write_text(COMMITS[1])
    session = Session(config, device="cpu")
    session.pin(record)
    assert session.model.revision == COMMITS[0]
    shutil.rmtree(hub / "snapshots" / COMMITS[1])  # the pairs need nothing of it either
    draw_evidence(Session(config, device="cpu"), record, plan(config).shard(0).samples)


def test_a_folder_that_has_changed_is_refused(tmp_path: Path):
    folder = Path(shutil.copytree(tiny.path(), tmp_path / "model"))
    config = configure(tmp_path, model=str(folder))
    record = start(config)
    settings = folder / "scheduler" / "scheduler_config.json"
    settings.write_text(settings.read_text().replace("0.012", "0.013"))
    with pytest.raises(ConfigError, match=r"but the corpus was begun with sha256:\w+; put back the files"):
        Worker(Session(config, device="cpu"), record)


def asking(folder: Path, **row: object) -> Config:
    """Two rows, of which the second asks for something of its own."""
    config = configure(folder)
    rows = [{"prompt": "a photo of a dog"}, {"prompt": "a photo of a cat", **row}]
    config.prompts.source = str(folder / "prompts.jsonl")
    Path(config.prompts.source).write_text("\n".join(map(json.dumps, rows)))
    return config


def test_a_rows_size_that_the_model_cannot_draw_is_refused_by_its_number(tmp_path: Path):
    config = asking(tmp_path, size="32x4096")
    config.model.path = tiny_families.path("sd3")
    with pytest.raises(ConfigError, match=r"prompts.jsonl: row 2: height 4096 is above \d+, this model's") as told:
        start(config)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "corpus").exists()
    config.prompts.limit = 1  # then that row is not drawn
    assert start(config).samples == 1


def test_a_rows_size_that_the_detector_cannot_judge_is_refused_by_its_number(tmp_path: Path):
    config = asking(tmp_path, size=[128, 128])
    config.audit.detectors, config.generation.size = [DetectorConfig(detector="diorama")], [64, 64]
    with pytest.raises(ConfigError, match=r"prompts.jsonl: row 2: .* cannot judge pictures of 128x128 pixels"):
        start(config)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("family", "guidance", "why"),
    [(None, 1.0, "generation.guidance is 1, and up to 1"), ("flux", 3.5, r"FLUX\.1 takes none: its guidance is")],
)
def test_a_rows_negative_prompt_that_nothing_listens_to_is_refused(
    tmp_path: Path, family: str | None, guidance: float, why: str
):
    config = asking(tmp_path, negative_prompt="blurry")
    config.generation.guidance = guidance
    if family is not None:
        config.model.path = tiny_families.path(family)
    with pytest.raises(ConfigError, match=rf"prompts.jsonl: row 2 has a negative prompt, as 1 of 2 rows, but {why}"):
        start(config)


def test_what_no_worker_could_build_is_refused_before_the_run_is_pinned(tmp_path: Path):
    config = configure(tmp_path, StepConfig(method="negative_prompt"))
    config.generation.guidance = 5.0
    config.erasure.concepts = [ConceptConfig(name=f"a cat number {i}") for i in range(40)]
    with pytest.raises(ConfigError, match="negative_prompt: the names of its 40 concepts are more than"):
        start(config)
    assert not (tmp_path / "corpus" / "run.yaml").exists()
    config.erasure.concepts = config.erasure.concepts[:1]  # another list, and no other corpus in the way
    start(config)


class Eye(Detector):
    """Sees no concept in any picture, through a file of weights."""

    def __init__(self, device: str, weights: str = ""):
        self.weights = weights

    def knows(self, term):
        return True

    def threshold(self, term):
        return 0.5

    def score(self, images, terms):
        return np.zeros((len(images), len(terms)), np.float32)


def watched(folder: Path) -> Config:
    config = configure(folder)
    (folder / "eye.bin").write_bytes(b"as it was")
    config.audit.detectors = [DetectorConfig(detector=f"{__name__}:Eye", options={"weights": str(folder / "eye.bin")})]
    config.audit.policy = Policy.keep
    config.cluster.backend = Backend.local
    return config


def test_a_detectors_weights_are_pinned_and_other_ones_are_refused(tmp_path: Path):
    config = watched(tmp_path)
    record = start(config)
    (pinned,) = record.detectors
    assert pinned["sha256"].startswith("sha256:")
    assert (pinned["name"], pinned["role"]) == (f"{__name__}:Eye", "judge")
    assert (pinned["about"], pinned["thresholds"]) == ({}, {"cat": 0.5})
    session = Session(config, device="cpu")
    session.pin(record)
    assert session.auditor.pinned() == record.detectors
    (tmp_path / "eye.bin").write_bytes(b"changed")
    reason = r"^audit\.detectors\[0\]: weights and code of .*Eye are now sha256:\w+, but the corpus was begun with sha"
    with pytest.raises(ConfigError, match=reason):
        run(config)
    with pytest.raises(ConfigError, match=reason):
        draw_evidence(Session(config, device="cpu"), record, [])
    (tmp_path / "eye.bin").unlink()
    with pytest.raises(ConfigError, match=reason):
        run(config)
    (tmp_path / "eye.bin").write_bytes(b"as it was")
    assert run(config).exit_code == 0
    (tmp_path / "eye.bin").write_bytes(b"changed")
    with pytest.raises(ConfigError, match=reason):
        run(config)  # of a complete corpus too
    config.audit.detectors[0].thresholds = {"cat": 0.4}
    with pytest.raises(ConfigError, match=r"holds another corpus \(audit\.detectors\[0\]\.thresholds: {} -> "):
        run(config)


class Installed(Eye):
    """Cannot be loaded without its weights."""

    def __init__(self, device: str, weights: str = ""):
        if not Path(weights).is_file():
            raise ConfigError("needs a package that is not installed")
        super().__init__(device, weights)


def test_of_a_complete_corpus_detectors_that_cannot_be_asked_what_they_are_are_told(tmp_path: Path):
    config = watched(tmp_path)
    config.audit.detectors[0].detector = f"{__name__}:Installed"
    said = Lines()
    assert run(config, progress=said).exit_code == 0
    assert run(config, progress=said).exit_code == 0
    assert not [line for line in said.lines if "detectors" in line], "they are what they were"
    (tmp_path / "eye.bin").unlink()
    assert run(config, progress=said).exit_code == 0
    untold = "all shards are committed, and whether its detectors are still what they were was not looked at"
    assert said.lines[-1] == f"{untold}: audit.detectors[0]: needs a package that is not installed"
    (tmp_path / "eye.bin").write_bytes(b"as it was")
    pinned = tmp_path / "corpus/run.yaml"
    pinned.write_text(pinned.read_text().replace("device: cpu\n  torch", "device: cuda\n  torch"))
    assert run(config, progress=said).exit_code == 0
    assert said.lines[-1] == f"{untold}: they ran on cuda, and here is cpu"


class Mean(Measure):
    """Measures how light a picture is; it cannot be loaded without its weights."""

    def __init__(self, device: str, weights: str = ""):
        if not Path(weights).is_file():
            raise ConfigError(f"{weights} is not there")
        super().__init__(device)

    def columns(self) -> dict[str, pa.DataType]:
        return {"mean": pa.float32()}

    def measure(self, images: np.ndarray, captions: Sequence[str]) -> dict[str, np.ndarray]:
        return {"mean": images.mean((1, 2, 3))}


def test_of_a_complete_corpus_other_measures_are_refused_and_those_that_cannot_be_asked_told(tmp_path: Path):
    config, weights = configure(tmp_path), tmp_path / "mean.bin"
    config.cluster.backend = Backend.local
    weights.write_bytes(b"as it was")
    config.audit.quality = [QualityConfig(measure=f"{__name__}:Mean", options={"weights": str(weights)})]
    said = Lines()
    assert run(config, progress=said).exit_code == run(config, progress=said).exit_code == 0
    assert not [line for line in said.lines if "measures" in line], "they are what they were"
    weights.write_bytes(b"changed")
    with pytest.raises(
        ConfigError, match=r"^audit\.quality\[0\]: .*Mean is now another than the corpus was begun with"
    ):
        run(config)
    weights.unlink()
    assert run(config, progress=said).exit_code == 0
    untold = "all shards are committed, and whether its measures are still what they were was not looked at"
    assert said.lines[-1] == f"{untold}: audit.quality[0]: {weights} is not there"


def test_a_detectors_code_is_pinned_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = (
        "import numpy as np\nfrom pipeline import Detector\n\n\nclass Blind(Detector):\n"
        "    def knows(self, term): return True\n    def threshold(self, term): return 0.5\n"
        "    def score(self, images, terms): return np.zeros((len(images), len(terms)), np.float32)\n"
    )
    (tmp_path / "blind_eye.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = watched(tmp_path)
    config.audit.detectors = [DetectorConfig(detector="blind_eye:Blind")]
    start(config)
    (tmp_path / "blind_eye.py").write_text(code.replace("0.5", "0.6"))
    with pytest.raises(ConfigError, match="weights and code of blind_eye:Blind are now sha256:"):
        run(config)


def test_a_run_without_a_detector_pins_none(tmp_path: Path):
    assert start(configure(tmp_path)).detectors == []


def test_a_batch_size_of_auto_is_settled_once_and_kept(tmp_path: Path):
    """On a CPU it is 32 at most, evenly filled; what is at the output already outweighs what would be found now."""
    config = configure(tmp_path)
    (tmp_path / "prompts.txt").write_text("a photo of a cat\n" * 40)
    config.generation.batch_size = "auto"
    begun = start(config)
    assert (begun.batch_size, begun.identity["generation.batch_size"]) == (20, "auto")
    config.output.samples_per_shard = 8
    summary = plan(config).summary()
    assert Session(config, device="cpu").settle_batch_size(summary) == 20
    config.output.path += "-other"
    session = Session(config, device="cpu")
    assert session.settle_batch_size(summary) == session.config.generation.batch_size == 8


@pytest.mark.parametrize(
    ("sizes", "each", "largest"),
    [
        (["32x32", "40x40", "40x64"], [1, 1, 1], (40, 64)),
        (["32x32", "16x16", "32x32"], [2, 1], (32, 32)),
        (["32x32", None], [1, 1], (48, 48)),  # of a row that asks for none, the run's own
        (["48x48", "30x4096"], [2], (48, 48)),  # a row that cannot be drawn has its place as one of the run's
    ],
)
def test_auto_is_tried_at_the_largest_size_that_is_drawn(tmp_path: Path, monkeypatch, sizes, each, largest):
    config = configure(tmp_path)
    rows = [{"prompt": "a cat"} | ({"size": size} if size else {}) for size in sizes]
    (tmp_path / "sized.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config.prompts.source, config.prompts.bad_rows = str(tmp_path / "sized.jsonl"), BadRows.skip
    config.generation.size, config.generation.batch_size = [48, 48], "auto"
    asked = []
    monkeypatch.setattr("pipeline.session.probe_batch_size", lambda *given: asked.append(given[2:]) or 1)
    Session(config, device="cpu").settle_batch_size(plan(config).summary())
    assert asked == [(each, largest)]
