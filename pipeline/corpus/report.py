"""The pages: report.html of a corpus, and the evidence page beside it. Self-contained, with inline SVG and pictures.

The report shows kept pictures only, so a corpus folder can be handed on as it is; everything else is on the evidence
page. Knows nothing of how figures came about.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.corpus import layout
from pipeline.corpus.account import audit, treatment
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.evidence import Pair
from pipeline.corpus.manifest import ManifestRow, Status, read_rows
from pipeline.corpus.run_record import RunRecord
from pipeline.corpus.stores import Store
from pipeline.corpus.summary import BINS, Summary
from pipeline.pages.page import escape, page, picture

SHOWN = 64  # pictures on a contact sheet


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded picture and what is written under it."""

    image: bytes
    title: str
    note: str = ""


def contact_sheet(store: Store, records: Sequence[CommitRecord]) -> list[Picture]:
    """Return kept pictures, evenly spread over the corpus, read by offset from their tars."""
    shards = [record.shard for record in records if record.counts["ok"]]
    return [Picture(image=image, title=row.caption) for row, image in _spread(store, shards, layout.tar, Status.ok)]


def quarantined(corpus: Store, evidence: Store, records: Sequence[CommitRecord]) -> list[Picture]:
    """Return quarantined pictures, evenly spread; none where the evidence was purged.

    The manifests of *corpus* say where in a tar of *evidence* a picture is.
    """
    there = {entry.path for entry in evidence.list(layout.QUARANTINE)}
    shards = [r.shard for r in records if r.counts["quarantined"] and layout.quarantine_tar(r.shard) in there]
    return [
        Picture(image=image, title=row.prompt, note=f"{row.reason}: {_scores(row.scores)}")
        for row, image in _spread(evidence, shards, layout.quarantine_tar, Status.quarantined, corpus)
    ]


def _spread(
    store: Store, shards: Sequence[int], tar: Callable[[int], str], status: Status, manifests: Store | None = None
) -> list[tuple[ManifestRow, bytes]]:
    """Return up to SHOWN rows of a status with their pictures, from up to SHOWN evenly spread shards."""
    chosen = [shards[i * len(shards) // min(SHOWN, len(shards))] for i in range(min(SHOWN, len(shards)))]
    found: list[tuple[ManifestRow, bytes]] = []
    for i, shard in enumerate(chosen):
        rows = [
            row
            for row in read_rows((manifests or store).read(layout.manifest(shard)))
            if row.status is status and row.offset is not None
        ]
        share = (SHOWN - len(found)) // (len(chosen) - i)
        take = min(share, len(rows))
        for j in range(take):
            row = rows[j * len(rows) // take]
            assert row.offset is not None
            assert row.length is not None
            image = store.read_range(tar(shard), row.offset, row.length)
            if hashlib.sha256(image).hexdigest() == row.sha256:  # else it is damaged, which verify says
                found.append((row, image))
    return found


def report_page(run: RunRecord, records: Sequence[CommitRecord], summary: Summary, sheet: Sequence[Picture]) -> str:
    """Return report.html."""
    device = sum(record.timings.get("device_seconds", 0.0) for record in records)
    drawn = sum(record.timings.get("images", 0) for record in records)
    tiles = {
        "kept": f"{summary.statuses['ok']:,}",
        "quarantined": f"{summary.statuses['quarantined']:,}",
        "dropped": f"{summary.statuses['dropped']:,}",
        "failed": f"{summary.statuses['failed']:,}",
        "shards": f"{len(records):,} / {run.shards:,}",
        "images / device second": f"{drawn / device:.2f}" if device else "-",
    }
    body = [
        f"<h1>{escape(_name(run))}</h1>",
        f"<p class=soft>model <code>{escape(run.config['model']['path'])}</code>, "
        f"identity <code>{run.digest[:16]}</code></p>",
        "<div class=tiles>"
        + "".join(f"<div class=tile><b>{escape(v)}</b>{escape(k)}</div>" for k, v in tiles.items())
        + "</div>",
        "<h2>What the audit saw</h2>",
        f"<p>{escape(audit(run.config, bool(summary.scores)))}</p>",
        *_audit(summary),
        "<h2>Speed</h2>",
        _throughput(records),
        _speed(records),
        "<h2>Recipe</h2>",
        f"<p>{escape(treatment(_concepts(run), run.recipe))}</p>",
        _recipe_table(run),
        "<h2>Kept pictures</h2>",
        _sheet(sheet),
    ]
    return page(f"{_name(run)}: report", body)


def evidence_page(pairs: Sequence[Pair], shown: Sequence[Picture], done: str) -> str:
    """Return the evidence page: what was *done* (``account.treatment``), pairs for the same prompt and seed, then
    quarantined pictures."""
    body = [
        "<h1>Evidence</h1>",
        "<p class=soft>Not for training: unerased and quarantined pictures. "
        "<code>lacuna purge</code> deletes them.</p>",
        f"<p>{escape(done)}</p>",
    ]
    if pairs:
        body += ["<h2>Without (left) and with the recipe (right), same prompt and seed</h2>", _pairs(pairs)]
    if shown:
        body += ["<h2>Quarantined</h2>", _sheet(shown)]
    return page("Evidence", body)


def _name(run: RunRecord) -> str:
    return str(run.config["output"]["path"]).rstrip("/").rpartition("/")[2]


def _concepts(run: RunRecord) -> list[str]:
    return [concept["name"] for concept in run.config["erasure"]["concepts"]]


def _audit(summary: Summary) -> list[str]:
    """The shares of each concept, and the histograms of its scores."""
    if not summary.scores:
        return []
    rows = ["<tr><th>concept<th>seen in pictures drawn<th>seen in pictures kept (Wilson 95 %)</tr>"]
    for concept in sorted(summary.scores):
        cells = (f"{share:.2%} <span class=soft>({low:.2%} to {high:.2%})</span>"
                 for share, low, high in (summary.rate(concept), summary.residual(concept)))  # fmt: skip
        rows.append(f"<tr><td>{escape(concept)}" + "".join(f"<td>{cell}" for cell in cells) + "</tr>")
    return [
        f"<table>{''.join(rows)}</table>",
        "<h2>Scores of the last picture of each sample</h2><div class=charts>",
        *(_histogram(concept, bins) for concept, bins in sorted(summary.scores.items())),
        "</div>",
    ]


def _recipe_table(run: RunRecord) -> str:
    """A step in a line; its options, of which there may be many, are folded away."""
    rows = []
    for step in run.recipe.get("steps", []):
        options = ", ".join(f"{key} {value}" for key, value in step["options"].items())
        folded = f"<details><summary>options</summary><p class=soft>{escape(options)}</p></details>" if options else ""
        rows.append(f"<tr><td>{escape(step['label'])}<td>{escape(', '.join(step['concepts']))}<td>{folded}</tr>")
    return f"<table><tr><th>step<th>concepts<th></tr>{''.join(rows)}</table>" if rows else ""


def _histogram(concept: str, bins: Sequence[int]) -> str:
    top = max(bins) or 1
    width = 280 / BINS
    bars = "".join(
        f'<rect x="{10 + i * width:.1f}" y="{104 - 88 * n / top:.1f}" width="{width - 2:.1f}" '
        f'height="{88 * n / top:.1f}" fill="var(--bar)">'
        f"<title>{i / BINS:.2f} to {(i + 1) / BINS:.2f}: {n}</title></rect>"
        for i, n in enumerate(bins)
    )
    return (
        f'<figure><svg viewBox="0 0 300 124" role="img" aria-label="scores of {escape(concept)}">'
        f'<text x="10" y="11">{escape(concept)}: most in a bin {top}</text>{bars}'
        '<text x="10" y="119">0</text><text x="284" y="119">1</text></svg></figure>'
    )


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


def _throughput(records: Sequence[CommitRecord]) -> str:
    """Pictures per second of all workers over the time of day: stops, losses and late starts show as dents."""
    first, last, rates = throughput(records, min(200, max(1, 2 * len(records))))
    if not rates:
        return "<p>No times.</p>"
    drawn = sum(rates) / len(rates)
    begun, ended = (datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S") for moment in (first, last))
    return (
        f"<figure>{_bars(rates, 'images/s of all workers', f'{begun} UTC', f'{ended} UTC')}"
        f"<figcaption>{drawn:.2f} images/s over {last - first:.0f} seconds from the first shard's begin to the last "
        "commit, pauses included.</figcaption></figure>"
    )


def _speed(records: Sequence[CommitRecord]) -> str:
    """Images per second of each shard, in the order of the shards, and where their seconds went."""
    rates = [
        record.timings["images"] / record.timings["seconds"] for record in records if record.timings.get("seconds")
    ]
    if not rates:
        return "<p>No timings.</p>"
    step = max(1, len(rates) // 200)
    means = [sum(rates[i : i + step]) / len(rates[i : i + step]) for i in range(0, len(rates), step)]
    seconds = sum(record.timings.get("seconds", 0.0) for record in records)
    device = sum(record.timings.get("device_seconds", 0.0) for record in records)
    return (
        f"<figure>{_bars(means, 'images/s of a shard', f'shard {records[0].shard}', f'shard {records[-1].shard}')}"
        f"<figcaption>{seconds:.0f} worker seconds, of which {device:.0f} on the device "
        f"({device / seconds:.0%}).</figcaption></figure>"
    )


def _bars(rates: Sequence[float], what: str, first: str, last: str) -> str:
    """A chart of *rates* from left to right, with what its ends are."""
    top, width = max(rates), 960 / len(rates)
    bars = "".join(
        f'<rect x="{20 + i * width:.1f}" y="{118 - 100 * rate / top:.1f}" width="{max(1.0, width - 1):.1f}" '
        f'height="{100 * rate / top:.1f}" fill="var(--bar)"><title>{rate:.2f} images/s</title></rect>'
        for i, rate in enumerate(rates)
    )
    return (
        f'<svg viewBox="0 0 1000 136"><text x="20" y="11">{what}, up to {top:.2f}</text>{bars}'
        f'<text x="20" y="131">{first}</text><text x="980" y="131" text-anchor="end">{last}</text></svg>'
    )


def _sheet(pictures: Sequence[Picture]) -> str:
    notes = (f"<br><span class=bad>{escape(p.note)}</span>" if p.note else "" for p in pictures)
    figures = (
        f"<figure>{picture(p.image)}<figcaption>{escape(p.title)}{note}</figcaption></figure>"
        for p, note in zip(pictures, notes, strict=True)
    )
    return f"<div class=sheet>{''.join(figures)}</div>" if pictures else "<p>None.</p>"


def _pairs(pairs: Sequence[Pair]) -> str:
    figures = []
    for pair in pairs:
        seen = f"{_scores(pair.unerased_scores)} → {_scores(pair.erased_scores)}" if pair.unerased_scores else ""
        gates = f"gate {_scores(pair.gates)}" if pair.gates else ""
        notes = "<br>".join(escape(text) for text in (seen, gates) if text)
        figures.append(
            f"<figure><div class=two>{picture(pair.unerased)}{picture(pair.erased)}</div>"
            f"<figcaption>{escape(pair.prompt)}<br>seed {pair.seed}<br>{notes}</figcaption></figure>"
        )
    return f'<div class="sheet pairs">{"".join(figures)}</div>'


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score:.2f}" for name, score in sorted(scores.items()))
