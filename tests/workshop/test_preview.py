"""A page of erased beside unerased pictures before a run, and the figures of one measured batch."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.schema import ConceptConfig, Config, ErasureConfig, StepConfig
from pipeline.config.sections.audit import AuditConfig, DetectorConfig, Policy
from pipeline.config.sections.generation import LongPrompts
from pipeline.errors import ConfigError
from pipeline.pairs import choose_samples, draw_pairs
from pipeline.prompts import Plan, open_source
from pipeline.prompts.report import Hits, plan_report
from pipeline.session import Session
from pipeline.workshop.preview import measure, write_preview
from tests import tiny
from tests.eyes import Brightness


@pytest.fixture
def config(tmp_path: Path) -> Config:
    animals = ("dog", "cat", "lion", "tiger", "wolf")
    (tmp_path / "prompts.txt").write_text("".join(f"a photo of a {animals[i % 5]} <{i}>\n" for i in range(20)))
    config = tiny.config(tiny.path())
    config.prompts.source = str(tmp_path / "prompts.txt")
    config.erasure = ErasureConfig(
        concepts=[ConceptConfig(name="cat", anchor="dog")], recipe=[StepConfig(method="cease")]
    )
    config.audit = AuditConfig()
    config.output.path = str(tmp_path / "corpus")
    return config


def test_the_page_shows_pairs_half_of_which_name_the_concept(config: Config, tmp_path: Path) -> None:
    path = Path(write_preview(config, 6, None))
    assert path == tmp_path / "corpus.evidence" / "preview.html"  # unerased pictures lie in no corpus
    page = path.read_text()
    assert page.count("<img") == 12
    assert page.count("a photo of a cat &lt;") == 3
    assert "gate cease" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert not (tmp_path / "corpus").exists()


def test_a_size_that_the_detector_cannot_judge_is_refused_before_anything_is_drawn(config: Config, tmp_path: Path):
    config.audit = AuditConfig(detectors=[DetectorConfig(detector="diorama")])
    with pytest.raises(ConfigError, match="cannot judge pictures of 32x32 pixels"):
        write_preview(config, 2, None)
    assert not (tmp_path / "corpus.evidence").exists()


def test_the_page_may_be_put_elsewhere(config: Config, tmp_path: Path) -> None:
    assert write_preview(config, 2, str(tmp_path / "there/page.html")) == str(tmp_path / "there/page.html")


def test_half_of_the_samples_name_the_concept_and_all_prompts_differ(config: Config) -> None:
    plan = Plan.build(config, open_source(config.prompts))
    from pipeline.config.concepts import concepts_of

    chosen = choose_samples(plan, concepts_of(config.erasure), 8)
    assert len({sample.prompt for sample in chosen}) == 8
    assert sum("cat" in sample.prompt for sample in chosen) == 4
    assert [sample.index for sample in chosen] == sorted(sample.index for sample in chosen)


def test_where_no_row_can_be_used_the_first_is_named(config: Config, tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": [" "] * 4}), tmp_path / "blank.parquet")
    config.prompts.source = str(tmp_path / "blank.parquet")
    with pytest.raises(ConfigError, match="row 1: column 'prompt' is blank; expected a prompt; 4 of 4 rows"):
        write_preview(config, 2, None)


def test_one_batch_is_measured(config: Config) -> None:
    measured = measure(config, Plan.build(config, open_source(config.prompts)))
    assert measured.seconds_per_image > 0
    assert 100 < measured.bytes_per_image < 100_000


@pytest.mark.slow
def test_prompts_that_are_not_read_to_their_end_are_counted_and_pairs_of_them_stay_pairs(config: Config) -> None:
    long = "a dog and " * 9 + "a cat"  # 29 tokens, of which the tiny encoder reads 22
    Path(config.prompts.source or "").write_text(f"a cat\n{long}\na dog\n")
    plan = Plan.build(config, open_source(config.prompts))
    measured = measure(config, plan)
    assert measured is not None
    assert measured.unread == Hits(1, 3, exact=True)
    (line,) = [line for line in plan_report(config, plan, measured=measured).lines() if line.startswith("tokens")]
    assert line == (
        "tokens    33.33 % of prompts are not read to their end: up to 7 tokens are beyond the text encoder "
        "(generation.long_prompts)"
    )
    config.generation.long_prompts = LongPrompts.chunks
    measured = measure(config, plan)
    assert measured is not None
    assert measured.unread == Hits(0, 3, exact=True)
    session = Session(config)
    pairs = draw_pairs(session, session.compile(), plan.shard(0).samples)
    assert [pair.prompt for pair in pairs] == ["a cat", long, "a dog"]
    # Drawn in another order, the short ones first: each has its own.
    assert [pair.gates["cease:cat"] == 1 for pair in pairs] == [True, True, False]


def test_where_prompts_are_of_several_lengths_a_full_batch_is_measured(config: Config, monkeypatch) -> None:
    """Half of them ask for two chunks: of the first four no batch is full. A clock that ticks once a batch is time."""
    Path(config.prompts.source).write_text(
        "".join(f"{'a photo of a dog, ' * (1 + 5 * (i % 2))}{i}\n" for i in range(20))
    )
    config.generation.long_prompts = LongPrompts.chunks
    config.erasure.recipe = []
    looks: list[int] = []
    score = Brightness.score
    monkeypatch.setattr(Brightness, "score", lambda self, images, terms: looks.append(1) or score(self, images, terms))
    monkeypatch.setattr("pipeline.workshop.preview.time.perf_counter", lambda: float(len(looks)))
    config.audit = AuditConfig(detectors=[DetectorConfig(detector="tests.eyes:Brightness")])
    config.erasure.concepts = [ConceptConfig(name="light", anchor="dark")]
    measured = measure(config, Plan.build(config, open_source(config.prompts)))
    assert (measured.batching.batches, measured.batching.padded) == (6, 4), "ten of each: 4, 4, 2"
    assert measured.seconds_per_image == 6 / 20


@pytest.mark.parametrize("batch_size", [4, "auto"])
def test_of_mixed_sizes_time_and_bytes_are_those_of_all_and_padding_counts(
    config: Config, monkeypatch, batch_size: int | str
) -> None:
    """Ten pictures of 32x32, ten of four times the pixels: a batch of the larger is measured. On a CPU "auto" is here
    10, all of a size. A clock that ticks once a batch is time."""
    source = Path(config.prompts.source or "").with_suffix(".jsonl")
    source.write_text(
        "\n".join(f'{{"prompt": "a dog {i}", "size": "{32 + i % 2 * 32}x{32 + i % 2 * 32}"}}' for i in range(20))
    )
    config.prompts.source, config.erasure.recipe, config.generation.batch_size = str(source), [], batch_size
    looks: list[tuple[int, ...]] = []
    score = Brightness.score
    monkeypatch.setattr(
        Brightness, "score", lambda self, images, terms: looks.append(images.shape) or score(self, images, terms)
    )
    monkeypatch.setattr("pipeline.workshop.preview.time.perf_counter", lambda: float(len(looks)))
    monkeypatch.setattr("pipeline.workshop.preview.encode_image", lambda image, *_: bytes(image.size))
    config.audit = AuditConfig(detectors=[DetectorConfig(detector="tests.eyes:Brightness")])
    config.erasure.concepts = [ConceptConfig(name="light", anchor="dark")]
    plan = Plan.build(config, open_source(config.prompts))
    measured = measure(config, plan)
    assert looks[-1][1:] == (64, 64, 3)
    batches = 3 if batch_size == 4 else 1
    assert measured.batching.sizes == {(32, 32): (10, batches), (64, 64): (10, batches)}
    assert measured.seconds_per_image == pytest.approx(batches * (1 + 1 / 4) / 20)
    assert measured.bytes_per_image == 3 * (32 * 32 + 64 * 64) / 2
    share = 1 - 10 / (batches * (4 if batch_size == 4 else 10))
    (line,) = [line for line in plan_report(config, plan, measured=measured).lines() if line.startswith("batches")]
    assert f"{100 * share:.3g} % of the drawing time" in line


def test_the_measured_batch_is_audited_and_further_seeds_are_reckoned_in(config: Config, monkeypatch) -> None:
    """Everything is found, so 1 + 3 pictures are drawn for a sample. A clock that ticks once a look stands for time."""
    config.erasure.concepts = [ConceptConfig(name="light", anchor="dark")]
    config.erasure.recipe = []
    looks: list[int] = []
    score = Brightness.score
    monkeypatch.setattr(Brightness, "score", lambda self, images, terms: looks.append(1) or score(self, images, terms))
    monkeypatch.setattr("pipeline.workshop.preview.time.perf_counter", lambda: float(len(looks)))
    plan = Plan.build(config, open_source(config.prompts))
    seconds = {}
    for policy, cut in ((Policy.quarantine, 0.0), (Policy.regenerate, 0.0), (Policy.regenerate, 1.0)):
        eye = DetectorConfig(detector="tests.eyes:Brightness", options={"cut": cut})
        config.audit = AuditConfig(detectors=[eye], policy=policy, attempts=3)
        seconds[policy, cut] = measure(config, plan).seconds_per_image
    assert seconds == {
        (Policy.quarantine, 0.0): 1 / 4,
        (Policy.regenerate, 0.0): 4 / 4,
        (Policy.regenerate, 1.0): 1 / 4,
    }
