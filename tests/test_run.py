"""A run in this process, from config to finished corpus: resume, refusals, interruption."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from pipeline.cli import main
from pipeline.cluster.process import terminable
from pipeline.config import SEMANTICS, load_config
from pipeline.config.schema import Config
from pipeline.corpus import (
    Output,
    Status,
    Store,
    committed,
    failures,
    open_store,
    opening,
    read_run_record,
    remote,
    status,
    verify,
)
from pipeline.corpus.evidence import read_pairs
from pipeline.corpus.loader import Corpus, Loader
from pipeline.corpus.manifest import read_rows
from pipeline.errors import ConfigError, CorpusError, LacunaError
from pipeline.models.dtype import fast_dtype
from pipeline.prompts import tables
from pipeline.run import _stopped, run
from pipeline.version import this_version
from tests import opened, tiny, tiny_eyes, tiny_families
from tests.counted import Counted
from tests.erasure.conftest import uce_step
from tests.progress import Lines, Silent

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
model: {{path: {model}, dtype: float32}}
prompts: {{source: prompts.txt}}
generation: {{steps: {steps}, size: [32, 32], batch_size: 4, compile: none}}
output: {{path: {output}, samples_per_shard: 4}}
cluster: {{backend: local, device: cpu}}
"""


FILES = (("train", "tar"), ("index", "idx"), ("manifests", "parquet"))  # of a shard


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("model"))


def write(folder: Path, model: str, prompts: int = 10, steps: int = 2) -> Path:
    (folder / "prompts.txt").write_text("".join(f"a photo of a dog {i}\n" for i in range(prompts)))
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(model=model, output=folder / "corpus", steps=steps))
    return path


def load(path: Path, *overrides: str) -> Config:
    return load_config(path, list(overrides))


def store_of(folder: Path) -> Store:
    return open_store(str(folder / "corpus"))


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "corpus" / "train").glob("*.tar")}


def test_a_run_a_deleted_shard_and_the_same_bytes_again(model: str, tmp_path: Path) -> None:
    path = write(tmp_path, model)
    outcome = run(load(path), progress=Silent())
    assert (outcome.exit_code, outcome.failed) == (0, ())
    assert "3 of 3 shards, 10 ok" in outcome.message
    assert outcome.message.splitlines()[-1] == f"look at {tmp_path}/corpus/report.html", "no erasure, no evidence"
    first = tars(tmp_path)
    assert len(first) == 3
    for name in ("commits/000001.json", "train/000001.tar", "manifests/000001.parquet"):
        (tmp_path / "corpus" / name).unlink()
    assert run(load(path), progress=Silent()).exit_code == 0
    assert tars(tmp_path) == first
    assert verify(str(tmp_path / "corpus")) == []


@pytest.mark.slow
def test_quality_alone_judges_nothing_comes_out_the_same_after_a_stop_and_is_read_by(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    asked = (
        "audit.quality=[hash, sharpness, {measure: clip, options: {model: ./clip}},"
        " {measure: embedding, options: {model: ./clip}}]"
    )
    tiny_eyes.clip(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, model)
    assert run(load(path, asked), progress=Silent()).exit_code == 0
    corpus = str(tmp_path / "corpus")
    assert [facts["name"] for facts in read_run_record(store_of(tmp_path)).quality] == [
        "hash",
        "sharpness",
        "clip",
        "embedding",
    ]
    first = {entry.path: store_of(tmp_path).read(entry.path) for entry in store_of(tmp_path).list("manifests")}
    for shard in (0, 2):
        store_of(tmp_path).delete(f"commits/{shard:06d}.json")
        store_of(tmp_path).delete(f"manifests/{shard:06d}.parquet")
    assert run(load(path, asked), progress=Silent()).exit_code == 0
    assert {entry.path: store_of(tmp_path).read(entry.path) for entry in store_of(tmp_path).list("manifests")} == first
    assert verify(corpus) == []
    with pytest.raises(
        ConfigError, match=r"holds another corpus \(audit\.quality\[0\]\.measure: \"hash\" -> \(absent\)"
    ):
        run(load(path))
    for page in ("README.md", "report.html"):
        text = store_of(tmp_path).read(page).decode()
        assert "what they show was not judged" in text
        assert "None of it decided what is kept" in text
        assert (
            "clip: model clip; dtype float32; licence not stated beside its weights; weights and code sha256:" in text
        )
    assert "Nearly alike, by embedding" in text
    rows = [row for data in first.values() for row in pq.read_table(pa.BufferReader(data)).to_pylist()]
    middle = sorted(row["clip"] for row in rows)[5]
    read = Corpus(corpus, where=f"clip >= {middle} and sharpness > 0", columns=["key", "clip", "hash", "embedding"])
    assert [sample["key"] for sample in read] == [row["key"] for row in rows if row["clip"] >= middle]
    batch = next(iter(Loader(read, batch_size=3, shuffle=False)))
    assert (batch["embedding"].shape, batch["embedding"].dtype) == ((3, 16), torch.float16)
    assert (batch["hash"].dtype, batch["clip"].dtype) == (torch.int64, torch.float32)
    with pytest.raises(ConfigError, match=r"no column .*'clop'|'clop' .*\(did you mean 'clip'\?\)"):
        Corpus(corpus, where="clop > 25")


SEEING = "{detector: tests.eyes:Brightness, options: {cut: 0}}"


def test_a_corpus_of_which_nothing_may_be_trained_on_is_no_success(model: str, tmp_path: Path) -> None:
    seeing = (
        "erasure.concepts=[{name: light}]",
        "erasure.recipe=[]",
        "audit.detectors=[{detector: tests.eyes:Brightness, options: {cut: 0}}]",
    )
    for policy in ("quarantine", "drop"):
        config = load(write(tmp_path, model, prompts=3), *seeing, f"audit.policy={policy}")
        config.output.path = str(tmp_path / policy)
        for _ in range(2):  # also where it was drawn before
            outcome = run(config, progress=Silent())
            assert (outcome.exit_code, outcome.failed) == (1, ())
            assert "3 quarantined" in outcome.message or "3 dropped" in outcome.message
            assert "nothing was kept: no picture of this corpus may be trained on" in outcome.message
        assert verify(config.output.path) == []


def test_a_resume_reads_each_commit_once_and_an_interrupt_none(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, model)
    run(load(path), progress=Silent())
    for name in ("commits/000001.json", "train/000001.tar", "manifests/000001.parquet"):
        (tmp_path / "corpus" / name).unlink()
    stores: list[Counted] = []

    def counted(*args: Any) -> Counted:
        stores.append(Counted(open_store(*args)))
        return stores[-1]

    monkeypatch.setattr(opening, "open_store", counted)
    outcome = run(load(path), progress=Silent())
    assert "3 of 3 shards, 10 ok" in outcome.message, "what was read by the run is counted by its coordinator"
    corpus = next(store for store in stores if store.url == f"{tmp_path}/corpus")
    begun = corpus.calls.index(("create", "commits/000001.json"))  # afterwards it finishes, for which it reads all
    read = [name for method, name in corpus.calls[:begun] if method == "read" and name.startswith("commits/")]
    assert sorted(read) == ["commits/000000.json", "commits/000002.json"]
    assert run(load(path), progress=Silent()).message.startswith(f"{tmp_path}/corpus: 3 of 3 shards, 10 ok")

    stores.clear()
    assert _stopped(Output.of(load(path).output)).startswith("stopped: 3 of 3 shards")
    assert [name for store in stores for name in store.read_under("commits")] == []


@pytest.mark.slow
def test_a_local_run_loads_and_digests_its_model_once_and_opens_each_store_once(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, model, prompts=4)
    cat = {"name": "cat", "aliases": ["kitten"], "anchor": "dog", "preserve": ["tiger", "lion"]}
    erasure = {"concepts": [cat], "recipe": [{"method": "uce", "options": uce_step().options}, {"method": "cease"}]}
    config = load(
        path, f"erasure={json.dumps(erasure)}", "audit.detectors=[{detector: diorama}]", "generation.size=[64, 64]"
    )
    noted: list[str] = []
    opened.watch(noted.append, monkeypatch.setattr)
    assert run(config, progress=Silent()).exit_code == 0
    assert len(read_pairs(open_store(f"{tmp_path}/corpus.evidence"))) == 4
    assert sorted(noted) == ["detector", "digest", "model", "store", "store", "store"]  # the last is this test's own


@pytest.mark.parametrize(
    "override",
    [
        "generation.size=[36, 36]",
        "audit.detectors=[{detector: nudenet}]",
        "prompts.source=none.txt",
        "model.path=none",
    ],
)
def test_a_run_that_is_refused_leaves_no_folder(model: str, tmp_path: Path, override: str) -> None:
    path = write(tmp_path, model)
    with pytest.raises(LacunaError):
        run(load(path, "output.path=" + f"{tmp_path}/new/corpus", "erasure.concepts=[{name: cat}]", override))
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()  # what was there stays
    with pytest.raises(LacunaError):
        run(load(path, "output.path=" + f"{tmp_path}/new/corpus", "erasure.concepts=[{name: cat}]", override))
    assert list((tmp_path / "new").iterdir()) == []


BAD_ROWS = {
    "a blank prompt": ({"prompt": " "}, "column 'prompt' is blank; expected a prompt"),
    "a bad seed": ({"seed": -1}, "column seed: is -1; expected a whole number from 0 to 2^63 - 1"),
    "a bad size": ({"size": "big"}, "column size: is 'big'; expected such as '64x64' or [64, 64]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_that_is_met_only_while_drawing_fails_alone(
    kind: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a recipe, for which the first shards are also read to choose the evidence's pairs."""
    monkeypatch.setattr(tables, "WHOLE", 4)
    monkeypatch.setattr(tables, "SAMPLED", 4)
    fields, fault = BAD_ROWS[kind]
    rows = [{"prompt": f"a photo of a {('cat', 'dog')[i % 2]} {i}", "seed": i, "size": "32x32"} for i in range(8)]

    def source(name: str) -> str:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
        return f"prompts.source={tmp_path / f'{name}.parquet'}"

    sound = source("sound")
    rows[5] |= fields
    path = write(tmp_path, model)
    erasure = ["erasure.concepts=[{name: cat}]", 'erasure.recipe=[{method: "tests.cluster.poison:Poison"}]']
    outcome = run(load(path, source("bad"), *erasure), progress=Silent())
    assert (outcome.exit_code, outcome.failed) == (
        1,
        (f"sample 00000100001: {tmp_path / 'bad.parquet'}: row 6: {fault}",),
    )
    assert "2 of 2 shards, 1 failed, 7 ok" in outcome.message
    assert outcome.failed[0] in outcome.message
    pairs = read_pairs(open_store(str(tmp_path / "corpus.evidence")))
    assert [pair.prompt for pair in pairs] == [row["prompt"] for i, row in enumerate(rows) if i != 5]
    row = read_rows(store_of(tmp_path).read("manifests/000001.parquet"))[1]
    assert (row.status, row.reason, row.sha256) == (Status.failed, f"bad row: {fault}", None)
    assert verify(str(tmp_path / "corpus")) == []
    assert f"failed, bad row: 1\n    00000100001: {fault}" in status(str(tmp_path / "corpus")).text()
    resumed = run(load(path, source("bad"), *erasure), progress=Silent())
    assert (resumed.exit_code, resumed.failed) == (1, outcome.failed), "storage knows it, not this run"
    assert run(load(path, source("bad"), *erasure, "prompts.bad_rows=skip"), progress=Silent()).exit_code == 0
    found = pictures(tmp_path)
    for folder in ("corpus", "corpus.evidence"):
        shutil.rmtree(tmp_path / folder)
    assert run(load(path, sound, *erasure), progress=Silent()).exit_code == 0
    whole = pictures(tmp_path)
    assert whole.pop("00000100001")
    assert found == whole, "its neighbours are drawn as if it were sound"


def pictures(folder: Path) -> dict[str, str | None]:
    names = ("manifests/000000.parquet", "manifests/000001.parquet")
    rows = [row for name in names for row in read_rows(store_of(folder).read(name))]
    return {row.key: row.sha256 for row in rows if row.status is Status.ok}


def test_a_bad_row_is_refused_before_any_work_or_skipped(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, model)
    (tmp_path / "prompts.txt").write_bytes(b"a photo of a dog\ncaf\xe9\n")
    with pytest.raises(ConfigError, match=r"row 2: column 'prompt' is not UTF-8 text .*; 1 of 2 rows cannot be drawn"):
        run(load(path), progress=Silent())
    assert not (tmp_path / "corpus" / "run.yaml").exists()
    assert main(["run", str(path), "prompts.bad_rows=skip"]) == 0
    told = capsys.readouterr()
    assert "2 of 2" not in told.out
    assert "1 of 1 shards, 1 failed, 1 ok" in told.out
    assert "bad rows  1, each a failed row of the manifest; the first: " in told.err
    assert "columns" not in told.err, "there is but the prompt"


def test_a_size_that_the_loaded_model_refuses_makes_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path, tiny_families.path("sd3"))
    rows = [{"prompt": f"a photo of a dog {i}", "size": size} for i, size in enumerate(["32x32", "32x4096", None])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    source = f"prompts.source={tmp_path / 'prompts.parquet'}"
    with pytest.raises(ConfigError, match=r"row 2: height 4096 is above .*; 1 of 3 rows ask for this size: mend them"):
        run(load(path, source), progress=Silent())
    assert run(load(path, source, "prompts.bad_rows=skip"), progress=Silent()).exit_code == 0
    rows = read_rows(store_of(tmp_path).read("manifests/000000.parquet"))
    assert [row.status for row in rows] == [Status.ok, Status.failed, Status.ok]
    assert rows[1].reason.startswith("bad row: height 4096 is above ")
    assert (rows[1].width, rows[1].height) == (32, 32)


@pytest.mark.slow
def test_a_run_to_s3_is_killed_and_goes_on_to_the_bytes_of_one_on_disk(
    model: str, tmp_path: Path, s3: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of pictures of two sizes by turns, which share no batch."""
    path, url = write(tmp_path, model, prompts=32, steps=15), f"s3://corpora/{tmp_path.name}"
    rows = [{"prompt": f"a photo of a dog {i}", "size": ("32x32", "40x32")[i % 2]} for i in range(32)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    source = f"prompts.source={tmp_path / 'prompts.parquet'}"
    options = [f"{key}={value}" for key, value in s3.items()]
    there = [f"output.path={url}", *(f"output.storage_options.{option}" for option in options)]
    words = ["run", str(path), source, *there]
    store = open_store(url, s3)
    process = subprocess.Popen([sys.executable, "-m", "pipeline.cli", *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    while len(list(store.list("commits"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert 2 <= len(list(store.list("commits"))) < 8

    assert main(words) == 0
    assert f"{url}: 8 of 8 shards, 32 ok\nlook at {url}/report.html\n" in capsys.readouterr().out
    storage = [word for option in options for word in ("--storage", option)]
    assert main(["verify", url, *storage]) == 0
    assert capsys.readouterr().out == f"{url}: sound\n"
    assert main(["status", url, *storage]) == 0
    said = capsys.readouterr().out
    assert "8 of 8 shards, 32 of 32 samples" in said
    assert f"look at     {url}/report.html\n" in said

    assert run(load(path, source), progress=Silent()).exit_code == 0
    for name in [f"{kind}/{shard:06d}.{end}" for shard in range(8) for kind, end in FILES]:
        assert store.read(name) == store_of(tmp_path).read(name), name


def test_a_resume_under_another_identity_is_refused_with_the_difference(model: str, tmp_path: Path) -> None:
    path = write(tmp_path, model)
    run(load(path), progress=Silent())
    with pytest.raises(LacunaError, match=r"seed.*0 -> 5") as caught:
        run(load(path, "seed=5"), progress=Silent())
    assert "\n" not in str(caught.value)


def test_a_commit_beyond_the_plan_is_refused_before_any_work(model: str, tmp_path: Path) -> None:
    config = load_config(write(tmp_path, model))
    assert run(config, progress=Silent()).exit_code == 0
    commits = Path(config.output.path) / "commits"
    (commits / "000003.json").write_text(json.dumps(json.loads((commits / "000002.json").read_text()) | {"shard": 3}))
    (commits / "000001.json").unlink()
    with pytest.raises(CorpusError, match=r"commits/000003\.json: no such shard was planned, the plan has 3; "):
        run(config, progress=Silent())


def test_a_corpus_of_another_version_is_refused_as_such(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, model, prompts=4)
    module = sys.modules["pipeline.config.identity"]  # by its name one would get the function
    monkeypatch.setattr(module, "SEMANTICS", SEMANTICS - 1)
    run(load(path), progress=Silent())
    monkeypatch.undo()
    told = rf"another version of Lacuna.*\(semantics: {SEMANTICS - 1} -> {SEMANTICS}\)"
    file = tmp_path / "corpus/run.yaml"
    recorded = yaml.safe_load(file.read_text())
    assert recorded["lacuna"] == this_version()
    known = {"version": "9", "commit": "c" * 40, "origin": "https://example.org/a/lacuna"}
    for lacuna, how in (
        (known, rf"{told}.*: pip install 'git\+https://example.org/a/lacuna@{'c' * 40}'$"),
        ({"version": "9", "commit": "c" * 40}, rf"{told}.*: git checkout {'c' * 40}, in a clone of Lacuna$"),
        ({"version": "9"}, rf"{told}.*run.yaml tells version 9 but no commit; .*that had {SEMANTICS - 1} "),
        (None, rf"{told}.*run.yaml tells neither version nor commit; .*that had {SEMANTICS - 1} "),
    ):
        older = {key: value for key, value in recorded.items() if key != "lacuna"}
        file.write_text(yaml.safe_dump(older if lacuna is None else {**older, "lacuna": lacuna}))
        with pytest.raises(ConfigError, match=how):
            run(load(path), progress=Silent())
    # Versions differ in their settings too: what that one had or settled otherwise is no other config.
    identity = {key: value for key, value in recorded["identity"].items() if key != "audit.caption_subject"}
    identity["prompts.column"] = "prompt"
    file.write_text(yaml.safe_dump({**recorded, "identity": identity, "lacuna": known}))
    also = r'audit.caption_subject: \(absent\) -> "a picture", prompts.column: "prompt" -> \(absent\)'
    with pytest.raises(ConfigError, match=rf"another version of Lacuna.*{also}.*: pip install 'git\+"):
        run(load(path), progress=Silent())
    # And keys may have had other names where what is drawn is the same.
    identity = {**recorded["identity"], "semantics": SEMANTICS, "audit.detector": None}
    file.write_text(yaml.safe_dump({**recorded, "identity": identity, "lacuna": known}))
    moved = r"whose configs were others \(audit.detector is now audit.detectors\[0\].detector; .*: pip install 'git\+"
    with pytest.raises(ConfigError, match=f"another version of Lacuna began it, {moved}"):
        run(load(path), progress=Silent())
    file.write_text(yaml.safe_dump({**recorded, "identity": identity, "lacuna": {"version": "9"}}))
    search = r"""`git log -S '"audit.detector": ' -- pipeline/config/schema.py` names the commit that renamed it"""
    with pytest.raises(ConfigError, match=rf"tells version 9 but no commit; .*{search}: take the one before$"):
        run(load(path), progress=Silent())


def test_a_dtype_of_auto_is_settled_recorded_and_kept(model: str, tmp_path: Path) -> None:
    path = write(tmp_path, model)
    run(load(path, "model.dtype=auto"), progress=Silent())
    record = read_run_record(open_store(str(tmp_path / "corpus")))
    assert record is not None
    assert record.identity["model.dtype"] == record.config["model"]["dtype"] == str(fast_dtype("cpu"))
    assert run(load(path, "model.dtype=auto"), progress=Silent()).exit_code == 0
    with pytest.raises(LacunaError, match=r"model.dtype: \"\w+\" -> \"float16\""):
        run(load(path, "model.dtype=float16"), progress=Silent())


# The first run, refused too, imports as root what an ordinary user may not be able to read. Then root becomes one.
AS_NOBODY = """
import os, sys
from pipeline.cli import main
config, *outputs = sys.argv[1:]
assert main(["run", config, f"output.path={config}/corpus"]) == 2
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for output in outputs:
    assert main(["run", config, f"output.path={output}"]) == 2
"""


def test_a_read_only_output_is_refused_in_one_line_before_any_work() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        config = write(folder, tiny.save(folder))
        (folder / "sealed").mkdir()
        (folder / "sealed").chmod(0o555)
        folder.chmod(0o755)
        outputs = [str(folder / "sealed"), str(folder / "sealed" / "corpus")]
        command = [sys.executable, "-c", AS_NOBODY, str(config), *outputs]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert list((folder / "sealed").iterdir()) == []
    assert done.returncode == 0, done.stderr
    through_a_file, *lines = done.stderr.splitlines()
    assert through_a_file.startswith(f"lacuna: {config}/corpus")
    for line, output in zip(lines, outputs, strict=True):
        assert line.startswith(f"lacuna: {output}/")
        assert line.endswith(": permission denied")


def test_an_output_that_is_a_file_is_refused_before_any_work(model: str, tmp_path: Path) -> None:
    path = write(tmp_path, model)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LacunaError) as caught:
        run(load(path, f"output.path={tmp_path / 'file' / 'corpus'}"), progress=Silent())
    assert "\n" not in str(caught.value)


def test_evidence_of_another_corpus_is_not_mixed_with_that_of_a_run(model: str, tmp_path: Path) -> None:
    path, evidence = write(tmp_path, model, prompts=2), tmp_path / "corpus.evidence"
    assert run(load(path), progress=Silent()).exit_code == 0
    note = json.loads((evidence / "evidence.json").read_text())
    assert note["identity"] == read_run_record(store_of(tmp_path)).digest
    shutil.rmtree(tmp_path / "corpus")
    (evidence / "preview.html").write_text("")
    with pytest.raises(LacunaError, match=r"corpus\.evidence: holds evidence of another corpus .*; move or delete it"):
        run(load(path, "seed=5"), progress=Silent())
    assert not (tmp_path / "corpus" / "run.yaml").exists()
    assert run(load(path), progress=Silent()).exit_code == 0  # of the same one it goes on with


def test_evidence_that_cannot_be_written_is_refused_before_any_work(model: str, tmp_path: Path) -> None:
    path = write(tmp_path, model)
    (tmp_path / "corpus.evidence").write_text("not a folder")
    with pytest.raises(LacunaError, match=r"corpus\.evidence.*not a folder|corpus\.evidence.*a file stands") as caught:
        run(load(path), progress=Silent())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "corpus" / "run.yaml").exists()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A disk of 512 KB, and what makes it a larger one: a real one where one may be mounted, else one that this process
    alone finds full."""
    disk, size = tmp_path / "disk", 512 << 10
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=False).returncode == 0:
        yield disk, lambda: subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True) and None
        subprocess.run(["umount", disk], check=True)
        return
    fsync = os.fsync

    def full(handle: int) -> None:
        if sum(path.stat().st_size for path in disk.rglob("*") if path.is_file()) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    yield disk, monkeypatch.undo


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(
    model: str, tmp_path: Path, small: tuple[Path, Callable[[], None]]
) -> None:
    disk, enlarge = small
    path = write(tmp_path, model, prompts=200, steps=1)
    config = load(path, f"output.path={disk / 'corpus'}", "output.samples_per_shard=8")
    outcome = run(config, progress=(progress := Lines()))
    assert outcome.exit_code == 1
    pattern = rf"stopped after (\d+) of 25 shards: {disk}/corpus\S*: no space left; once there is room.*"
    found = re.fullmatch(pattern, outcome.message)
    assert found, outcome.message
    done = committed(open_store(str(disk / "corpus")))
    assert 1 <= int(found[1]) == len(done) < 25
    assert [line for snapshot in progress.snapshots for line in snapshot.log] == []
    assert list(failures(open_store(str(disk / "corpus")))) == []
    attempts = {path.name for path in (disk / "corpus").glob("attempts/*")}
    assert len(attempts) <= 2, "one was being stored and one drawn"
    enlarge()
    assert run(config, progress=Silent()).exit_code == 0
    assert verify(str(disk / "corpus")) == []
    assert {shard: committed(open_store(str(disk / "corpus")))[shard] for shard in done} == done


def test_a_relative_output_is_refused_under_ray_job_submit(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    path = write(tmp_path, model)
    with pytest.raises(ConfigError, match=r"output.path: out/x is relative, and under `ray job submit`"):
        run(load(path, "output.path=out/x"), progress=Silent())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", r"RAY_ADDRESS=127.0.0.1:9: no Ray answers there"),
        ("head", r"RAY_ADDRESS=head: expected HOST:PORT"),
    ],
)
def test_an_address_where_no_ray_is_is_refused_at_once(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    path = write(tmp_path, model)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=message):
        run(load(path, "cluster.backend=ray"), progress=Silent())
    assert time.monotonic() - began < 60, "Ray itself takes minutes"


def test_sigterm_stops_a_run_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_while_storage_is_away_says_so_at_once(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 3}
    monkeypatch.setattr(remote, "BACKOFF", wait)
    options = {"endpoint": "http://127.0.0.1:1", "access_key_id": "x", "secret_access_key": "y", "region": "z"}
    config = load(write(tmp_path, model), "output.path=s3://corpora/x", f"output.storage_options={json.dumps(options)}")
    said = "stopped; how much is committed is not known (s3://corpora/x/run.yaml: no answer (Connection refused)"
    assert _stopped(Output.of(config.output)).startswith(said)


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_goes_on(model: str, tmp_path: Path) -> None:
    path = write(tmp_path, model, prompts=32, steps=15)
    commits = tmp_path / "corpus" / "commits"
    command = [sys.executable, "-m", "pipeline.cli", "run", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not commits.exists() or len(list(commits.glob("*.json"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "of 8 shards are committed" in out
    assert "the same command goes on from there" in out
    assert "Traceback" not in err
    left = len(list(commits.glob("*.json")))
    assert 2 <= left < 8
    assert run(load(path), progress=Silent()).exit_code == 0
    assert len(list(commits.glob("*.json"))) == 8


@pytest.mark.slow
def test_an_interrupt_while_the_pages_are_written_says_how_to_go_on(model: str, tmp_path: Path) -> None:
    path = write(tmp_path, model)
    (tmp_path / "corpus.evidence" / "pairs").mkdir(parents=True)
    pipe = tmp_path / "corpus.evidence" / "pairs" / "pairs.json"
    os.mkfifo(pipe)  # without a recipe only `finish` reads the pairs, last of all, and now waits for them
    command = [sys.executable, "-m", "pipeline.cli", "run", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "corpus" / "report.html").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == f"stopped: 3 of 3 shards are committed in {tmp_path}/corpus; the same command goes on from there\n"
    assert "Traceback" not in err
    pipe.unlink()
    assert run(load(path), progress=Silent()).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_ray_starts_says_how_to_go_on(number: int, model: str, tmp_path: Path) -> None:
    """A dtype of auto is asked of Ray before there is a plan."""
    path = write(tmp_path, model)
    command = [sys.executable, "-m", "pipeline.cli", "run", str(path), "model.dtype=auto", "cluster.backend=ray"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )  # fmt: skip
    started: list[psutil.Process] = []
    while not any(child.name() == "gcs_server" for child in started):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
        started = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == f"stopped before any shard of {tmp_path}/corpus was begun; the same command begins again\n"
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == [], "Ray's processes end with it"
