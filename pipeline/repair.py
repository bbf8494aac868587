"""``lacuna repair``: draw again just what is damaged or missing of a corpus, and put it back if it is the same bytes.

Nothing is decided anew: ``run.yaml`` pins what is drawn and the commit records say what must come out. A file is
replaced, whole and in one step, only by bytes with the recorded sha256, so a repair may be killed at any moment and
given again. Bytes are promised within one environment, so a shard is drawn again in its own, unless another is accepted
(and then it may well come out otherwise, which is said and changes nothing).
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from pipeline.config import load_config
from pipeline.config.schema import Config
from pipeline.corpus import (
    File,
    Inspection,
    Output,
    RunRecord,
    check_evidence,
    failures,
    layout,
    open_store,
    publish_all,
    read_commit,
    require_run_record,
)
from pipeline.corpus.finish import finish_output
from pipeline.corpus.manifest import read_rows
from pipeline.corpus.resume import check_version, existing_run
from pipeline.corpus.run_record import environment_difference
from pipeline.corpus.verify import inspect_output
from pipeline.errors import ConfigError
from pipeline.generation.engine import EXCLUDED
from pipeline.models.settle import as_begun
from pipeline.prompts import Plan, PlannedShard, open_source
from pipeline.run import run
from pipeline.session import Session
from pipeline.terminal import live
from pipeline.worker import Worker


@dataclass
class Repaired:
    """``mended``: a line for each file that was put back or derived anew, ``left`` for each thing that is still wrong.
    ``message`` is what the run said that drew what was not committed, ``exit_code`` how it ended."""

    mended: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    message: str = ""
    exit_code: int = 0


def recorded_config(path: str, options: Mapping[str, str]) -> Config:
    """Return the config that the corpus at *path* was begun with, which now lies there and takes these *options*.
    What it named by relative paths is looked for where it lay then.

    Raises ``CorpusError`` where no corpus is, ``ConfigError`` where its config cannot be used here any more.
    """
    store = open_store(path, options)
    record = require_run_record(store)
    check_version(path, record)
    values = record.config
    written = {key: _put(values, key, whole) for key, whole in record.paths.items()}
    values["output"] |= {"path": path} | ({"storage_options": dict(options)} if options else {})
    with tempfile.TemporaryDirectory(prefix="lacuna-") as folder:
        file = Path(folder) / layout.RUN
        file.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
        try:
            config = load_config(file)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(file), f"{store.url}/{layout.RUN}: config")) from None
    config.written |= {key: written[key] for key in config.written if key in written}
    return config


def _put(values: Any, key: str, value: str) -> str:
    """Set what *values* has under *key*, as ``a.b[0].c``; return what was there."""
    *parents, last = [int(index) if index else name for name, index in re.findall(r"(\w+)|\[(\d+)\]", key)]
    for part in parents:
        values = values[part]
    before: str = values[last]
    values[last] = value
    return before


def repair(config: Config, *, accept_environment: bool = False) -> Repaired:
    """Mend the corpus of *config*: files of shards, recipe, indexes and reports; shards without a commit are drawn by a
    run, which this ends with.

    Raises ``LacunaError`` for what the user has to mend first, as a run of another config's corpus.
    """
    output = Output.of(config.output)
    store = output.store
    record = require_run_record(store)
    config = as_begun(config, record.identity, record.words)
    check_evidence(output, record.digest)
    publish_all(store, output.evidence)
    found = inspect_output(output)
    done = Repaired()
    if found.damaged or found.tensors:
        plan = Plan.build(config, open_source(config.prompts))
        existing_run(config, plan.summary(), store)  # raises where the config is of another corpus
        _Repair(Session(config, output=output), record, plan, accept_environment, done).draw(found)
    if found.uncommitted:
        outcome = run(config, accept_environment=accept_environment)
        done.message, done.exit_code = outcome.message, outcome.exit_code
    elif (done.mended or found.derived) and not done.left:
        done.mended += [f"{name}: derived anew" for name in finish_output(output).written]
    done.left += found.others
    return done


@dataclass
class _Repair:
    """One repair under way; lines go to ``done``."""

    session: Session
    run: RunRecord
    plan: Plan
    accept_environment: bool
    done: Repaired

    @property
    def output(self) -> Output:
        return self.session.output

    def draw(self, found: Inspection) -> None:
        """Solve the recipe's damaged tensors, then draw the damaged shards."""
        here = self.session.environment()
        if found.tensors and not self._solve(found.tensors, here):
            self.done.left += [
                f"shard {shard:06d}: cannot be drawn again without the recipe's tensors" for shard in found.damaged
            ]
            return
        drawable: dict[int, Sequence[File]] = {}
        for shard, files in found.damaged.items():
            commit = read_commit(self.output.store, shard)
            assert commit is not None
            differing = environment_difference(commit.environment, here)
            if differing and not self.accept_environment:
                self.done.left += [f"{file.name}: {_elsewhere(differing)}" for file in files]
            else:
                drawable[shard] = files
        if drawable:
            self._draw_shards(drawable)

    def _solve(self, names: Sequence[str], here: Mapping[str, object]) -> bool:
        """Solve the recipe again and put back the tensor files *names*; return whether all are as pinned then."""
        differing = environment_difference(self.run.environment, here)
        if differing and not self.accept_environment:
            self.done.left += [f"{layout.recipe(name)}: {_elsewhere(differing)}" for name in names]
            return False
        self.session.pin(self.run)
        tensors = self.session.compile().tensors  # a name has the digest of the bytes in it
        for name in names:
            if name in tensors:
                self.output.store.write(layout.recipe(name), tensors[name])
                self.done.mended.append(f"{layout.recipe(name)}: solved again and put back")
            else:
                self.done.left.append(
                    f"{layout.recipe(name)}: solved again it is other bytes ({', '.join(tensors) or 'none'}); nothing "
                    "was put in its place"
                )
        return all(name in tensors for name in names)

    def _draw_shards(self, shards: Mapping[int, Sequence[File]]) -> None:
        worker = Worker(self.session, self.run, accept_environment=True)  # each shard's was looked at
        planned = {shard: self.plan.shard(shard) for shard in shards}
        images = sum(len(shard.samples) for shard in planned.values())
        with tqdm(desc="repair", total=images, unit="image", leave=False, disable=not live()) as bar:
            for shard, files in shards.items():
                self._draw_shard(worker, planned[shard], files, bar.update)
        worker.close()

    def _draw_shard(
        self, worker: Worker, planned: PlannedShard, files: Sequence[File], drew: Callable[[int], object]
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="lacuna-") as scratch:
            built = worker.redraw(planned, self._excluded(planned.index, files), Path(scratch), drew)
            for file in files:
                again, local = built.get(file.name, (None, None))
                if again is None or local is None:
                    self.done.left.append(f"{file.name}: drawn again, the shard has no such file; nothing was replaced")
                elif again.sha256 != file.sha256:
                    self.done.left.append(self._other_bytes(planned.index, file, again, local))
                else:
                    (self.output.evidence if file.evidence else self.output.store).write(file.name, local)
                    self.done.mended.append(f"{file.name}: drawn again and put back")

    def _excluded(self, shard: int, damaged: Sequence[File]) -> frozenset[str]:
        """The samples that were left out: by the manifest, or where that is damaged by the records of failures."""
        name = layout.manifest(shard)
        if name not in [file.name for file in damaged]:
            return frozenset(row.key for row in read_rows(self.output.store.read(name)) if row.reason == EXCLUDED)
        blamed = (f for f in failures(self.output.store) if f.shard == shard and f.kind == "blamed")
        return frozenset(failure.sample_key for failure in blamed if failure.sample_key)

    def _other_bytes(self, shard: int, file: File, again: File, local: Path) -> str:
        """What differs between a file as it was committed and as it was drawn again."""
        differs = [f"sha256 {again.sha256[:16]} where {file.sha256[:16]} was committed"]
        if again.size != file.size:
            differs.append(f"{again.size} bytes where it had {file.size}")
        name = layout.manifest(shard)
        if name != file.name and self.output.store.exists(name):
            rows = {row.key: row.sha256 for row in read_rows(self.output.store.read(name))}
            pictures = {row.key: row.sha256 for row in read_rows((local.parent / "manifest").read_bytes())}
            other = [key for key, sha256 in pictures.items() if rows.get(key) != sha256]
            if other:
                differs.append(f"{len(other)} of {len(pictures)} pictures, the first {other[0]}")
        return f"{file.name}: drawn again it differs ({'; '.join(differs)}); nothing was replaced"


def _elsewhere(differing: Sequence[str]) -> str:
    return (
        f"was made in another environment ({'; '.join(differing)}); repair it there, or try here with "
        "--accept-environment: it is put back only if it comes out the same"
    )
