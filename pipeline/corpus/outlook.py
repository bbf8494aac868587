"""What a run would find at its output, or refuse there: for whoever plans. Nothing is left behind."""

from pipeline.config.schema import Config
from pipeline.corpus.commit import committed_shards
from pipeline.corpus.failures import failures
from pipeline.corpus.opening import Output
from pipeline.corpus.probe import check_writable, leaving_no_folder
from pipeline.corpus.purge import check_evidence
from pipeline.corpus.resume import existing_run
from pipeline.paths import locate
from pipeline.prompts import PlanSummary


def outlook(config: Config, summary: PlanSummary, *, settled: bool = True) -> str:
    """Return, as a line, where the corpus would lie, and how much of it is there.

    Raises ``LacunaError`` for what `lacuna run` would refuse there: another corpus or version, evidence of another,
    storage that cannot be written or lacks what a commit needs. Whose the evidence is cannot be told before all of the
    config is *settled*.
    """
    location = locate(config.output.path)
    output = Output.of(config.output)
    store = output.store
    record = existing_run(config, summary, store)
    if settled:
        check_evidence(output, summary.identity.digest)
    with leaving_no_folder(location):
        check_writable(store)
        check_writable(output.evidence)
    if record is None:
        return f"{location}: nothing is there yet"
    done = len(committed_shards(store))
    if done == summary.shards:
        return f"{location}: complete, {done:,} of {summary.shards:,} shards"
    given_up = sum(failure.kind == "given_up" for failure in failures(store))
    lost = f", {given_up:,} of them given up" if given_up else ""
    return f"{location}: {done:,} of {summary.shards:,} shards, {summary.shards - done:,} left{lost}"
