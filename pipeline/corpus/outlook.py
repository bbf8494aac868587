"""What a run would find at its output, or refuse there: for whoever plans. Nothing is left behind."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.corpus import layout
from pipeline.corpus.commit import committed_shards
from pipeline.corpus.failures import failures
from pipeline.corpus.local import TEMPORARY
from pipeline.corpus.opening import open_store
from pipeline.corpus.probe import check_writable
from pipeline.corpus.purge import check_evidence
from pipeline.corpus.resume import existing_run
from pipeline.paths import Location, locate
from pipeline.prompts import PlanSummary


def outlook(config: Config, summary: PlanSummary, *, settled: bool = True) -> str:
    """Return, as a line, where the corpus would lie, and how much of it is there.

    Raises ``LacunaError`` for what `lacuna run` would refuse there: another corpus or version, evidence of another,
    storage that cannot be written or lacks what a commit needs. Whose the evidence is cannot be told before all of the
    config is *settled*.
    """
    location, options = locate(config.output.path), config.output.storage_options
    store = open_store(location, options)
    record = existing_run(config, summary, store)
    if settled:
        check_evidence(config.output.path, summary.identity.digest, options)
    for place in (location, location.evidence):
        with _leaving_no_folder(place):
            check_writable(open_store(place, options))
    if record is None:
        return f"{location}: nothing is there yet"
    done = len(committed_shards(store))
    if done == summary.shards:
        return f"{location}: complete, {done:,} of {summary.shards:,} shards"
    given_up = sum(failure.kind == "given_up" for failure in failures(store))
    lost = f", {given_up:,} of them given up" if given_up else ""
    return f"{location}: {done:,} of {summary.shards:,} shards, {summary.shards - done:,} left{lost}"


@contextlib.contextmanager
def _leaving_no_folder(place: Location) -> Iterator[None]:
    """Remove the folders on disk that are there afterwards and were not before, unless somebody else uses them."""
    absent: list[Path] = []
    if place.on_disk:
        path = Path(place.path)
        made = (path / layout.ATTEMPTS, path / TEMPORARY, path, *path.parents)
        absent = [folder for folder in made if not folder.exists()]
    try:
        yield
    finally:
        for folder in absent:
            with contextlib.suppress(OSError):
                folder.rmdir()
