"""The pages: report.html of a corpus, and the evidence page beside it. Self-contained, with inline SVG and pictures.

The report shows kept pictures only, so a corpus folder can be handed on as it is; everything else is on the evidence
page. Knows nothing of how figures came about.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.verdict import Box
from pipeline.corpus import layout
from pipeline.corpus.account import RESIDUALS, audit, detector, treatment
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.evidence import Pair
from pipeline.corpus.manifest import COLUMNS, ManifestRow, Status, read_manifest, rows_of
from pipeline.corpus.quality_page import QualitySection
from pipeline.corpus.residual import residual
from pipeline.corpus.run_record import RunRecord
from pipeline.corpus.stores import Store
from pipeline.corpus.summary import BINS, Summary
from pipeline.corpus.words import WordTable
from pipeline.pages.page import Bars, render
from pipeline.statistics import rounded_down

SHOWN = 64  # pictures on a contact sheet


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded picture of ``size`` (width and height in pixels), what is written under it, and the ``boxes`` that
    are drawn over it: what was seen there, and where."""

    image: bytes
    title: str
    note: str = ""
    size: tuple[int, int] = (0, 0)
    boxes: Sequence[tuple[str, Box]] = ()


def contact_sheet(store: Store, records: Sequence[CommitRecord]) -> list[Picture]:
    """Return kept pictures, evenly spread over the corpus, read by offset from their tars."""
    shards = [record.shard for record in records if record.counts["ok"]]
    return [picture_of(row, image, row.caption) for row, image in _spread(store, shards, layout.tar, Status.ok)]


def quarantined(corpus: Store, evidence: Store, records: Sequence[CommitRecord]) -> list[Picture]:
    """Return quarantined pictures, evenly spread; none where the evidence was purged.

    The manifests of *corpus* say where in a tar of *evidence* a picture is.
    """
    there = {entry.path for entry in evidence.list(layout.QUARANTINE)}
    shards = [r.shard for r in records if r.counts["quarantined"] and layout.quarantine_tar(r.shard) in there]
    return [
        picture_of(row, image, row.prompt, f"{row.reason}: {_scores(row.scores)}")
        for row, image in _spread(evidence, shards, layout.quarantine_tar, Status.quarantined, corpus)
    ]


def picture_of(row: ManifestRow, image: bytes, title: str, note: str = "") -> Picture:
    """Return the picture of *row*, with the places of the concepts that were found in it."""
    boxes = [(f"{j.concept} ({j.detector})", j.box) for j in row.judged if j.box is not None and j.concept in row.found]
    return Picture(image=image, title=title, note=note, size=(row.width, row.height), boxes=boxes)


def _spread(
    store: Store, shards: Sequence[int], tar: Callable[[int], str], status: Status, manifests: Store | None = None
) -> list[tuple[ManifestRow, bytes]]:
    """Return up to SHOWN rows of a status with their pictures, from up to SHOWN evenly spread shards."""
    chosen = [shards[i * len(shards) // min(SHOWN, len(shards))] for i in range(min(SHOWN, len(shards)))]
    found: list[tuple[ManifestRow, bytes]] = []
    for i, shard in enumerate(chosen):
        data = (manifests or store).read(layout.manifest(shard))
        manifest = read_manifest(data, [column.field.name for column in COLUMNS])
        there = pc.and_(pc.equal(manifest["status"], str(status)), pc.is_valid(manifest["offset"]))
        rows = manifest.filter(there)
        share = (SHOWN - len(found)) // (len(chosen) - i)
        take = min(share, len(rows))
        for row in rows_of(rows.take(pa.array([j * len(rows) // take for j in range(take)], pa.int64()))):
            assert row.offset is not None
            assert row.length is not None
            image = store.read_range(tar(shard), row.offset, row.length)
            if hashlib.sha256(image).hexdigest() == row.sha256:  # else it is damaged, which verify says
                found.append((row, image))
    return found


def report_page(
    run: RunRecord,
    records: Sequence[CommitRecord],
    summary: Summary,
    sheet: Sequence[Picture],
    words: WordTable | None = None,
    quality: QualitySection | None = None,
) -> str:
    """Return report.html."""
    device = sum(record.timings.get("device_seconds", 0.0) for record in records)
    drawn = sum(record.timings.get("images", 0) for record in records)
    name = str(run.config["output"]["path"]).rstrip("/").rpartition("/")[2]
    return render(
        "report.html",
        title=f"{name}: report",
        name=name,
        model=run.config["model"]["path"],
        identity=run.digest[:16],
        tiles={
            "kept": f"{summary.statuses['ok']:,}",
            "quarantined": f"{summary.statuses['quarantined']:,}",
            "dropped": f"{summary.statuses['dropped']:,}",
            "failed": f"{summary.statuses['failed']:,}",
            "shards": f"{len(records):,} / {run.shards:,}",
            "images / device second": f"{drawn / device:.2f}" if device else "-",
        },
        audit=audit(run, bool(summary.scores)),
        detectors=[detector(facts) for facts in run.detectors],
        residuals=RESIDUALS,
        concepts=[_concept(name, bins, run, summary) for name, bins in sorted(summary.scores.items())],
        quality=quality,
        words=words,
        words_file=(run.words or {}).get("file"),
        speed=_speed(records),
        treatment=treatment([concept["name"] for concept in run.config["erasure"]["concepts"]], run.recipe),
        steps=run.recipe.get("steps", []),
        pictures=sheet,
    )


def evidence_page(pairs: Sequence[Pair], shown: Sequence[Picture], done: str) -> str:
    """Return the evidence page: what was *done* (``account.treatment``), pairs for the same prompt and seed, then
    quarantined pictures."""
    return render(
        "evidence.html",
        title="Evidence",
        treatment=done,
        pairs=[{"unerased": pair.unerased, "erased": pair.erased, "lines": _lines(pair)} for pair in pairs],
        quarantined=shown,
    )


def _concept(name: str, bins: Sequence[int], run: RunRecord, summary: Summary) -> dict[str, Any]:
    """What is known of a concept, and the histogram of its scores."""
    return {
        "name": name,
        "known": residual(run, summary, name),
        "scores": Bars(
            title=f"{name}: most in a bin {max(bins)}",
            bars=[(n, f"{i / BINS:.2f} to {(i + 1) / BINS:.2f}: {n}") for i, n in enumerate(bins)],
            first="0",
            last="1",
        ),
    }


def _lines(pair: Pair) -> list[str]:
    lines = [pair.prompt, f"seed {pair.seed}"]
    if pair.unerased_scores:
        lines.append(f"{_scores(pair.unerased_scores)} → {_scores(pair.erased_scores)}")
    if pair.gates:
        gates = (f"{name} {rounded_down(score)}" for name, score in sorted(pair.gates.items()))
        lines.append(f"gate {', '.join(gates)}")
    return lines


def throughput(records: Sequence[CommitRecord], bins: int) -> tuple[float, float, list[float]]:
    """Return when the first shard was begun and the last committed (seconds since 1970), and the pictures per second of
    all workers in each of *bins* equal parts of that time.

    A shard's pictures are taken as drawn evenly over its own seconds. Records without a time are left out; where none
    has one, the list is empty.
    """
    timed = [record for record in records if record.committed_at and record.timings.get("seconds")]
    if not timed:
        return 0.0, 0.0, []
    first = min(record.committed_at - record.timings["seconds"] for record in timed)
    last = max(record.committed_at for record in timed)
    width, rates = (last - first) / bins, [0.0] * bins
    for record in timed:
        seconds, ended = record.timings["seconds"], record.committed_at - first
        begun = ended - seconds
        for i in range(int(begun / width), min(bins, int(ended / width) + 1)):
            inside = min((i + 1) * width, ended) - max(i * width, begun)
            rates[i] += record.timings["images"] * max(0.0, inside) / seconds / width
    return first, last, rates


def _speed(records: Sequence[CommitRecord]) -> list[tuple[Bars, str]]:
    """Return charts and what is said below them; none where no record has a time.

    First the pictures per second of all workers over the time of day, in which stops, losses and late starts show as
    dents; then those of each shard, in the order of the shards, and where their seconds went.
    """
    charts: list[tuple[Bars, str]] = []
    first, last, rates = throughput(records, min(200, max(1, 2 * len(records))))
    if rates:
        begun, ended = (f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC" for moment in (first, last))
        caption = (
            f"{sum(rates) / len(rates):.2f} images/s over {last - first:.0f} seconds from the first shard's begin to "
            "the last commit, pauses included."
        )
        charts.append((_rates(rates, "images/s of all workers", begun, ended), caption))
    timed = [record for record in records if record.timings.get("seconds")]
    if timed:
        rates = [record.timings["images"] / record.timings["seconds"] for record in timed]
        step = max(1, len(rates) // 200)
        means = [sum(rates[i : i + step]) / len(rates[i : i + step]) for i in range(0, len(rates), step)]
        seconds = sum(record.timings["seconds"] for record in timed)
        device = sum(record.timings.get("device_seconds", 0.0) for record in records)
        caption = f"{seconds:.0f} worker seconds, of which {device:.0f} on the device ({device / seconds:.0%})."
        ends = f"shard {timed[0].shard}", f"shard {timed[-1].shard}"
        charts.append((_rates(means, "images/s of a shard", *ends), caption))
    return charts


def _rates(rates: Sequence[float], what: str, first: str, last: str) -> Bars:
    bars = [(rate, f"{rate:.2f} images/s") for rate in rates]
    return Bars(title=f"{what}, up to {max(rates):.2f}", bars=bars, first=first, last=last)


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score:.2f}" for name, score in sorted(scores.items()))
