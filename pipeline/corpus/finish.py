"""Derive everything else from commit records and manifests: indexes, the dataset card, the report pages.

Never rereads pixels but those it shows; can be run again at any time, on a corpus that is not complete too.
"""

from collections.abc import Mapping

import pyarrow as pa

from pipeline.corpus import layout
from pipeline.corpus.account import treatment
from pipeline.corpus.card import card
from pipeline.corpus.commit import CommitRecord, published
from pipeline.corpus.evidence import read_pairs
from pipeline.corpus.indexes import dali_index, sizes_index, wids_index
from pipeline.corpus.manifest import read_manifest, read_rows
from pipeline.corpus.report import contact_sheet, evidence_page, quarantined, report_page
from pipeline.corpus.run_record import require_run_record
from pipeline.corpus.stores import open_store
from pipeline.corpus.summary import COLUMNS, Summary, words_of
from pipeline.parallel import in_parallel


def finish(path: str, options: Mapping[str, str] | None = None) -> list[str]:
    """Write card, indexes and reports of the corpus at *path*; return where they are.

    Raises ``CorpusError`` where no corpus is.
    """
    return finished(path, options)[0]


def finished(path: str, options: Mapping[str, str] | None = None) -> tuple[list[str], Summary]:
    """Do as ``finish``, and return what was counted for it, too."""
    store, evidence = open_store(path, options), open_store(layout.evidence_url(path), options)
    run = require_run_record(store)
    records = list(published(store).values())
    summary, words = Summary(), words_of(run)

    def index(record: CommitRecord) -> pa.Table:
        manifest = store.read(layout.manifest(record.shard))
        if record.file(layout.tar(record.shard)) is not None:
            store.write(layout.index(record.shard), dali_index(read_rows(manifest), store, record))
        return read_manifest(manifest, columns=COLUMNS)

    for manifest in in_parallel(index, records, title="finish"):
        summary.add(manifest, words)
    store.write(layout.SIZES, sizes_index(records))
    store.write(layout.WIDS, wids_index(records))
    store.write(layout.CARD, card(path, run, records, summary).encode())
    store.write(layout.REPORT, report_page(run, records, summary, contact_sheet(store, records)).encode())
    written = [f"{store.url}/{name}" for name in (layout.CARD, layout.WIDS, layout.SIZES, layout.REPORT)]
    pairs, shown = read_pairs(evidence), quarantined(store, evidence, records)
    if pairs or shown:
        concepts = [concept["name"] for concept in run.config["erasure"]["concepts"]]
        evidence.write(layout.REPORT, evidence_page(pairs, shown, treatment(concepts, run.recipe)).encode())
        written.append(f"{evidence.url}/{layout.REPORT}")
    return written, summary
