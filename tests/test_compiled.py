"""Compiled runs: killed and gone on with, of several sizes, and begun where what an earlier start pinned does not load.

With inductor as ``lite`` makes it; ``LACUNA_INDUCTOR=full pytest -o timeout=3600 tests/test_compiled.py`` has it whole,
which takes minutes a test.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.config import load_config
from pipeline.config.schema import Config
from pipeline.corpus import RunRecord, committed, open_store, verify
from pipeline.corpus.compiled import CompiledRecord
from pipeline.errors import ConfigError
from pipeline.prompts import Plan, open_source
from pipeline.run import run
from pipeline.session import Session, prepare
from pipeline.worker import Worker
from pipeline.workshop.preview import measure
from tests.lite import lite, needs_inductor, save
from tests.progress import Lines

pytestmark = [pytest.mark.slow, needs_inductor]

RUNS = """
import os, signal, sys
from pipeline.config import load_config
from pipeline.run import run
from tests.lite import lite

class Progress:
    def update(self, snapshot):
        if snapshot.done and sys.argv[2] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
    def say(self, line):
        print(line)
    def close(self): ...

with lite():
    sys.exit(run(load_config(sys.argv[1]), progress=Progress()).exit_code)
"""


@pytest.fixture(autouse=True)
def compiler() -> Iterator[None]:
    with lite():
        yield


def configure(folder: Path, name: str, *rows: dict[str, object]) -> Path:
    """Write the config of a compiled run into *folder*/*name*, of eight prompts or *rows*; return its path."""
    given = rows or [{"prompt": f"a photo of a dog number {i}"} for i in range(8)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, given)))
    if not (folder / "least").exists():
        save(folder)
    file = folder / f"{name}.yaml"
    settings = {
        "model": {"path": "least", "dtype": "float32"},
        "prompts": {"source": "prompts.jsonl"},
        "generation": {"steps": 2, "size": [32, 32], "batch_size": 2, "compile": "full"},
        "output": {"path": str(folder / name), "samples_per_shard": 2},
        "cluster": {"backend": "local", "device": "cpu"},
    }
    file.write_text(yaml.safe_dump(settings))
    return file


def files(corpus: Path) -> dict[str, bytes]:
    """What was drawn, by name."""
    return {path.name: path.read_bytes() for place in ("train", "manifests") for path in (corpus / place).iterdir()}


def test_a_run_that_is_killed_and_goes_on_ends_in_the_bytes_of_one_that_is_not(tmp_path: Path):
    first, second = configure(tmp_path, "undisturbed"), configure(tmp_path, "killed")
    said = Lines()
    assert run(load_config(first), progress=said).exit_code == 0
    assert said.of("compiled ") == ["plain", "decode"]
    runs = [sys.executable, "-c", RUNS, str(second)]
    assert subprocess.run([*runs, "dies"]).returncode == -signal.SIGKILL
    assert 0 < len(committed(open_store(str(tmp_path / "killed")))) < 4
    said.lines = subprocess.run([*runs, "lives"], check=True, capture_output=True, text=True).stdout.splitlines()
    assert said.of("compiling ") == [], "what the killed one has compiled is loaded"
    assert said.of("loaded, compiled, ") == ["plain", "decode"]
    assert files(tmp_path / "killed") == files(tmp_path / "undisturbed")
    assert verify(str(tmp_path / "killed")) == []


SIZES = [{"prompt": "a photo of a dog"}, {"prompt": "a red car", "size": "48x32"}]


def begin(folder: Path, *rows: dict[str, object]) -> tuple[Config, Plan]:
    config = load_config(configure(folder, "corpus", *rows))
    return config, Plan.build(config, open_source(config.prompts))


def start(config: Config, plan: Plan, said: Lines, *, accept: bool = False) -> RunRecord:
    session = Session(config, device="cpu", say=said.say)
    return prepare(session, plan.summary(), accept_environment=accept)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two sizes that is prepared, and nothing drawn."""
    folder, said = tmp_path_factory.mktemp("prepared"), Lines()
    with lite():
        start(*begin(folder, *SIZES), said)
    assert said.of("compiled ") == ["plain", "decode", "plain", "decode"]
    return folder


@pytest.fixture
def again(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "again"))


def test_sizes_that_rows_ask_for_are_compiled_before_the_first_shard(again: Path):
    (config, plan), said, told = begin(again, *SIZES), Lines(), list[bool]()
    session = Session(config, device="cpu", say=said.say)
    worker = Worker(session, prepare(session, plan.summary()), looked=plan.looked)
    assert said.of("loaded, compiled, ") == ["plain", "decode", "plain", "decode"]
    worker.process(plan.shard(0), "one", compiling=told.append).result()
    worker.close()
    assert len(said.lines) == 4
    assert told == []


def test_what_nobody_looked_at_is_compiled_when_it_is_met_and_no_part_of_a_shards_time(again: Path):
    (config, plan), said, told = begin(again, *SIZES), Lines(), list[bool]()
    session = Session(config, device="cpu", say=said.say)
    worker = Worker(session, prepare(session, plan.summary()))
    assert said.of("loaded, compiled, ") == ["plain", "decode"]
    before = worker.engine.compiling_seconds
    result = worker.process(plan.shard(0), "one", compiling=told.append).result()
    worker.close()
    assert told == [True, False] * 2
    assert said.of("loaded, compiled, ") == ["plain", "decode"] * 2
    assert result.seconds < worker.engine.compiling_seconds - before, "two steps take less than any loading"


def test_a_plan_tells_what_it_compiles_and_no_picture_has_its_time(again: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(again / "cache"))  # torch keeps it for itself
    (config, plan), said = begin(again, *SIZES), Lines()
    before = sorted((again / "corpus").rglob("*"))
    measured = measure(config, plan, said.say)
    assert measured is not None
    assert said.of("compiled ") == ["plain", "decode"]
    seconds = [float(line.removesuffix(" s").rpartition(" ")[2]) for line in said.lines if line.startswith("compiled ")]
    assert len(plan.shard(0).samples) * measured.seconds_per_image < sum(seconds), "two steps take less than compiling"
    assert sorted((again / "corpus").rglob("*")) == before


def test_a_start_after_one_that_pinned_what_does_not_load_is_refused_unless_that_is_accepted(again: Path):
    store = open_store(str(again / "corpus"))
    store.delete("run.yaml")  # as if the first one had died just before
    paths = [entry.path for entry in store.list("compiled") if entry.path.endswith(".json")]
    plain, decode = (next(path for path in paths if f"-{kind}-" in path) for kind in ("plain", "decode"))
    other = CompiledRecord.loads(store.read(decode), decode)
    wrong = json.loads(store.read(plain)) | {"file": other.file, "sha256": other.sha256, "size": other.size}
    store.write(plain, json.dumps(wrong).encode())
    config, plan = begin(again, *SIZES)
    with pytest.raises(ConfigError, match=r"\.json: .* torch compiles it anew here, .* go on here with\s+--accept-env"):
        start(config, plan, Lines())
    assert not store.exists("run.yaml")
    said = Lines()
    start(config, plan, said, accept=True)
    assert said.of("compiled ") == ["plain"]
    assert said.of("loaded, compiled, ") == ["decode", "plain", "decode"]
    assert store.exists(plain.replace(".json", ".2.json"))
