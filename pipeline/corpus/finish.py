"""Derive everything else from commit records and manifests: indexes, the dataset card, the report pages.

Removes compiled code that a worker died over. Never rereads pixels but those it shows; can be run again at any time,
on a corpus that is not complete too.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa

from pipeline.corpus import layout
from pipeline.corpus.account import treatment
from pipeline.corpus.card import card
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.compiled import remove_unnamed
from pipeline.corpus.damage import sound_manifest, standing
from pipeline.corpus.evidence import read_pairs
from pipeline.corpus.indexes import PLACED, dali_index, sizes_index, wids_index
from pipeline.corpus.manifest import read_manifest, read_some
from pipeline.corpus.opening import Output
from pipeline.corpus.quality import Spread
from pipeline.corpus.quality_page import quality_section
from pipeline.corpus.report import contact_sheet, evidence_page, quarantined, report_page
from pipeline.corpus.rows import NEEDED, keep, trainable, trainable_rows
from pipeline.corpus.run_record import require_run_record
from pipeline.corpus.shard import NotAPicture
from pipeline.corpus.summary import COLUMNS, Summary, naming_of
from pipeline.corpus.words import fault_of, read_words
from pipeline.parallel import in_parallel


@dataclass(frozen=True)
class Finished:
    """``written``: where card, indexes and reports are. ``damaged``: a line for each file that is not as committed;
    the shards of these are left out. ``summary``: what was counted for the report."""

    written: list[str]
    damaged: list[str]
    summary: Summary


@dataclass(frozen=True)
class _Shard:
    """A shard's manifest without the columns ``lists``, of which it has what the report compares; ``first`` is the
    number of its first kept picture among all."""

    record: CommitRecord
    manifest: pa.Table
    first: int
    lists: pa.Table


def finish(path: str, options: Mapping[str, str] | None = None) -> Finished:
    """Write card, indexes and reports of the corpus at *path*. Raises ``CorpusError`` where no corpus is."""
    return finish_output(Output.open(path, options))


def finish_output(output: Output) -> Finished:
    """See ``finish``."""
    store, evidence = output.store, output.evidence
    run = require_run_record(store)
    remove_unnamed(store)
    whole, damaged = standing(store)
    summary, naming, spread = Summary(), naming_of(run), Spread(run.quality_schema, run.samples)

    def index(numbered: tuple[CommitRecord, int]) -> tuple[_Shard | None, str]:
        record, first = numbered
        data, why = sound_manifest(store, record)
        if why:
            return None, why
        manifest = read_manifest(data, columns=tuple({*COLUMNS, *NEEDED, *PLACED, *spread.columns}))
        if record.counts["ok"]:
            try:
                dali = dali_index(trainable(manifest), store, record)
            except NotAPicture as error:
                return None, f"{layout.tar(record.shard)}: {error}"
            store.write(layout.dali(record.shard, run.format), dali)
        rows = trainable_rows(manifest)
        lists = read_some(data, spread.lists, rows[spread.chosen(first, len(rows))]) if spread.lists else pa.table({})
        return _Shard(record, manifest, first, lists), ""

    records: list[CommitRecord] = []

    def counted() -> Iterator[tuple[CommitRecord, pa.Table]]:
        """Count each manifest, and yield it with the rows that may be trained on."""
        firsts = accumulate((record.counts["ok"] for record in whole.values()), initial=0)
        for shard, why in in_parallel(index, list(zip(whole.values(), firsts, strict=False)), title="finish"):
            if shard is None:
                damaged.append(why)
            else:
                summary.add(shard.manifest, naming)
                records.append(shard.record)
                kept = trainable(shard.manifest)
                spread.add(kept, shard.first, shard.lists)
                yield shard.record, kept

    if run.format == 1:
        deque(counted(), maxlen=0)
        store.write(layout.SIZES, sizes_index(records))
    else:
        keep(store, run.digest, records, counted())
    store.write(layout.wids(run.format), wids_index(records, run.format))
    words = None
    if fault := fault_of(store, run.words):
        damaged.append(fault)
    else:
        words = read_words(store, run.words)
    store.write(layout.CARD, card(output.path, run, records, summary, words, spread).encode())
    sheet = contact_sheet(store, records)
    measured = quality_section(store, run, spread)
    store.write(layout.REPORT, report_page(run, records, summary, sheet, words, measured).encode())
    written = [f"{store.url}/{name}" for name in layout.derived(run.format)]
    if run.format > 1:
        written.append(f"{store.url}/{layout.ROWS}")
    pairs, shown = read_pairs(evidence), quarantined(store, evidence, records)
    if pairs or shown:
        concepts = [concept["name"] for concept in run.config["erasure"]["concepts"]]
        evidence.write(layout.REPORT, evidence_page(pairs, shown, treatment(concepts, run.recipe)).encode())
        written.append(f"{evidence.url}/{layout.REPORT}")
    return Finished(written, damaged, summary)
