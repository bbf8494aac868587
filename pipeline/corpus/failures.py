"""The failures of shards, written down so that budgets survive a restart."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from pipeline.corpus import layout
from pipeline.corpus.stores import Store, create_or_read
from pipeline.errors import CorpusError
from pipeline.parallel import in_parallel


@dataclass(frozen=True, kw_only=True)
class FailureRecord:
    """``failures/SHARD-NUMBER.json``: one failed attempt at a shard, or a verdict on it (see ``cluster.protocol``).

    ``recorded_at`` is in seconds since 1970, and tells two alike apart; 0 until then.
    """

    shard: int
    kind: str
    message: str
    sample_key: str | None = None
    attempt: str = ""
    worker: str = ""
    recorded_at: float = 0.0


def record_failure(store: Store, failure: FailureRecord) -> None:
    """Write a failure down, as of now, under the shard's next free number."""
    record = replace(failure, recorded_at=time.time())
    data = json.dumps(asdict(record), sort_keys=True, indent=1).encode()
    number = 0
    while (
        create_or_read(store, layout.failure(failure.shard, number), data) != data
    ):  # budgets keep them under 30 a shard
        number += 1


def failures(store: Store) -> Iterator[FailureRecord]:
    """Yield every failure, by shard and number. Raises ``CorpusError`` for what is no record of one."""
    paths = [entry.path for entry in store.list(layout.FAILURES)]
    for path, data in zip(paths, in_parallel(store.read, paths), strict=True):
        try:
            yield FailureRecord(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise CorpusError(
                f"{store.url}/{path}: not a record of a failure ({error}); delete it, and this failure is not counted"
            ) from error
