"""What is damaged or missing of a corpus is drawn again, and put back only if it is the bytes that were committed."""

import hashlib
import itertools
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.cli import main
from pipeline.config import SEMANTICS, load_config
from pipeline.corpus import (
    FailureRecord,
    committed,
    finish,
    inspect,
    open_store,
    purge_evidence,
    record_failure,
    require_run_record,
    status,
    verify,
)
from pipeline.models.settle import settle
from pipeline.prompts import Plan, open_source
from pipeline.repair import Repaired, recorded_config, repair
from pipeline.run import run
from pipeline.session import Session, prepare
from pipeline.worker import Worker
from tests import tiny, tiny_eyes
from tests.test_golden import Silent

CONFIG = """
model: {{path: {model}}}
erasure:
  concepts: [{{name: light, anchor: dark}}]
  recipe: [{{method: uce, options: {{keep: [cat, dog, tiger], templates: ["{{}}", "a {{}}", "a photo of a {{}}"]}}}}]
prompts: {{source: prompts.txt}}
generation: {{steps: 2, size: [32, 32], compile: none, batch_size: 2}}
audit: {{detectors: [{{detector: "tests.eyes:Brightness", options: {{cut: {cut}}}}}], policy: quarantine}}
output: {{path: {output}, samples_per_shard: 4, image_format: png}}
cluster: {{backend: local, device: cpu}}
"""
EVERYTHING = {
    "a missing tar": lambda s, e: s.delete("train/000001.tar"),
    "a short tar": lambda s, e: s.write("train/000000.tar", s.read("train/000000.tar")[:-512]),
    "a changed bit of a tar": lambda s, e: flip(s, "train/000002.tar"),
    "a missing manifest": lambda s, e: s.delete("manifests/000001.parquet"),
    "a changed bit of a manifest": lambda s, e: flip(s, "manifests/000000.parquet"),
    "tensors": lambda s, e: s.delete(tensors(s)),
    "an index": lambda s, e: s.delete("index/000001.idx"),
    "what the loader reads": lambda s, e: flip(s, "index/rows/rows.bin"),
    "the report": lambda s, e: s.delete("report.html"),
    "the card": lambda s, e: s.delete("README.md"),
    "a commit record": lambda s, e: s.delete("commits/000001.json"),
    "evidence": lambda s, e: e.delete("quarantine/000002.tar"),
    "changed evidence": lambda s, e: flip(e, "quarantine/000000.tar"),
}


def flip(store, path, position=700):
    data = bytearray(store.read(path))
    data[position % len(data)] ^= 1
    store.write(path, bytes(data))


def recommit(store, shard, change) -> None:
    record = committed(store)[shard]
    store.write(f"commits/{shard:06d}.json", replace(record, files=tuple(map(change, record.files))).dumps())


def tensors(store) -> str:
    return next(entry.path for entry in store.list("recipe"))


def bytes_of(*stores) -> dict[str, str]:
    """The digest of every file but those that say when: records of commits and what quotes their times."""
    return {
        f"{store.url.rpartition('.')[2] == 'evidence'} {entry.path}": hashlib.sha256(store.read(entry.path)).hexdigest()
        for store in stores
        for entry in store.list()
        if not entry.path.startswith(("commits/", "report.html", "evidence.json"))
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a config and its corpus of three shards, in each of which some pictures are quarantined."""
    folder = tmp_path_factory.mktemp("made")
    write(folder, folder / "corpus", 0.5)
    assert run(load_config(folder / "c.yaml"), progress=Silent()).exit_code == 0
    rows = [record.counts for record in committed(open_store(folder / "corpus")).values()]
    assert len(rows) == 3
    assert [bool(counts["quarantined"]) for counts in rows][::2] == [True, True]
    return folder


def write(folder: Path, output: object, cut: float) -> None:
    (folder / "prompts.txt").write_text("".join(f"a light and a dog {i}\n" for i in range(12)))
    (folder / "c.yaml").write_text(CONFIG.format(model=tiny.path(), output=output, cut=cut))


@pytest.fixture
def corpus(made, tmp_path):
    """(config, corpus, evidence) of a copy."""
    for name in ("corpus", "corpus.evidence"):
        shutil.copytree(made / name, tmp_path / name)
    config = load_config(made / "c.yaml", [f"output.path={tmp_path}/corpus"])
    finish(config.output.path)  # the card names the path
    return config, open_store(tmp_path / "corpus"), open_store(tmp_path / "corpus.evidence")


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVERYTHING)
def test_each_kind_of_damage_is_mended(kind, corpus):
    config, store, evidence = corpus
    before = bytes_of(store, evidence)
    EVERYTHING[kind](store, evidence)
    assert any("lacuna repair" in line or "lacuna finish" in line for line in inspect(store.url).remedies(store.url))
    done = repair(config)
    assert done.left == []
    assert verify(store.url) == []
    assert bytes_of(store, evidence) == before
    assert repair(config).mended == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "beside"),
    [("commits/000001.json", False), ("failures/000001-0000.json", False), ("evidence.json", True),
     ("pairs/pairs.json", True)],
)  # fmt: skip
def test_a_torn_record_is_a_line_that_says_what_mends_it(name, beside, corpus, made, capsys):
    _, *stores = corpus
    record_failure(stores[0], FailureRecord(shard=1, kind="error", message="told"))
    place, before = stores[beside], bytes_of(*stores)
    place.write(name, place.read(name)[:20])
    command = ["run", str(made / "c.yaml"), f"output.path={stores[0].url}"]
    capsys.readouterr()
    assert main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lacuna: ")]
    assert line.startswith(f"lacuna: {place.url}/{name}: ")
    assert "delete" in line
    place.delete(name)
    assert main(command) == 0
    assert verify(stores[0].url) == []
    if name.startswith(("failures", "pairs")):  # which nobody writes again
        del before[f"{beside} {name}"]
    assert bytes_of(*stores) == before


def damage_all(store, evidence) -> None:
    for kind in ("a missing tar", "a short tar", "a changed bit of a manifest", "the report", "evidence"):
        EVERYTHING[kind](store, evidence)
    flip(store, tensors(store))


@pytest.mark.slow
def test_all_at_once_on_an_object_store_from_the_path_alone(made, s3, capsys):
    path = f"s3://corpora/{uuid.uuid4().hex}"
    given = [f"{key}={value}" for key, value in s3.items()]
    options = ", ".join(f"{key}: '{value}'" for key, value in s3.items())
    config = load_config(made / "c.yaml", [f"output.path={path}", f"output.storage_options={{{options}}}"])
    assert run(config, progress=Silent()).exit_code == 0
    store, evidence = open_store(path, s3), open_store(f"{path}.evidence", s3)
    before = bytes_of(store, evidence)
    damage_all(store, evidence)
    storage = [word for option in given for word in ("--storage", option)]
    assert main(["verify", path, *storage]) == 1
    assert f"lacuna repair {path} with the same --storage" in capsys.readouterr().out
    assert main(["repair", path, *storage]) == 0
    assert "train/000001.tar: drawn again and put back" in capsys.readouterr().out
    assert main(["verify", path, *storage]) == 0
    assert bytes_of(store, evidence) == before


@pytest.mark.slow
def test_run_status_and_finish_agree_on_what_is_damaged_and_name_the_command(corpus, made, capsys):
    _, store, _ = corpus
    store.delete("train/000001.tar")
    flip(store, "manifests/000002.parquet")
    lines = [
        "train/000001.tar: missing (committed, ",
        "manifests/000002.parquet: sha256 is not the one committed",
    ]
    assert main(["run", str(made / "c.yaml"), f"output.path={store.url}"]) == 1
    ran = capsys.readouterr().out
    assert main(["finish", store.url]) == 1
    finished = capsys.readouterr().out
    told = status(store.url)
    assert told.shards == 1
    for line in lines:
        assert all(line in text for text in (ran, finished, told.text(), "\n".join(verify(store.url))))
    for text in (ran, told.text()):
        assert f"lacuna repair {store.url}" in text
    assert main(["repair", str(made / "c.yaml"), f"output.path={store.url}"]) == 0
    assert status(store.url).shards == 3
    assert main(["run", str(made / "c.yaml"), f"output.path={store.url}"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_it_is_whole_after_the_next(after, corpus, monkeypatch):
    config, store, evidence = corpus
    before = bytes_of(store, evidence)
    write = type(store).write
    for kill in (1, 2):
        for kind in ("a missing tar", "a missing manifest"):
            EVERYTHING[kind](store, evidence)
        count = itertools.count(1)

        def mortal(self, path, data, kill=kill, count=count):
            number = next(count)
            if number != kill or after:
                write(self, path, data)
            if number == kill:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(store), "write", mortal)
            with pytest.raises(KeyboardInterrupt):
                repair(config)
        assert repair(config).left == []
        assert verify(store.url) == []
        assert bytes_of(store, evidence) == before


def test_what_comes_out_otherwise_replaces_nothing_and_says_what_differs(corpus):
    config, store, _ = corpus
    flip(store, "train/000001.tar")
    damaged = store.read("train/000001.tar")
    recommit(store, 1, lambda file: replace(file, sha256="0" * 64) if file.name.startswith("train/") else file)
    done = repair(config)
    (line,) = done.left
    assert line.startswith("train/000001.tar: drawn again it differs (sha256 ")
    assert line.endswith(f" where {'0' * 16} was committed); nothing was replaced")
    assert (done.mended, store.read("train/000001.tar")) == ([], damaged)
    assert main(["repair", store.url]) == 1


def test_another_environment_is_refused_unless_accepted(corpus):
    config, store, _ = corpus
    store.delete("train/000001.tar")
    store.delete("train/000002.tar")
    record = committed(store)[1]
    environment = {**record.environment, "torch": "0.1"}
    store.write("commits/000001.json", replace(record, environment=environment).dumps())
    done = repair(config)
    (line,) = done.left
    assert line.startswith("train/000001.tar: was made in another environment (torch: 0.1 -> ")
    assert "--accept-environment" in line
    assert done.mended == ["train/000002.tar: drawn again and put back"]
    done = repair(config, accept_environment=True)
    assert done.left == []
    assert verify(store.url) == []


def test_evidence_that_was_purged_stays_away(corpus):
    config, store, evidence = corpus
    purge_evidence(store.url)
    assert verify(store.url) == []
    assert repair(config) == Repaired()
    store.delete("train/000000.tar")
    assert repair(config).left == []
    assert not list(evidence.list("quarantine"))


@pytest.mark.slow
def test_a_sample_that_was_left_out_is_left_out_again(made, tmp_path):
    """The manifest names it, or where that is gone too the record of the failure."""
    config = settle(load_config(made / "c.yaml", [f"output.path={tmp_path}/corpus"]))
    plan = Plan.build(config, open_source(config.prompts))
    record = prepare(Session(config, device="cpu"), plan.summary())
    worker, blamed = Worker(Session(config, device="cpu"), record), plan.shard(1).samples[2].key
    for shard in range(3):
        worker.process(plan.shard(shard), "a", frozenset({blamed})).result()
    worker.close()
    store = open_store(config.output.path)
    record_failure(store, FailureRecord(shard=1, kind="blamed", message="it kills", sample_key=blamed))
    for gone in (("train",), ("train", "manifests")):
        for folder in gone:
            store.delete_tree(folder)
        assert repair(config).left == []
        assert verify(store.url) == []


def test_what_nobody_can_draw_again_stays_and_is_said(corpus):
    config, store, _ = corpus
    store.copy("train/000000.tar", "train/000009.tar")
    done = repair(config)
    assert done.left == ["train/000009.tar: no commit names it"]


def test_a_corpus_of_another_version_is_left_to_that_one(corpus, capsys):
    _, store, _ = corpus
    store.delete("train/000000.tar")
    record = require_run_record(store)
    store.write("run.yaml", replace(record, identity={**record.identity, "semantics": 3}).dumps())
    assert main(["repair", store.url]) == 2
    assert f"(semantics: 3 -> {SEMANTICS}); repair it with that version" in capsys.readouterr().err
    store.write("run.yaml", replace(record, identity={**record.identity, "audit.detector": "diorama"}).dumps())
    assert main(["repair", store.url]) == 2
    assert "is now audit.detectors[0].detector); repair it with that version" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_config_named_by_relative_paths_is_found_again(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "configs"
    folder.mkdir()
    write(folder, tmp_path / "corpus", 0.5)
    shutil.copytree(tiny.path(), folder / "model")
    Image.new("RGB", (32, 32), "white").save(folder / "light.png")
    written = (folder / "c.yaml").read_text().replace(str(tiny.path()), "./model")
    (folder / "c.yaml").write_text(written.replace("{name: light,", "{name: light, references: [light.png],"))
    monkeypatch.chdir(folder)
    assert main(["calibrate", "c.yaml", _labelled(folder), "-o", "calibration.json"]) == 0
    named = ", calibration: calibration.json}], policy"
    (folder / "c.yaml").write_text((folder / "c.yaml").read_text().replace("}], policy", named))
    assert run(load_config("c.yaml"), progress=Silent()).exit_code == 0
    store = open_store(tmp_path / "corpus")
    store.delete("train/000001.tar")
    monkeypatch.chdir(tmp_path)
    assert main(["repair", store.url]) == 0
    assert verify(store.url) == []
    store.delete("train/000001.tar")
    (folder / "light.png").unlink()
    capsys.readouterr()
    assert main(["repair", store.url]) == 2
    assert capsys.readouterr().err.endswith(f"references[0]: {folder}/light.png: no such file\n")


@pytest.mark.slow
def test_a_corpus_with_quality_is_repaired_from_anywhere_and_refuses_another_checkpoint(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "configs"
    folder.mkdir()
    write(folder, tmp_path / "corpus", 0.5)
    tiny_eyes.clip(folder / "clip")
    save_file({"weight": torch.ones(16)}, folder / "head.safetensors")
    quality = "hash, {measure: clip, options: {model: ./clip}}, {measure: aesthetic, options: {model: ./clip, head: "
    written = (folder / "c.yaml").read_text()
    (folder / "c.yaml").write_text(written.replace("audit: {", f"audit: {{quality: [{quality}head.safetensors}}}}], "))
    monkeypatch.chdir(folder)
    assert run(load_config("c.yaml"), progress=Silent()).exit_code == 0
    output, monkey = tmp_path / "corpus", monkeypatch
    stores = open_store(output), open_store(f"{output}.evidence")
    before = bytes_of(*stores)
    monkey.chdir(tmp_path)
    for damaged in ("manifests/000001.parquet", "train/000000.tar", "commits/000002.json"):
        stores[0].delete(damaged)
        assert main(["repair", str(output)]) == 0, damaged
        assert bytes_of(*stores) == before, damaged
    assert verify(str(output)) == []
    save_file({"weight": torch.zeros(16)}, folder / "head.safetensors")
    stores[0].delete("train/000000.tar")
    capsys.readouterr()
    assert main(["repair", str(output)]) == 2
    told = capsys.readouterr().err
    assert "audit.quality[2]: aesthetic is now another than the corpus was begun with: weights and code: sha2" in told


def _labelled(folder: Path) -> str:
    """Return a folder of pictures, a white one that shows "light" and one that does not, brighter than any drawn."""
    for name, colour in (("light", "white"), ("none", "snow")):
        (folder / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), colour).save(folder / "pictures" / name / "0.png")
    return str(folder / "pictures")


def test_wrong_input_is_one_line(corpus, made, tmp_path, capsys):
    _, store, _ = corpus
    store.delete("train/000000.tar")
    for words, expected in (
        ([str(tmp_path / "nothing")], "no corpus is here (run.yaml is missing)"),
        ([str(tmp_path / "nothing.yaml")], "no such config file"),
        ([store.url, "seed=1"], "is no config file, so it takes no seed=1"),
        ([str(made / "c.yaml"), f"output.path={store.url}", "seed=1"], "holds another corpus (seed: 0 -> 1)"),
        ([str(made / "c.yaml"), f"output.path={store.url}", "--storage", "a=b"], "--storage is for a corpus"),
    ):
        assert main(["repair", *words]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
    (made / "prompts.txt").rename(made / "moved.txt")
    try:
        assert main(["repair", store.url]) == 2
        assert f"{made}/prompts.txt" in capsys.readouterr().err
    finally:
        (made / "moved.txt").rename(made / "prompts.txt")
    assert recorded_config(store.url, {}).output.path == store.url
