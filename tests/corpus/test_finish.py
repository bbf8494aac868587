"""What finish derives: a card that the hub reads, indexes that are true of the tars, pages that show the right."""

import hashlib
import json
import re
from dataclasses import replace

import pytest
import yaml

from pipeline import open_corpus
from pipeline.audit.verdict import Judgement
from pipeline.config.schema import ImageFormat
from pipeline.corpus import create_run_record, finish, open_store, publish_all, status, verify
from pipeline.corpus.encode import encode_image
from pipeline.corpus.evidence import Pair, read_pairs, write_pairs
from pipeline.corpus.manifest import Status, read_rows
from pipeline.corpus.report import evidence_page, picture_of
from tests.corpus.conftest import CEASE, picture, run_record


def opened(corpus):
    path, options = corpus
    return path, open_store(path, options), open_store(f"{path}.evidence", options), options


def test_the_card_has_a_header_that_pins_the_shards(corpus):
    path, store, _, options = opened(corpus)
    finish(path, options)
    _, header, text = store.read("README.md").decode().split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "train/*.tar"}]}]
    assert facts["size_categories"] == ["n<1K"]
    for said in (
        "12 synthetic pictures",
        "`tiny`",
        "revision `r`",
        "3 failed, 12 ok, 3 quarantined",
        "Erased: cat (by cease).",
        "| cat | kitten | cease | dog | tiger |",
        "- cease on cat",
        "Captions are the prompts without the words for the concepts.",
        "Detector diorama looked at every picture, policy quarantine.",
    ):
        assert said in text
    unknown = "unknown: uncalibrated"
    assert f"| cat | 20.00% (7.05% to 45.19%) | 3 | {unknown} | {unknown} |" in text  # 3 of 15 drawn


UCE = {"label": "uce", "method": "uce", "concepts": ["knife"], "options": {}}
ACCOUNTS = {
    "nothing": ([], [], "diorama", "Nothing was erased, the recipe is empty; only listed: cat, knife."),
    "one of two": ([UCE], [], "diorama", "Erased: knife (by uce). Only listed, not erased: cat."),
    "both": (
        [UCE, {**CEASE, "concepts": ["cat", "knife"]}], [], "diorama",
        "Erased: cat (by cease); knife (by uce, then cease).",
    ),
    "no audit": ([], ["No detector looked at these pictures"], None, "Nothing was erased"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCOUNTS)
def test_card_report_and_status_say_what_was_done_and_no_more(kind, tmp_path):
    """From the run record: a concept that is listed is not thereby erased."""
    steps, said, detector, account = ACCOUNTS[kind]
    path, record = str(tmp_path / "corpus"), run_record(3)
    concepts = [
        {"name": name, "aliases": [], "anchor": "dog", "preserve": ["tiger"], "everywhere": False}
        for name in ("cat", "knife")
    ]
    config = {**record.config, "erasure": {"concepts": concepts}}
    config["audit"] = {**config["audit"], "detectors": [] if detector is None else [{"detector": detector}]}
    store = open_store(path)
    eyes = [] if detector is None else record.detectors
    begun = replace(record, config=config, recipe={"version": 1, "steps": steps}, detectors=eyes)
    create_run_record(store, begun)
    finish(path)
    card, page = store.read("README.md").decode(), store.read("report.html").decode()
    assert account in card
    assert account in page
    assert account in status(path).text()
    for line in said or ["Detector diorama was to look at every picture, policy quarantine; none has been judged yet."]:
        assert line in card
        assert line in page
    assert ("concept-erasure" in card) == bool(steps)
    assert ("| knife | - | nothing: only listed | dog | tiger |" in card) == (not steps)


def test_the_indexes_are_true_of_the_tars(corpus):
    path, store, _, options = opened(corpus)
    finish(path, options)
    wids = json.loads(store.read("index/wids.json"))
    assert (wids["__kind__"], wids["wids_version"]) == ("wids-shard-index-v1", 1)
    for shard in wids["shardlist"]:
        data = store.read(shard["url"].removeprefix("../"))
        assert shard["md5sum"] == hashlib.md5(data).hexdigest()
        assert (shard["filesize"], shard["nsamples"]) == (len(data), 4)
    head, *lines = store.read("index/000001.idx").decode().splitlines()
    assert head == "v1.2 4"
    tar = store.read("train/000001.tar")
    for number, line in enumerate(lines):
        words = line.split()
        for extension, offset, size, name in zip(*(words[i::4] for i in range(4)), strict=True):
            data = tar[int(offset) : int(offset) + int(size)]
            assert name == f"00000100{number:03d}.{extension}"
            assert data == f"number {number}".encode() or extension != "txt"
            assert extension != "png" or data.startswith(b"\x89PNG")
            assert extension != "json" or json.loads(data)["key"] == name.partition(".")[0]


def test_what_was_found_is_framed_where_its_place_is_known(sealed):
    path, store = sealed
    finish(path)
    evidence = open_store(f"{path}.evidence")
    assert "<rect" not in evidence.read("report.html").decode().partition("</style>")[2]
    rows = read_rows(store.read("manifests/000000.parquet"))
    seen = [Judgement(detector="eye", concept=name, score=0.9, box=(2.0, 4.0, 10.0, 12.0)) for name in ("cat", "dog")]
    rows = [replace(row, judged=tuple(seen)) if row.status is Status.quarantined else row for row in rows]
    shown = [picture_of(row, b"", "title") for row in rows]
    assert [picture.boxes for picture in shown if picture.boxes] == [[("cat (eye)", (2.0, 4.0, 10.0, 12.0))]]
    framed = replace(shown[4], image=encode_image(picture(4), ImageFormat.png, 0))
    page = evidence_page((), [framed], "")
    assert '<svg viewBox="0 0 16 16">' in page
    assert '<rect x="2.0" y="4.0" width="8.0" height="8.0"><title>cat (eye)</title></rect>' in page


def test_the_report_shows_kept_pictures_alone_and_needs_no_other_file(corpus):
    path, store, _, options = opened(corpus)
    finish(path, options)
    page = store.read("report.html").decode()
    assert page.count("<img") == 12
    assert all(source.startswith("data:image/") for source in re.findall(r'src="?([^"> ]+)', page))
    assert not re.findall(r"(?:href|src)=.?https?:", page)
    assert "a cat number" not in page  # prompts are not for training; captions are shown
    assert "number 0" in page


def test_the_evidence_page_shows_pairs_and_what_was_quarantined(corpus):
    path, _, evidence, options = opened(corpus)
    images = [encode_image(picture(i), ImageFormat.png, 0) for i in range(2)]
    pair = Pair(
        prompt="a <cat>", key="00000000000", seed=7, unerased=images[0], erased=images[1],
        unerased_scores={"cat": 0.9}, erased_scores={"cat": 0.1}, gates={"cease": 1.0},
    )  # fmt: skip
    write_pairs(evidence, [pair])
    assert read_pairs(evidence) == [pair]
    written = finish(path, options).written
    assert written[-1] == f"{evidence.url}/report.html"
    page = evidence.read("report.html").decode()
    assert page.count("<img") == 2 + 3
    for said in (
        "a &lt;cat&gt;",
        "seed 7",
        "cat 0.90 → cat 0.10",
        "gate cease 1.00",
        "cat: cat 0.90",
        "a cat number 4",
    ):
        assert said in page


def test_a_corpus_that_is_not_complete_is_finished_as_it_is(corpus):
    path, store, _, options = opened(corpus)
    for name in ("commits/000002.json", "train/000002.tar", "manifests/000002.parquet"):
        store.delete(name)
    finish(path, options)
    assert "2 of 3 planned shards" in store.read("README.md").decode()
    assert len(json.loads(store.read("index/wids.json"))["shardlist"]) == 2


def test_a_shard_that_is_decided_but_not_published_waits_for_the_next_run(corpus):
    path, store, evidence, options = opened(corpus)
    for where in (store, evidence):  # as if its worker had been killed right after the create
        for entry in list(where.list()):
            if "000001" in entry.path and not entry.path.startswith("commits"):
                where.write(f"attempts/000001-a1/{entry.path}", where.read(entry.path))
                where.delete(entry.path)
    finish(path, options)
    assert "2 of 3 planned shards" in store.read("README.md").decode()
    assert [shard["url"] for shard in json.loads(store.read("index/wids.json"))["shardlist"]] == [
        "../train/000000.tar",
        "../train/000002.tar",
    ]
    assert (status(path, options).shards, len(list(open_corpus(path, options=options, partial=True)))) == (2, 8)
    publish_all(store, evidence)
    finish(path, options)
    assert (verify(path, options), status(path, options).shards) == ([], 3)
    assert len(list(open_corpus(path, options=options))) == 12
