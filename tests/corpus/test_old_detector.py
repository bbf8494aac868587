"""Corpora that were begun when an audit had one detector are read, counted and reported as ever."""

from dataclasses import replace

import yaml

from pipeline.corpus import finish, layout, open_store, status, verify
from pipeline.corpus.run_record import require_run_record
from tests.corpus.conftest import make_corpus, run_record


def as_before(store, **pin) -> None:
    """Rewrite run.yaml as it was written then."""
    values = yaml.safe_load(run_record(3).dumps())
    del values["detectors"]
    values["config"]["audit"] = {
        "detector": "diorama", "options": {}, "thresholds": {}, "policy": "quarantine", "captions": "drop",
    }  # fmt: skip
    store.write(layout.RUN, yaml.safe_dump(values | pin).encode())


def test_their_detector_judged_the_whole_list(tmp_path):
    path = str(tmp_path / "corpus")
    make_corpus(path, {})
    store = open_store(path)
    as_before(store, detector_revision="sha256:old")
    (seen,) = require_run_record(store).detectors
    assert (seen["name"], seen["sha256"], seen["thresholds"]) == ("diorama", "sha256:old", {"cat": None})
    finish(path)
    card = store.read("README.md").decode()
    assert "Detector diorama looked at every picture, policy quarantine." in card
    assert "- diorama: weights and code sha256:old; sees cat; uncalibrated" in card
    assert "uncalibrated" in store.read("report.html").decode()
    assert "Nobody looked" not in card
    assert verify(path) == []
    assert "cat" in status(path).text()


def test_those_without_a_pin_and_without_a_detector_too(tmp_path):
    store = open_store(str(tmp_path / "corpus"))
    as_before(store)
    (seen,) = require_run_record(store).detectors
    assert seen["sha256"] == ""
    record = require_run_record(store)
    config = {**record.config, "audit": {**record.config["audit"], "detector": None}}
    values = yaml.safe_load(replace(record, config=config).dumps())
    del values["detectors"]
    store.write(layout.RUN, yaml.safe_dump(values).encode())
    assert require_run_record(store).detectors == []
