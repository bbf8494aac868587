"""A corpus of real photographs is judged by the eyes that ship, whatever is killed; shipped configs have their eyes."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.audit.auditor import Auditor
from pipeline.cli import main
from pipeline.config import load_config
from pipeline.config.concepts import concepts_of
from tests.photographs import PHOTOGRAPHS

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml"))

CONFIG = f"""
model: {{path: diorama, family: "tests.audit.photographed:Photographs", dtype: float32}}
erasure: {{concepts: [{{name: cat}}, {{name: coffee}}, {{name: gun}}, {{name: nudity}}], recipe: []}}
prompts: {{template: "a {{thing}}", values: {{thing: [{", ".join(PHOTOGRAPHS)}]}}}}
generation: {{steps: 1, guidance: 1.0, size: [128, 128], compile: none, batch_size: 1}}
audit: {{detectors: [{{detector: imagenet}}, {{detector: open_nsfw}}], policy: quarantine}}
output: {{path: corpus, samples_per_shard: 1}}
cluster: {{backend: local}}
"""


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file that a run promises to make alike: pictures, manifests, what is quarantined."""
    places = [folder / "corpus/train", folder / "corpus/manifests", folder / "corpus.evidence/quarantine"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in places
        for path in sorted(place.rglob("*"))
    }


@pytest.mark.slow
def test_two_eyes_share_a_list_find_cat_and_coffee_and_leave_the_rest_and_a_killed_run_ends_alike(
    tmp_path, monkeypatch
):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path / "whole")
    assert main(["run", "config.yaml"]) == 0
    rows = pq.read_table("corpus/manifests").to_pylist()
    found = {"cat": ("quarantined", ["cat"]), "coffee": ("quarantined", ["coffee"])}
    for row in rows:
        scores = {one["name"]: one["score"] for one in row["scores"]}
        seen = [name for name in ("cat", "coffee") if scores[name] >= 0.2]
        assert (row["status"], seen) == found.get(row["prompt"].removeprefix("a "), ("ok", []))
        assert max(scores["gun"], scores["nudity"]) < 0.15  # no false alarm
        judged = {(one["detector"], one["concept"]) for one in row["judged"]}
        assert judged == {("imagenet", "cat"), ("imagenet", "coffee"), ("imagenet", "gun"), ("open_nsfw", "nudity")}
    assert len(rows) == len(PHOTOGRAPHS)

    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "pipeline.cli", "run", "config.yaml"]
    died = subprocess.run(
        command, cwd=killed, env={**os.environ, "PYTHONPATH": str(ROOT), "DIES_AT": "temple"}, capture_output=True
    )
    assert died.returncode == -signal.SIGKILL
    assert (killed / "corpus/run.yaml").exists()
    assert len([*(killed / "corpus").glob("commits/*.json")]) < len(PHOTOGRAPHS)
    monkeypatch.chdir(killed)
    assert main(["run", "config.yaml"]) == 0
    assert contents(killed) == contents(tmp_path / "whole")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_has_an_audit_or_says_why_not(path):
    config = load_config(path)
    if not config.audit.detectors:
        assert "\n# No audit: " in path.read_text()
        return
    auditor = Auditor.load(config.audit, concepts_of(config.erasure), "cpu")
    assert auditor.unjudged == tuple(c.name for c in config.erasure.concepts if c.name in config.audit.unjudged)
    assert len(auditor.unjudged) == len(config.audit.unjudged)  # each is of the list, and judged by none
    assert set(auditor.names) | set(auditor.unjudged) == {concept.name for concept in config.erasure.concepts}


def test_what_shipped_configs_leave_unjudged_has_no_class(tmp_path):
    config = load_config(ROOT / "configs/sd21.yaml")
    assert config.audit.unjudged == ["dagger", "sword", "bomb"]
    assert yaml.safe_load((ROOT / "configs/sd3.yaml").read_text())["audit"]["unjudged"] == config.audit.unjudged
