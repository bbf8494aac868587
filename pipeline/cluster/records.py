"""Between coordinator and corpus: what storage says on starting, and where failures are written down.

The only file of this folder that touches storage. Knows nothing of Ray.
"""

import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.protocol import Counts, Failure, FailureKind, Held, Planner
from pipeline.config.schema import Config
from pipeline.corpus import (
    FailureRecord,
    Store,
    committed_counts,
    committed_shards,
    failures,
    layout,
    read_commit,
    record_failure,
)
from pipeline.errors import ConfigError
from pipeline.parallel import in_parallel
from pipeline.prompts.order import SPAN

# Planned before they are due: two windows of a shuffle, about 30 MB. While one is used, the next is fetched.
SAMPLES_AHEAD = 2 * SPAN
FEW = 256  # shards: asked for one by one, they take an object store as long as some of its 1,000 names a request
MOST_AHEAD = 64  # shards, for each call looks at all of them


def open_coordinator(
    store: Store,
    config: Config,
    plan: Planner,
    *,
    held: Mapping[str, Sequence[Held]] | None = None,
    known: Mapping[int, Counts] | None = None,
) -> Coordinator:
    """Make a coordinator that goes on from what *store* lists; *held* are the leases of a predecessor.

    *known* are counts of commits that were read before: they are not read again. Which are there, storage says.
    """

    def record(failure: Failure) -> None:
        written = FailureRecord(
            shard=failure.shard,
            kind=str(failure.kind),
            message=failure.message,
            sample_key=failure.sample_key,
            attempt=failure.attempt,
            worker=failure.worker,
        )
        record_failure(store, written)

    def found(shards: Collection[int]) -> Mapping[int, Counts]:
        return counts_of(store, shards)

    past = [
        Failure(
            shard=failure.shard,
            kind=FailureKind(failure.kind),
            message=failure.message,
            sample_key=failure.sample_key,
            attempt=failure.attempt,
            worker=failure.worker,
        )
        for failure in failures(store)
    ]
    return Coordinator(
        plan,
        done=committed_counts(store, known),
        past=past,
        record=record,
        committed=found,
        token=secrets.token_hex(4),
        error_budget=config.cluster.error_budget,
        node_loss_budget=config.cluster.node_loss_budget,
        load_timeout=config.cluster.load_timeout,
        shard_timeout=config.cluster.shard_timeout,
        held=held,
        ahead=max(1, min(MOST_AHEAD, SAMPLES_AHEAD // config.output.samples_per_shard)),
    )


def counts_of(store: Store, shards: Collection[int]) -> Mapping[int, Counts]:
    """Return the samples per status of those of *shards* that are committed.

    Few are asked for one by one; of many, one listing tells which there are to be read.
    """
    asked = sorted(shards)
    if len(asked) > FEW:
        asked = sorted(set(committed_shards(store)) & set(asked))
    records = in_parallel(partial(read_commit, store), asked)
    return {record.shard: record.counts for record in records if record is not None}


def write_nonce(store: Store) -> str:
    """Leave a nonce in the output, for workers to find; return it. It lies where attempts lie, and is no attempt."""
    nonce = secrets.token_hex(8)
    store.write(_nonce_path(nonce), nonce.encode())
    return nonce


def read_nonce(store: Store, nonce: str) -> None:
    """Raise ``ConfigError`` unless the nonce is here: else a node-local path would split the corpus over machines."""
    try:
        found = store.read(_nonce_path(nonce)).decode()
    except FileNotFoundError:
        found = ""
    if found != nonce:
        raise ConfigError(
            f"output.path: {store.url}: a worker on {socket.gethostname()} does not see what the driver wrote there; "
            "expected a folder that all machines share, or an s3://, gs:// or az:// URL"
        )


def delete_nonce(store: Store, nonce: str) -> None:
    """Remove it again."""
    store.delete(_nonce_path(nonce))


def forget_nonces(store: Store) -> None:
    """Remove the nonces of drivers that were killed; only once the run is finished, for a live one needs its own."""
    for entry in list(store.list(layout.ATTEMPTS)):
        if entry.path.startswith(_nonce_path("")):
            store.delete(entry.path)


def _nonce_path(nonce: str) -> str:
    return f"{layout.ATTEMPTS}/nonce-{nonce}"
