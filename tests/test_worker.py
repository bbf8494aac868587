"""One planned shard in, one commit out: what each audit policy makes of the same pictures, and what is recorded."""

import io
import itertools
import json
import math
import statistics
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import pytest

from pipeline.audit.perceptual_hash import perceptual_hash
from pipeline.audit.sharpness import Sharpness
from pipeline.config.schema import BadRows, ConceptConfig, Config, ErasureConfig, ImageFormat, StepConfig
from pipeline.config.sections.audit import (
    AuditConfig,
    CaptionPolicy,
    CaptionUnread,
    DetectorConfig,
    Policy,
    QualityConfig,
)
from pipeline.config.sections.generation import PromptSyntax
from pipeline.corpus import evidence_url, open_store, status, verify
from pipeline.corpus.encode import decode_image
from pipeline.corpus.manifest import ManifestRow, Status, read_manifest, read_rows
from pipeline.errors import ConfigError
from pipeline.prompts import Plan, further_seed, open_source
from pipeline.prompts.padding import batching
from pipeline.session import Session, prepare
from pipeline.worker import UNENCODED, Worker
from tests import tiny, tiny_eyes

SAMPLES = 8
EYE = "tests.eyes:Brightness"


def configure(folder: Path, **audit: Any) -> Config:
    """Eight prompts that say "light", in one shard, two batches."""
    folder.mkdir(exist_ok=True)
    (folder / "prompts.txt").write_text("".join(f"a light and a dog {i}\n" for i in range(SAMPLES)))
    config = tiny.config(tiny.path())
    config.prompts.source = str(folder / "prompts.txt")
    config.erasure = ErasureConfig(concepts=[ConceptConfig(name="light", anchor="dark")])
    eye = {name: audit.pop(name) for name in ("options", "thresholds") if name in audit}
    config.audit = AuditConfig(detectors=[DetectorConfig(detector=EYE, **eye)], **audit)
    config.output.path, config.output.samples_per_shard = str(folder / "corpus"), SAMPLES
    config.output.image_format = ImageFormat.png
    return config


def spoil(worker: Worker, faults: dict[tuple[int, int], float]) -> None:
    """Have the model decode a plain picture of the given value for (batch, row); batches are counted over attempts."""
    family, count = worker.engine.model.family, itertools.count()
    decode = family.decode

    def spoilt(latents):
        pixels, batch = decode(latents), next(count)
        for row in range(len(pixels)):
            if (batch, row) in faults:
                pixels[row] = faults[batch, row]
        return pixels

    family.decode = spoilt  # type: ignore[method-assign]


def work(
    config: Config, excluded: frozenset[str] = frozenset(), faults: dict[tuple[int, int], float] | None = None
) -> tuple[Plan, list[ManifestRow]]:
    """Do the one shard; return the plan and the rows of its manifest."""
    plan = Plan.build(config, open_source(config.prompts))
    record = prepare(Session(config, device="cpu"), plan.summary())
    worker = Worker(Session(config, device="cpu"), record)
    spoil(worker, faults or {})
    assert worker.process(plan.shard(0), "first", excluded).result().won
    worker.close()
    assert verify(config.output.path) == []
    return plan, read_rows(open_store(config.output.path).read("manifests/000000.parquet"))


def tar_keys(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return sorted({name.partition(".")[0] for name in tar.getnames()})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[ManifestRow]:
    """The rows where nothing is done about what is seen."""
    config = configure(tmp_path_factory.mktemp("kept") / "run", policy=Policy.keep, options={"cut": 0.0})
    return work(config)[1]


@pytest.fixture(scope="module")
def cut(kept: list[ManifestRow]) -> float:
    """A threshold that half of the pictures reach."""
    return statistics.median(row.scores["light"] for row in kept)


def test_keep_keeps_and_says_what_was_seen(kept: list[ManifestRow]) -> None:
    assert {row.status for row in kept} == {Status.ok}
    assert all(row.reason == "light" and row.found == ("light",) for row in kept)
    assert len({row.scores["light"] for row in kept}) == SAMPLES


@pytest.mark.parametrize(("policy", "status"), [(Policy.drop, Status.dropped), (Policy.quarantine, Status.quarantined)])
def test_drop_and_quarantine_take_what_is_seen_out_of_the_tar(
    policy: Policy, status: Status, tmp_path: Path, kept: list[ManifestRow], cut: float
) -> None:
    config = configure(tmp_path / "run", policy=policy, options={"cut": cut})
    _, rows = work(config)
    assert [row.scores for row in rows] == [row.scores for row in kept]  # the same pictures
    bad = [row.key for row in rows if row.scores["light"] >= cut]
    assert 0 < len(bad) < SAMPLES
    assert [row.key for row in rows if row.status is status] == bad
    store, evidence = open_store(config.output.path), open_store(evidence_url(config.output.path))
    assert tar_keys(store.read("train/000000.tar")) == [row.key for row in rows if row.key not in bad]
    if policy is Policy.quarantine:
        (name,) = [entry.path for entry in evidence.list() if entry.path.endswith(".tar")]
        assert tar_keys(evidence.read(name)) == bad
    else:
        assert not list(evidence.list("quarantine"))


def test_a_threshold_in_the_config_outweighs_the_detectors_own(tmp_path: Path) -> None:
    config = configure(tmp_path / "run", options={"cut": 0.0}, thresholds={"light": 1.0})
    assert {row.status for row in work(config)[1]} == {Status.ok}


def test_regenerate_tries_further_seeds_and_records_every_attempt(tmp_path: Path, kept: list[ManifestRow]) -> None:
    cut = sorted(row.scores["light"] for row in kept)[-3]
    config = configure(tmp_path / "run", policy=Policy.regenerate, attempts=2, options={"cut": cut})
    plan, rows = work(config)
    for sample, row, before in zip(plan.shard(0).samples, rows, kept, strict=True):
        assert 1 <= len(row.attempts) <= 3
        assert [attempt.seed for attempt in row.attempts] == [further_seed(sample, i) for i in range(len(row.attempts))]
        assert row.attempts[0].scores == before.scores
        assert all(attempt.status is Status.quarantined for attempt in row.attempts[:-1])
        last = row.attempts[-1]
        assert (row.seed, row.status, row.reason, row.scores) == (last.seed, last.status, last.reason, last.scores)
        assert row.status is Status.ok or len(row.attempts) == 3
    assert any(len(row.attempts) > 1 for row in rows)
    assert sum(row.status is Status.ok for row in rows) > sum(before.scores["light"] < cut for before in kept)


def test_the_caption_says_the_anchor_only_where_it_is_seen(tmp_path: Path, cut: float) -> None:
    # "dark" is seen from 1 - cut of black on, so just where "light" is not.
    config = configure(
        tmp_path / "run", policy=Policy.keep, options={"cut": 1 - cut}, captions=CaptionPolicy.anchor,
        thresholds={"light": cut},
    )  # fmt: skip
    _, rows = work(config)
    captions = {row.caption.rstrip(" 0123456789") for row in rows}
    assert captions == {"a dark and a dog", "a dog"}
    assert all(("dark" in row.caption) == (1 - row.scores["light"] >= 1 - cut) for row in rows)


@pytest.mark.parametrize("subject", ["a picture", None])
def test_where_nothing_is_left_of_a_prompt_a_stand_in_is_the_caption_or_the_sample_is_dropped(tmp_path, subject):
    config = configure(
        tmp_path, policy=Policy.keep, options={"cut": 0.0}, caption_subject=subject, captions=CaptionPolicy.drop
    )
    (tmp_path / "prompts.txt").write_text("a light in a room\n" * 2 + "a light and a dog\n" * (SAMPLES - 2))
    _, rows = work(config)
    lost = [row for row in rows if row.prompt == "a light in a room"]
    assert len(lost) == 2
    if subject is None:
        assert {(row.status, row.reason, row.caption) for row in lost} == {(Status.dropped, "light,no caption", "")}
        assert "  dropped, no caption: 2" in status(config.output.path).text()
    else:
        assert {(row.status, row.reason, row.caption) for row in lost} == {(Status.ok, "light", "a picture in a room")}
    assert {row.caption for row in rows if row not in lost} == {"a dog"}
    assert all(row.found == ("light",) for row in rows)


def test_excluded_samples_are_failed_rows_and_their_neighbours_stay_the_same(
    tmp_path: Path, kept: list[ManifestRow]
) -> None:
    config = configure(tmp_path / "run", policy=Policy.keep, options={"cut": 0.0})
    _, rows = work(config, excluded=frozenset({kept[2].key}))
    assert (rows[2].status, rows[2].reason, rows[2].sha256) == (Status.failed, "excluded", None)
    assert [row.sha256 for i, row in enumerate(rows) if i != 2] == [row.sha256 for i, row in enumerate(kept) if i != 2]


def test_a_bad_row_is_a_failed_one_and_captions_hold_no_control_character(
    tmp_path: Path, kept: list[ManifestRow]
) -> None:
    config = configure(tmp_path / "run", policy=Policy.keep, options={"cut": 0.0}, captions=CaptionPolicy.drop)
    texts = [f"a light and a dog {i}" for i in range(SAMPLES)]
    texts[1], texts[5], texts[6] = " ", "\x00a light\x07 and\ta\x85dog 0\x00", "a li\x00ght and a dog 0"
    lines = [json.dumps({"prompt": text, "id": i, "when": None}) for i, text in enumerate(texts)]
    config.prompts.source = str(tmp_path / "run/prompts.jsonl")
    Path(config.prompts.source).write_text("\n".join(lines))
    config.prompts.bad_rows = BadRows.skip
    _, rows = work(config)
    assert (rows[1].status, rows[1].reason) == (Status.failed, "bad row: column 'prompt' is blank; expected a prompt")
    untouched = [i for i in range(SAMPLES) if i not in (1, 5, 6)]
    assert [rows[i].sha256 for i in untouched] == [kept[i].sha256 for i in untouched]
    assert [row.prompt for row in rows] == texts
    assert rows[5].caption == rows[6].caption == rows[0].caption == "a dog 0"
    manifest = read_manifest(open_store(config.output.path).read("manifests/000000.parquet"))
    assert manifest["id"].to_pylist() == list(range(SAMPLES))


@pytest.mark.parametrize("policy", [Policy.keep, Policy.quarantine])
def test_pictures_of_nan_and_blank_ones_are_failed_rows_and_not_in_the_tar(
    policy: Policy, tmp_path: Path, kept: list[ManifestRow]
) -> None:
    config = configure(tmp_path / "run", policy=policy, options={"cut": 1.0})
    _, rows = work(config, faults={(0, 1): math.nan, (1, 2): 0.5})
    for i, row in enumerate(rows):
        fault = {1: "nan", 6: "blank"}.get(i)
        if fault is None:
            assert (row.status, row.sha256) == (Status.ok, kept[i].sha256)
        else:
            assert (row.status, row.reason, row.scores, row.sha256) == (Status.failed, fault, {}, None)
            assert [(attempt.status, attempt.reason) for attempt in row.attempts] == [(Status.failed, fault)]
    store = open_store(config.output.path)
    assert tar_keys(store.read("train/000000.tar")) == [row.key for i, row in enumerate(rows) if i not in (1, 6)]
    assert not list(open_store(evidence_url(config.output.path)).list("quarantine"))


def test_regenerate_tries_further_seeds_for_faults_until_there_is_a_picture_or_no_attempt_left(tmp_path: Path) -> None:
    config = configure(tmp_path / "run", policy=Policy.regenerate, attempts=2, options={"cut": 1.0})
    # Batches 0 and 1 are the shard, 2 the three that failed, 3 the two that did so again.
    again = {(2, 1): math.nan, (2, 2): 0.5, (3, 1): 0.5}
    plan, rows = work(config, faults={(0, 1): math.nan, (1, 0): 0.5, (1, 2): 0.5, **again})
    reasons = [[attempt.reason for attempt in row.attempts] for row in rows]
    assert [reasons[i] for i in (1, 4, 6)] == [["nan", ""], ["blank", "nan", ""], ["blank", "blank", "blank"]]
    assert all(reasons[i] == [""] for i in (0, 2, 3, 5, 7))
    assert [row.status for row in rows] == [Status.ok] * 6 + [Status.failed, Status.ok]
    assert rows[6].reason == "blank"
    for sample, row in zip(plan.shard(0).samples, rows, strict=True):
        assert [attempt.seed for attempt in row.attempts] == [further_seed(sample, i) for i in range(len(row.attempts))]


def test_sizes_by_turns_share_batches_and_come_out_in_the_order_of_keys(tmp_path: Path) -> None:
    """Four sizes by turns, twice: as many batches as the plan reckons, and in tar and manifest the planned order."""
    config = configure(tmp_path / "run", policy=Policy.keep)
    sizes = [(32, 32), (40, 32), (32, 40), (40, 40)]
    asked = [{"prompt": f"a dog {i}", "size": sizes[i % 4]} for i in range(SAMPLES)]
    config.prompts.source = str(tmp_path / "run" / "sized.jsonl")
    Path(config.prompts.source).write_text("\n".join(map(json.dumps, asked)))
    plan = Plan.build(config, open_source(config.prompts))
    record = prepare(Session(config, device="cpu"), plan.summary())
    worker, batches = Worker(Session(config, device="cpu"), record), []
    assert worker.process(plan.shard(0), "first", drew=batches.append).result().won
    worker.close()
    reckoned = batching(plan, 4)
    assert batches == [2] * 4
    assert (reckoned.batches, reckoned.padded) == (len(batches), 4 * len(batches) - SAMPLES)
    store = open_store(config.output.path)
    rows = read_rows(store.read("manifests/000000.parquet"))
    assert [row.key for row in rows] == [sample.key for sample in plan.shard(0).samples]
    assert [(row.width, row.height) for row in rows] == [sizes[i % 4] for i in range(SAMPLES)]
    with tarfile.open(fileobj=io.BytesIO(store.read("train/000000.tar"))) as tar:
        pictures = [member for member in tar if member.name.endswith(".png")]
        assert [member.name.partition(".")[0] for member in pictures] == [row.key for row in rows]
        drawn = [decode_image(tar.extractfile(member).read()).shape for member in pictures]  # type: ignore[union-attr]
    assert drawn == [(height, width, 3) for width, height in (sizes[i % 4] for i in range(SAMPLES))]


def test_the_device_waits_for_those_who_encode_before_it_holds_more_than_a_few_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(tmp_path / "run", policy=Policy.keep)
    config.generation.batch_size = 1
    plan = Plan.build(config, open_source(config.prompts))
    record = prepare(Session(config, device="cpu"), plan.summary())
    worker = Worker(Session(config, device="cpu"), record)
    may_encode, drawn = Event(), Semaphore(0)
    encode = worker._encode
    monkeypatch.setattr(worker, "_encode", lambda image: may_encode.wait(60) and encode(image))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(worker.process, plan.shard(0), "first", drew=lambda images: drawn.release(images))
        for _ in range(UNENCODED + 1):
            assert drawn.acquire(timeout=60)
        assert not drawn.acquire(timeout=0.5), "nobody has encoded a picture yet"
        may_encode.set()
        assert future.result().result().counts["ok"] == SAMPLES
    worker.close()


def test_a_second_attempt_at_a_shard_changes_nothing(tmp_path: Path) -> None:
    config = configure(tmp_path / "run")
    plan, _ = work(config)
    store = open_store(config.output.path)
    before = {entry.path: store.read(entry.path) for entry in store.list()}
    record = prepare(Session(config, device="cpu"), plan.summary())
    worker = Worker(Session(config, device="cpu"), record)
    assert not worker.process(plan.shard(0), "second").result().won
    worker.close()
    assert {entry.path: store.read(entry.path) for entry in store.list()} == before


def test_another_environment_is_refused_unless_accepted(tmp_path: Path) -> None:
    config = configure(tmp_path / "run")
    plan, _ = work(config)
    record = prepare(Session(config, device="cpu"), plan.summary())
    config.cluster.threads_per_worker = 2
    with pytest.raises(ConfigError, match=r"begun in another environment \(threads: 1 -> 2\)"):
        Worker(Session(config, device="cpu"), record)
    worker = Worker(Session(config, device="cpu"), record, accept_environment=True)
    assert worker.environment["threads"] == 2
    worker.close()


def test_a_caption_ends_where_the_text_encoder_stops_and_what_is_beyond_opens_no_gate(tmp_path: Path) -> None:
    long = "a dog and " * 7 + "a road, a light"  # 26 tokens, of which the tiny encoder reads 22
    rows = {}
    for name, unread in (("drop", CaptionUnread.drop), ("keep", CaptionUnread.keep)):
        config = configure(tmp_path / name, policy=Policy.keep, captions=CaptionPolicy.drop, caption_unread=unread)
        (tmp_path / name / "prompts.txt").write_text(f"{long}\na light\n")
        config.erasure.recipe = [StepConfig(method="cease", options={"unlisted": False, "context": False})]
        _, (rows[name], short) = work(config)
        assert short.tokens_unread == 0
        assert short.gates["cease:light"] == 1
    assert rows["drop"].tokens_read == 22
    assert rows["drop"].prompt == long
    assert rows["drop"].caption == ("a dog and " * 7).removesuffix(" and ")
    assert rows["keep"].caption == "a dog and " * 7 + "a road"
    assert rows["drop"].gates["cease:light"] == rows["keep"].gates["cease:light"] < 1


def test_a_prompt_of_syntax_alone_has_the_subject_for_a_caption(tmp_path: Path) -> None:
    config = configure(tmp_path / "syntax", policy=Policy.keep, captions=CaptionPolicy.keep)
    config.generation.prompt_syntax = PromptSyntax.a1111
    (tmp_path / "syntax" / "prompts.txt").write_text("BREAK\n([:1.2)\na (dog:1.2)\n")
    _, rows = work(config)
    assert [row.caption for row in rows] == ["a picture", "a picture", "a dog"]
    assert [row.tokens_read for row in rows] == [0, 0, 2]


@pytest.mark.parametrize("unread", CaptionUnread)
def test_a_caption_leaves_out_what_weighs_nothing_and_tidies_what_stands_before_a_break(
    tmp_path: Path, unread: CaptionUnread
) -> None:
    config = configure(tmp_path / "zero", policy=Policy.keep, captions=CaptionPolicy.drop, caption_unread=unread)
    config.generation.prompt_syntax = PromptSyntax.a1111
    long = "a dog and " * 7 + "a road"  # 23 tokens, of which "road" is not read
    lines = ["a (cat:0) on the beach", "(a tree:0)", "a (red:0) car BREAK (a cat:-0.5)", f"{long} BREAK a red car"]
    (tmp_path / "zero" / "prompts.txt").write_text("\n".join(lines) + "\n")
    _, rows = work(config)
    end = " and a road" if unread is CaptionUnread.keep else ""
    assert [row.caption for row in rows] == [
        "a picture on the beach", "a picture", "a car", ("a dog and " * 7).removesuffix(" and ") + f"{end}, a red car",
    ]  # fmt: skip
    config = configure(tmp_path / "kept", policy=Policy.keep, captions=CaptionPolicy.keep, caption_unread=unread)
    config.generation.prompt_syntax = PromptSyntax.a1111
    (tmp_path / "kept" / "prompts.txt").write_text(lines[0] + "\n")
    _, (row,) = work(config)
    assert row.caption == "a cat on the beach"


def test_nothing_is_read_of_an_excluded_prompt(tmp_path: Path) -> None:
    _, rows = work(configure(tmp_path / "excluded", policy=Policy.keep), excluded=frozenset({"00000000002"}))
    assert [row.tokens_read is None for row in rows] == [row.key == "00000000002" for row in rows]


@pytest.mark.slow
def test_quality_is_recorded_of_every_picture_kept_or_not_and_decides_nothing(
    tmp_path: Path, kept: list[ManifestRow]
) -> None:
    model = str(tiny_eyes.clip(tmp_path / "clip"))
    measures = [QualityConfig(measure="clip", options={"model": model}), QualityConfig(measure="sharpness")]
    measures += [QualityConfig(measure="hash"), QualityConfig(measure="embedding", options={"model": model})]
    cut = statistics.median(row.scores["light"] for row in kept)
    found = {}
    for name, quality in (("with", measures), ("without", [])):
        config = configure(tmp_path / name, policy=Policy.quarantine, options={"cut": cut}, quality=quality)
        _, found[name] = work(config, frozenset({"00000000002"}), faults={(0, 1): math.nan})
    assert found["with"] == found["without"], "but for what quality adds"
    manifests = {name: open_store(str(tmp_path / name / "corpus")).read("manifests/000000.parquet") for name in found}
    table, plain = read_manifest(manifests["with"]), read_manifest(manifests["without"])
    columns = ["clip", "sharpness", "blankness", "hash", "embedding"]
    assert [name for name in table.column_names if name not in plain.column_names] == columns
    rows = table.to_pylist()
    assert {row["status"] for row in rows} == {"ok", "quarantined", "failed"}
    for row in rows:
        there = row["status"] != "failed"
        assert [row[name] is not None for name in columns] == [there] * len(columns)
    store, evidence = (open_store(place(str(tmp_path / "with" / "corpus"))) for place in (str, evidence_url))
    for row in rows:
        if row["status"] == "failed":
            continue
        tars = (store, "train") if row["status"] == "ok" else (evidence, "quarantine")
        image = decode_image(tars[0].read_range(f"{tars[1]}/000000.tar", row["offset"], row["length"]))
        assert row["hash"] == perceptual_hash(image), "of the picture that is kept, which is png here"
        (measured,) = Sharpness("cpu").measure(image[None], [""])["sharpness"]
        assert row["sharpness"] == measured
        assert -100 <= row["clip"] <= 100
        assert math.isclose(math.hypot(*row["embedding"]), 1, abs_tol=2e-3)


def test_of_several_attempts_quality_is_that_of_the_last(tmp_path: Path) -> None:
    config = configure(tmp_path / "run", policy=Policy.regenerate, attempts=2, options={"cut": 0.0})
    config.audit.quality = [QualityConfig(measure="hash")]
    work(config)
    evidence = open_store(evidence_url(config.output.path))
    for row in read_manifest(open_store(config.output.path).read("manifests/000000.parquet")).to_pylist():
        assert (row["status"], len(row["attempts"])) == ("quarantined", 3)
        image = decode_image(evidence.read_range("quarantine/000000.tar", row["offset"], row["length"]))
        assert row["hash"] == perceptual_hash(image)
