"""How far a corpus is, from storage alone: while a run goes on, from any machine, or long after."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.corpus import layout
from pipeline.corpus.account import treatment
from pipeline.corpus.damage import repair_command, standing
from pipeline.corpus.failures import FailureRecord, failures
from pipeline.corpus.manifest import NO_CAPTION
from pipeline.corpus.opening import open_store
from pipeline.corpus.run_record import RunRecord, require_run_record
from pipeline.corpus.summary import Summary, naming_of, summarise

SHOWN = 20  # damaged files named


@dataclass(frozen=True, kw_only=True)
class StatusReport:
    """``seconds`` is the sum of the committed shards' own times, ``images`` what was drawn in them; ``pages`` are the
    reports to look at, where the run has finished; ``damaged`` has a line for each file that is not as committed, whose
    shards are counted nowhere else."""

    path: str
    run: RunRecord
    shards: int
    summary: Summary
    failures: tuple[FailureRecord, ...]
    damaged: tuple[str, ...]
    images: float
    seconds: float
    pages: tuple[str, ...]

    def text(self) -> str:
        """Return the report as lines for a terminal."""
        run, summary = self.run, self.summary
        done = sum(summary.statuses.values())
        lines = [
            f"corpus      {self.path}",
            f"identity    {run.digest[:16]}",
            f"concepts    {treatment([c['name'] for c in run.config['erasure']['concepts']], run.recipe)}",
            f"progress    {self.shards} of {run.shards} shards, {done} of {run.samples} samples",
        ]
        if done:
            kept = summary.statuses["ok"]
            lines.append(f"yield       {kept} kept ({kept / done:.1%})")
            others = [f"{n} {status}" for status, n in sorted(summary.statuses.items()) if status != "ok" and n]
            lines.append(f"not kept    {', '.join(others) or 'none'}")
        for concept in sorted(summary.scores.keys() | summary.failed_naming.keys()):
            parts = []
            if concept in summary.scores:
                seen = {status: n[concept] for status, n in sorted(summary.found.items()) if n[concept]}
                what = ", ".join(f"{n} {status}" for status, n in seen.items()) or "never seen"
                rate, low, high = summary.rate(concept)
                parts.append(f"{what} ({rate:.2%} of pictures, 95 % {low:.2%} to {high:.2%})")
            if failed := summary.failed_naming[concept]:
                parts.append(f"{failed} failed whose prompts name it")
            lines.append(f"  {concept}: {'; '.join(parts)}")
        if summary.uncaptioned:
            lines.append(f"  dropped, {NO_CAPTION}: {summary.uncaptioned}")
        for reason, number in sorted(summary.reasons.items()):
            lines.append(f"  failed, {reason}: {number}")
        lines += [f"    {key}: {fault}" for key, fault in summary.bad_rows]
        if self.seconds:
            lines.append(f"speed       {self.images / self.seconds:.2f} images/s per worker")
            if self.shards < run.shards:
                left = (run.shards - self.shards) * self.seconds / self.shards
                lines.append(f"left        {left / 3600:.2f} worker-hours")
        kinds = Counter(failure.kind for failure in self.failures)
        if kinds:
            lines.append(f"failures    {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}")
        for failure in self.failures:
            if failure.kind in ("blamed", "given_up"):
                what = f"sample {failure.sample_key}" if failure.sample_key else f"shard {failure.shard:06d}"
                last = failure.message.strip().splitlines()[-1] if failure.message.strip() else ""
                lines.append(f"  {failure.kind.replace('_', ' ')}: {what}: {last}")
        if self.damaged:
            lines.append(f"damaged     {len(self.damaged)} files; to mend them: {repair_command(self.path)}")
            lines += [f"  {line}" for line in self.damaged[:SHOWN]]
            if len(self.damaged) > SHOWN:
                lines.append(f"  ... and {len(self.damaged) - SHOWN} more; lacuna verify names all")
        if self.pages:
            lines.append(f"look at     {' and '.join(self.pages)}")
        return "\n".join(lines)


def status(path: str, options: Mapping[str, str] | None = None) -> StatusReport:
    """Read how the corpus at *path* stands. Raises ``CorpusError`` where there is none."""
    store, evidence = open_store(path, options), open_store(layout.evidence_url(path), options)
    run = require_run_record(store)
    whole, damaged = standing(store)
    summary, unreadable = summarise(store, list(whole.values()), naming_of(run))
    records = [record for record in whole.values() if record.shard not in unreadable]
    return StatusReport(
        path=path,
        run=run,
        shards=len(records),
        summary=summary,
        failures=tuple(failures(store)),
        damaged=(*damaged, *unreadable.values()),
        images=sum(record.timings.get("images", 0) for record in records),
        seconds=sum(record.timings.get("seconds", 0.0) for record in records),
        pages=tuple(f"{where.url}/{layout.REPORT}" for where in (store, evidence) if where.exists(layout.REPORT)),
    )
