"""Corpora of format 1 stay what they are, whatever is done with them, and those of format 2 have no gaps.

``format1.tar.xz`` was drawn by Lacuna 0.1.0 at commit ac5fe59: four shards, of which 1 and 2 are wholly quarantined.
"""

import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import open_corpus
from pipeline.cli import main
from pipeline.config import load_config
from pipeline.corpus import committed, finish, layout, open_store, purge_evidence, require_run_record, status, verify
from pipeline.corpus.manifest import SCHEMA, read_rows
from pipeline.errors import CorpusError
from pipeline.models.settle import settle
from pipeline.prompts import Plan, open_source
from pipeline.run import run
from pipeline.session import Session, prepare
from tests import tiny
from tests.test_golden import Silent

FIXTURE = Path(__file__).with_name("format1.tar.xz")
KEYS = ["00000000000", "00000000001", "00000300000"]
DERIVED = ["train/000000.idx", "train/000003.idx", "train/sizes.json", "wids-train.json"]


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> Path:
    """A folder with the old corpus as it was drawn, its evidence, and what it was drawn from; in the config what has
    another place today is there."""
    with tarfile.open(FIXTURE) as tar:
        tar.extractall(tmp_path, filter="data")
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["audit"]["detectors"] = [{key: config["audit"].pop(key) for key in ("detector", "options")}]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copytree(tiny.path(), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def begun(drawn) -> Path:
    """The same, as if this version had begun it: with its identity, its detector, and the model as it
    comes out on this machine."""
    config = settle(load_config(drawn / "config.yaml", [f"output.path={drawn}/other"]))
    now = prepare(Session(config, device="cpu"), Plan.build(config, open_source(config.prompts)).summary())
    path = drawn / "corpus" / layout.RUN
    pinned = yaml.safe_load(path.read_bytes())
    own = {key: getattr(now, key) for key in ("digest", "identity", "model_revision", "detectors")}
    path.write_text(yaml.safe_dump({**pinned, **own}))
    for record in committed(open_store(drawn / "corpus")).values():
        (drawn / "corpus" / layout.commit(record.shard)).write_bytes(replace(record, identity=now.digest).dumps())
    (drawn / "corpus.evidence/evidence.json").unlink()
    return drawn


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_corpus_of_format_1_is_read_verified_finished_and_purged(drawn, capsys):
    before = contents(drawn / "corpus")
    assert main(["verify", "corpus"]) == 0
    assert [key for key, _, _ in open_corpus("corpus", keys=True)] == KEYS
    assert "4 of 4 shards, 8 of 8 samples" in status("corpus").text()
    assert main(["finish", "corpus"]) == 0
    after = contents(drawn / "corpus")
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {"README.md", "report.html"}, "whose words are those of the version that finishes"
    for name in DERIVED:
        (drawn / "corpus" / name).unlink()
    assert main(["verify", "corpus"]) == 1
    said = capsys.readouterr().out
    assert all(f"{name}: missing; derive it anew" in said for name in DERIVED)
    finish("corpus")
    assert contents(drawn / "corpus") == after
    (drawn / "corpus/train/000000.tar.idx").touch()  # as Energon makes them
    assert verify("corpus") == []
    assert purge_evidence("corpus") == 3
    assert verify("corpus") == []


def forget(corpus: Path, *shards: int) -> None:
    """Take a corpus back to where these shards were not yet drawn, and therefore nothing was derived."""
    for shard in shards:
        for path in (layout.commit(shard), layout.tar(shard), layout.manifest(shard), layout.dali(shard, 1)):
            (corpus / path).unlink(missing_ok=True)
        (corpus.with_name("corpus.evidence") / layout.quarantine_tar(shard)).unlink(missing_ok=True)
    for path in layout.derived(1):
        (corpus / path).unlink()


def test_a_run_begun_under_format_1_is_resumed_finished_and_repaired_as_format_1(begun):
    corpus = begun / "corpus"
    rows = {shard: read_rows((corpus / layout.manifest(shard)).read_bytes()) for shard in range(4)}
    kept, names = contents(corpus), set(contents(corpus))
    forget(corpus, 1, 3)
    assert main(["run", "config.yaml", "--accept-environment"]) == 0
    after = contents(corpus)
    assert set(after) == names, "no index/, and no tar of a shard of which nothing is kept"
    redrawn = [*(layout.commit(s) for s in (1, 3)), *(layout.manifest(s) for s in (1, 3)), layout.tar(3)]
    derived = [*layout.derived(1), layout.dali(3, 1)]
    assert all(after[name] == kept[name] for name in names - {*redrawn, *derived})
    assert {record.format for record in committed(open_store(corpus)).values()} == {1}
    for shard in (1, 3):
        again = read_rows(after[layout.manifest(shard)])
        assert [(row.key, row.prompt, row.seed, row.status) for row in again] == [
            (row.key, row.prompt, row.seed, row.status) for row in rows[shard]
        ]
    schemas = {pq.read_schema(corpus / layout.manifest(shard)) for shard in range(4)}
    assert len(schemas) == 1
    assert verify("corpus") == []
    for name in (layout.tar(3), layout.manifest(1)):
        (corpus / name).unlink()
    assert main(["repair", "config.yaml"]) == 0
    assert contents(corpus) == after


def test_a_shard_of_which_nothing_is_kept_has_an_empty_tar_in_format_2(drawn):
    config = load_config("config.yaml", ["output.path=new"])
    assert run(config, progress=Silent()).exit_code == 0
    store = open_store("new")
    assert require_run_record(store).format == layout.FORMAT == 2
    assert [entry.path for entry in store.list("train")] == [layout.tar(shard) for shard in range(4)]
    assert [entry.path for entry in store.list("index")] == [
        "index/000000.idx",
        "index/000003.idx",
        "index/rows.json",
        "index/rows/blocks.bin",
        "index/rows/column-caption.arrow",
        "index/rows/rows.bin",
        "index/rows/shards.bin",
        "index/wids.json",
    ]
    assert store.read(layout.tar(1)) == bytes(tarfile.RECORDSIZE)
    metadata = pq.read_schema(drawn / "new" / layout.manifest(1)).metadata
    assert metadata[b"lacuna.manifest"] == str(SCHEMA).encode()
    assert verify("new") == []
    assert [key for key, _, _ in open_corpus("new", keys=True)] == KEYS
    before = contents(drawn / "new")
    for name in (layout.tar(1), layout.tar(2)):
        store.delete(name)
    assert [line.partition(" (")[0] for line in verify("new")] == [f"train/00000{s}.tar: missing" for s in (1, 2)]
    assert main(["repair", "config.yaml", "output.path=new"]) == 0
    assert contents(drawn / "new") == before


@pytest.mark.parametrize("command", ["verify", "status", "finish", "purge", "repair"])
def test_a_format_that_is_not_known_is_one_line(command, drawn, capsys):
    path = drawn / "corpus/run.yaml"
    path.write_text(path.read_text().replace("format: 1\n", "format: 3\nnew: true\n"))
    before = contents(drawn)
    assert main([command, "corpus"]) == 2
    assert capsys.readouterr().err.endswith(
        f"{path}: has corpus format 3; this version of Lacuna reads the formats 1 and 2\n"
    )
    assert contents(drawn) == before
    with pytest.raises(CorpusError, match="has corpus format 3"):
        open_corpus("corpus")


def test_a_commit_of_another_format_than_its_corpus_is_found(drawn):
    path = drawn / "corpus/commits/000000.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert verify("corpus") == ["commits/000000.json: is of format 2, the corpus of format 1"]
