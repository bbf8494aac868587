"""The corpus: where it lies, how a shard comes to exist, how it is checked, described and read."""

from pipeline.corpus.commit import (
    CommitRecord,
    CommitResult,
    File,
    build_shard,
    commit_shard,
    committed,
    committed_counts,
    committed_shards,
    publish_all,
    read_commit,
)
from pipeline.corpus.damage import published, repair_command
from pipeline.corpus.failures import FailureRecord, failures, record_failure
from pipeline.corpus.finish import finish
from pipeline.corpus.layout import evidence_url
from pipeline.corpus.manifest import NO_CAPTION, Attempt, ManifestRow, Status
from pipeline.corpus.opening import Output, open_store
from pipeline.corpus.probe import check_writable
from pipeline.corpus.purge import check_evidence, claim_evidence, purge_evidence, purged_on
from pipeline.corpus.run_record import RunRecord, create_run_record, read_run_record, require_run_record
from pipeline.corpus.status import status
from pipeline.corpus.stores import Store
from pipeline.corpus.verify import Inspection, inspect, verify

__all__ = [
    "NO_CAPTION",
    "Attempt",
    "CommitRecord",
    "CommitResult",
    "FailureRecord",
    "File",
    "Inspection",
    "ManifestRow",
    "Output",
    "RunRecord",
    "Status",
    "Store",
    "build_shard",
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
    "inspect",
    "open_store",
    "publish_all",
    "published",
    "purge_evidence",
    "purged_on",
    "read_commit",
    "read_run_record",
    "record_failure",
    "repair_command",
    "require_run_record",
    "status",
    "verify",
]
