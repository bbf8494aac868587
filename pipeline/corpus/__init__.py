"""The corpus: where it lies, how a shard comes to exist, how it is checked, described and read."""

from pipeline.corpus.commit import (
    CommitRecord,
    CommitResult,
    commit_shard,
    committed,
    committed_counts,
    committed_shards,
    published,
    read_commit,
    repair,
)
from pipeline.corpus.failures import FailureRecord, failures, record_failure
from pipeline.corpus.finish import finish
from pipeline.corpus.layout import evidence_url
from pipeline.corpus.manifest import NO_CAPTION, Attempt, Row, Status
from pipeline.corpus.probe import check_writable
from pipeline.corpus.purge import check_evidence, claim_evidence, purge_evidence, purged_on
from pipeline.corpus.run_record import RunRecord, create_run_record, read_run_record, require_run_record
from pipeline.corpus.status import status
from pipeline.corpus.stores import Store, open_store
from pipeline.corpus.verify import verify

__all__ = [
    "NO_CAPTION",
    "Attempt",
    "CommitRecord",
    "CommitResult",
    "FailureRecord",
    "Row",
    "RunRecord",
    "Status",
    "Store",
    "check_evidence",
    "check_writable",
    "claim_evidence",
    "commit_shard",
    "committed",
    "committed_counts",
    "committed_shards",
    "create_run_record",
    "evidence_url",
    "failures",
    "finish",
    "open_store",
    "published",
    "purge_evidence",
    "purged_on",
    "read_commit",
    "read_run_record",
    "record_failure",
    "repair",
    "require_run_record",
    "status",
    "verify",
]
