"""``lacuna run`` from a config to a finished corpus, on Ray or in this process: the order of the steps, no more.

recipe -> dtype -> source -> plan -> store (writable? same identity? anything undone?) -> prepare -> generate -> finish
-> summary
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter

from pipeline.audit.compatibility import check_detectors_here
from pipeline.cluster.on_ray import driving
from pipeline.cluster.process import in_ray_job, settle_in, terminable
from pipeline.cluster.progress import Lines, Progress, open_progress
from pipeline.cluster.protocol import Counts, FailureKind, Snapshot
from pipeline.cluster.records import forget_nonces, open_coordinator
from pipeline.cluster.supervisor import Supervisor, Tell
from pipeline.cluster.triage import last_line
from pipeline.cluster.watch import Lost
from pipeline.config import is_settled
from pipeline.config.concepts import concepts_of
from pipeline.config.extras import check_extras_of_source
from pipeline.config.schema import Backend, BadRows, Config, Device, DType
from pipeline.config.sections.generation import Compile
from pipeline.corpus import (
    Output,
    RunRecord,
    Status,
    check_evidence,
    check_writable,
    claim_evidence,
    committed_counts,
    committed_shards,
    failures,
    layout,
    publish_all,
    read_run_record,
    repair_command,
)
from pipeline.corpus.evidence import read_pairs
from pipeline.corpus.finish import finish_output
from pipeline.corpus.probe import leaving_no_folder
from pipeline.corpus.resume import existing_run, follow
from pipeline.corpus.stores import hastily
from pipeline.corpus.summary import Summary
from pipeline.erasure.compatibility import check_recipe_here
from pipeline.errors import ConfigError, CorpusError, EndpointError, StoreError
from pipeline.evaluation.words.settle import with_proved_words
from pipeline.models.compiling import Work, hardware, settle_compile
from pipeline.models.dtype import kind_here, with_dtype
from pipeline.models.settle import settle_attention, settle_size
from pipeline.paths import is_relative, locate
from pipeline.prompts import Plan, RowSource, Sample, count, open_source
from pipeline.prompts.report import source_lines

PAIRS = 16  # pictures drawn erased and unerased for the evidence
SHOWN = 20  # shards or samples named in the summary


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a run ended. ``exit_code``: 0, 1 (shards or samples failed, no picture may be trained on, or the run was
    stopped), 130 (interrupted).

    ``failed`` names, a line each, the shards that were given up, the samples that were left out and the files that are
    damaged.
    """

    exit_code: int
    failed: tuple[str, ...]
    message: str


def run(config: Config, *, accept_environment: bool = False, progress: Progress | None = None) -> RunOutcome:
    """Generate the corpus of *config*, or what is missing of it.

    Raises ``LacunaError`` for what the user has to mend; every other error is a fault of ours and passes through.
    """
    settle_in(config)
    _refuse_relative_paths(config)
    output = Output.of(config.output)
    try:
        # So that no cluster is waited for; the worker that prepares can tell in any case.
        check_recipe_here(config)
        check_detectors_here(config)
        check_extras_of_source(config)
        with leaving_no_folder(locate(config.output.path)), terminable(), Supervisor(config) as on_ray:
            check_writable(output.store)  # before anything takes long
            source = cache(lambda: open_source(config.prompts))
            notes: list[str] = []
            work = Work(lambda: count(config.prompts, source()), check_recipe_here)
            settled = _settled(config, output, on_ray, work, notes.append)
            settled, words = with_proved_words(settled, output.store)
            notes += filter(None, [words])
            return _run(settled, source(), output, on_ray, accept_environment, progress, notes)
    except KeyboardInterrupt:
        return RunOutcome(exit_code=130, failed=(), message=_stopped(output))
    except Lost as lost:
        return RunOutcome(exit_code=1, failed=(), message=f"{_stopped(output)}; {lost}")


def _settled(
    config: Config,
    output: Output,
    on_ray: Supervisor,
    work: Work,
    say: Callable[[str], object],
) -> Config:
    """Settle what is "auto": as the run was begun, or by the model, what the workers' devices do fast, and the *work*.

    A resume on another kind of device is refused later, by its environment.
    """
    config = settle_attention(follow(config, output.store))
    if is_settled(config):
        return config
    config = settle_size(config)
    dtype, cluster = config.model.dtype, config.cluster
    if dtype is not DType.auto and config.generation.compile is not Compile.auto:
        return config
    if cluster.backend is Backend.local or (dtype is not DType.auto and cluster.device is Device.cpu):
        device = hardware(kind_here(cluster.device))
    else:
        device = on_ray.ask(lambda: partial(driving.hardware, config=config), Lines())
    if dtype is DType.auto:
        config = with_dtype(config, device.dtype)
    config, line = settle_compile(config, device, work)
    if line:
        say(line)
    return config


def _run(
    config: Config,
    source: RowSource,
    output: Output,
    on_ray: Supervisor,
    accept_environment: bool,
    progress: Progress | None,
    notes: Sequence[str],
) -> RunOutcome:
    plan = Plan.build(config, source)
    store, evidence = output.store, output.evidence
    pinned = existing_run(config, plan.summary(), store)
    check_evidence(output, plan.identity.digest)
    check_writable(evidence)
    if pinned is not None:
        claim_evidence(output, pinned.digest)
    publish_all(store, evidence)
    known = committed_counts(store)  # before any worker is asked for: half an hour, where there are a million on S3
    if beyond := [shard for shard in known if shard >= plan.shards]:
        raise CorpusError(
            f"{store.url}/{layout.commit(min(beyond))}: no such shard was planned, the plan has {plan.shards}; it is "
            "of another corpus: move it away, with the files that it names"
        )
    given_up = {failure.shard for failure in failures(store) if failure.kind == FailureKind.given_up}
    unfinished = plan.shards - len(given_up | known.keys())
    shown = progress or open_progress()
    for line in (*source_lines(config, plan, notable=True), *notes):
        shown.say(line)
    try:
        snapshot = _generate(config, output, plan, on_ray, shown, known, unfinished, accept_environment)
    finally:
        shown.close()
    pages: list[str] = []
    bad: list[str] = []
    damaged: list[str] = []
    if snapshot.finished and snapshot.done:
        publish_all(store, evidence)  # what workers that died had begun, of shards that others have committed since
        forget_nonces(store)
        finished = finish_output(output)
        bad = _bad_rows(config, plan, finished.summary)
        damaged = finished.damaged
        pages = [path for path in finished.written if path.endswith(f"/{layout.REPORT}")]
    return _outcome(config, snapshot, pages, bad, damaged)


def _generate(
    config: Config,
    output: Output,
    plan: Plan,
    on_ray: Supervisor,
    progress: Progress,
    known: Mapping[int, Counts],
    unfinished: int,
    accept_environment: bool,
) -> Snapshot:
    """Do what is missing, wherever the config says; *known* are the counts of shards committed before."""
    if unfinished == 0:
        _look_at_eyes(config, output, progress)
        return open_coordinator(output.store, config, plan, known=known).snapshot()
    if config.cluster.backend is Backend.local:
        pair_samples = _pair_samples(config, output, plan)
        return _generate_here(config, output, plan, progress, known, pair_samples, accept_environment)

    def drive() -> Callable[[Tell], Snapshot]:
        return partial(
            driving.drive,
            config=config,
            plan=plan,
            pinned=read_run_record(output.store),
            summary=plan.summary(),
            pair_samples=_pair_samples(config, output, plan),
            known=known,
            unfinished=unfinished,
            accept_environment=accept_environment,
        )

    snapshot: Snapshot = on_ray.ask(drive, progress)
    return snapshot


def _generate_here(
    config: Config,
    output: Output,
    plan: Plan,
    progress: Progress,
    known: Mapping[int, Counts],
    pair_samples: Sequence[Sample],
    accept_environment: bool,
) -> Snapshot:
    from pipeline.cluster.local import run_local
    from pipeline.pairs import draw_evidence
    from pipeline.session import Session, prepare
    from pipeline.worker import Worker

    session = Session(config, output=output, say=progress.say)
    record = prepare(session, plan.summary(), accept_environment=accept_environment)
    if pair_samples:
        try:
            draw_evidence(session, record, pair_samples)
        except Exception as error:  # of a prompt, which the run itself will find and leave out
            progress.say(f"the evidence's pairs could not be drawn: {last_line(str(error))}")
    worker = Worker(session, record, looked=plan.looked, accept_environment=accept_environment)
    return run_local(open_coordinator(output.store, config, plan, known=known), worker, progress)


def _look_at_eyes(config: Config, output: Output, progress: Progress) -> None:
    """Refuse other detectors and measures than those that looked at a corpus to which nothing is added any more. Where
    they cannot be asked here what they are, say so: what they told stands, whatever became of them.

    Raises ``ConfigError``.
    """
    record = read_run_record(output.store)
    if record is None:
        return
    for what, pinned in (("detectors", record.detectors), ("measures", record.quality)):
        if pinned:
            _compare(what, record, config, output, progress)


def _compare(what: str, record: RunRecord, config: Config, output: Output, progress: Progress) -> None:
    """Compare the "detectors" or "measures" of *config* with those of *record*; see ``_look_at_eyes``."""
    from pipeline.session import Session

    untold = f"all shards are committed, and whether its {what} are still what they were was not looked at"
    loaded = attrgetter("auditor" if what == "detectors" else "quality")
    try:
        session = Session(config, output=output)
        if session.device != record.environment["device"]:
            progress.say(f"{untold}: they ran on {record.environment['device']}, and here is {session.device}")
            return
        loaded(session)
    except (ConfigError, EndpointError, ImportError) as error:
        progress.say(f"{untold}: {error}")
        return
    session.pin(record)
    try:
        loaded(session)  # and compared
    except EndpointError as error:
        progress.say(f"{untold}: {error}")


def _refuse_relative_paths(config: Config) -> None:
    """Under ``ray job submit`` the working directory is a copy in Ray's cache, gone with the cluster."""
    path = config.output.path
    if in_ray_job() and is_relative(path):
        raise ConfigError(
            f"output.path: {path} is relative, and under `ray job submit` it would land in Ray's package cache; "
            "expected an absolute path that all machines share, or an s3://, gs:// or az:// URL"
        )


def _pair_samples(config: Config, output: Output, plan: Plan) -> Sequence[Sample]:
    """What to draw erased and unerased for the evidence; nothing where it is drawn or there is nothing to compare."""
    if not config.erasure.recipe or read_pairs(output.evidence):
        return ()
    from pipeline.pairs import choose_samples

    return choose_samples(plan, concepts_of(config.erasure), PAIRS)


def _stopped(output: Output) -> str:
    """How to go on, from storage alone: the end may have come before there was a plan."""
    path, store = output.path, output.store
    try:
        with hastily():  # whoever has interrupted waits
            pinned = read_run_record(store)
            if pinned is None:
                return f"stopped before any shard of {path} was begun; the same command begins again"
            done = len(committed_shards(store))
    except StoreError as error:
        return f"stopped; how much is committed is not known ({error}); the same command goes on from there"
    return f"stopped: {done} of {pinned.shards} shards are committed in {path}; the same command goes on from there"


def _bad_rows(config: Config, plan: Plan, summary: Summary) -> list[str]:
    """Name the failed samples whose rows could not be drawn, where the config does not say that this may be."""
    number = summary.reasons["bad row"]
    if config.prompts.bad_rows is BadRows.skip or not number:
        return []
    lines = [f"sample {key}: {plan.where(key)}: {fault}" for key, fault in summary.bad_rows]
    if number > len(lines):
        lines.append(f"{number - len(lines):,} more bad rows, named in the manifests")
    return lines


def _outcome(
    config: Config, snapshot: Snapshot, pages: Sequence[str], bad: Sequence[str], damaged: Sequence[str]
) -> RunOutcome:
    path = config.output.path
    failed = tuple(
        [f"shard {shard:06d}: given up: {last_line(why)}" for shard, why in sorted(snapshot.given_up.items())]
        + [f"sample {key}: left out, it makes its shard fail" for key in snapshot.blamed]
        + list(bad)
        + [f"damaged since it was committed: {line}" for line in damaged]
    )
    if snapshot.stopped is not None and not snapshot.finished:
        message = f"stopped after {snapshot.done} of {snapshot.shards} shards: {snapshot.stopped}"
        return RunOutcome(exit_code=1, failed=failed, message=message)
    counts = ", ".join(f"{number} {status}" for status, number in snapshot.counts.items() if number)
    lines = [f"{path}: {snapshot.done} of {snapshot.shards} shards, {counts or 'no samples'}"]
    lines += failed[:SHOWN]
    if len(failed) > SHOWN:
        lines.append(f"... and {len(failed) - SHOWN} more; see {path}/failures")
    if snapshot.given_up:
        lines.append(f"to try a shard again, delete its records {path}/failures/SHARD-*.json and run the same command")
    if damaged:
        lines.append(f"to draw again what is damaged: {repair_command(path)}")
    if not (kept := snapshot.counts.get(Status.ok, 0)):
        lines.append("nothing was kept: no picture of this corpus may be trained on")
    if pages:
        lines.append(f"look at {' and '.join(pages)}")
    return RunOutcome(exit_code=1 if failed or not kept else 0, failed=failed, message="\n".join(lines))
