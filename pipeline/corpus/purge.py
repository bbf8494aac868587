"""Whose the evidence beside a corpus is, and its end.

``evidence.json`` in the evidence says it. ``lacuna run`` alone writes it, once ``run.yaml`` has decided which corpus
this is, and takes over a folder without one, as ``preview`` and ``explain`` leave it; evidence of a corpus that was
begun before there was such a note is that of the corpus beside it. A folder that is itself a corpus is never evidence.

A purge writes into the note that it begins, deletes all else, and writes that it has ended. So one that was killed is
ended by the next, and nobody has to guess why there is no evidence.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from pipeline.corpus import layout
from pipeline.corpus.commit import committed_counts
from pipeline.corpus.manifest import Status
from pipeline.corpus.opening import Output, open_store
from pipeline.corpus.run_record import RunRecord, require_run_record
from pipeline.corpus.stores import Entry, Store, create_or_read
from pipeline.errors import CorpusError
from pipeline.paths import EVIDENCE, locate


@dataclass(frozen=True, kw_only=True)
class Note:
    """``evidence.json``: the identity of the corpus, where it lay when it was last run, and the last purge.

    Times are of the clock that purged, in UTC, as ISO 8601; ``""`` where there was none.
    """

    identity: str
    path: str
    purge_begun: str = ""
    purged: str = ""

    def dumps(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, indent=1).encode()

    @classmethod
    def loads(cls, data: bytes, path: str) -> "Note":
        """Raise ``CorpusError`` for what is no such note."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise CorpusError(
                f"{path}: does not say whose evidence this is ({error}); if it is of the corpus beside it, delete the "
                "file, and the same `lacuna run` writes it again"
            ) from error


def check_evidence(output: Output, identity: str) -> None:
    """Refuse to run the corpus *identity* at *output* where its evidence would be mixed with something else.

    Raises ``CorpusError`` where the folder of the evidence is a corpus, or holds evidence of another one, and where
    *output* is itself such a folder. Writes nothing.
    """
    location, evidence = locate(output.path), output.evidence
    beside = replace(location, path=location.path.removesuffix(EVIDENCE))
    if output.store.exists(layout.EVIDENCE_NOTE) or (
        location.name.endswith(EVIDENCE) and beside.name and open_store(beside, output.options).exists(layout.RUN)
    ):
        raise CorpusError(f"{location}: is the evidence of the corpus {beside}; choose another output.path")
    if evidence.exists(layout.RUN) or any(evidence.list(layout.COMMITS)):
        raise CorpusError(
            f"{evidence.url}: is a corpus, so the evidence of {location} cannot lie there; choose another output.path"
        )
    note = read_note(evidence)
    if note is not None and note.identity != identity and _files(evidence):
        raise CorpusError(
            f"{evidence.url}: holds evidence of another corpus (identity {note.identity[:16]}, made at {note.path}); "
            "move or delete it, or choose another output.path"
        )


def claim_evidence(output: Output, identity: str) -> None:
    """Write into the evidence beside the corpus at *output*, which is pinned, that it is its own.

    Raises ``CorpusError`` as ``check_evidence`` does.
    """
    check_evidence(output, identity)
    evidence = output.evidence
    ours = Note(identity=identity, path=str(locate(output.path)))
    standing = Note.loads(create_or_read(evidence, layout.EVIDENCE_NOTE, ours.dumps()), evidence.url)
    if standing.identity != identity:  # and nothing else is there
        evidence.write(layout.EVIDENCE_NOTE, ours.dumps())
    elif standing.path != ours.path:  # corpus and evidence were moved
        evidence.write(layout.EVIDENCE_NOTE, replace(standing, path=ours.path).dumps())


def purged_on(path: str, options: Mapping[str, str] | None = None) -> str:
    """Return when the evidence of the corpus at *path* was purged last; ``""`` where it never was."""
    note = read_note(open_store(layout.evidence_url(path), options))
    return "" if note is None else note.purged


def purge_evidence(path: str, options: Mapping[str, str] | None = None) -> int:
    """Delete all evidence of the corpus at *path*; return how many files there were. The manifests keep the record.

    Raises ``CorpusError`` where no corpus is, where what lies beside it is not its evidence, and where nothing lies
    there though this corpus had some and no purge is known; then nothing was deleted.
    """
    output = Output.open(path, options)
    return purge(output.store, output.evidence)


def purge(store: Store, evidence: Store) -> int:
    """See ``purge_evidence``."""
    run = require_run_record(store)
    files = _files(evidence)
    _check_no_corpus(evidence, files)
    note = read_note(evidence)
    if note is not None and note.identity != run.digest:
        raise CorpusError(
            f"{evidence.url}: is evidence of another corpus (identity {note.identity[:16]}, made at {note.path}), not "
            f"of {store.url}; nothing was deleted"
        )
    if files and note is None and run.lacuna:
        raise CorpusError(
            f"{evidence.url}: nothing says that this is evidence of {store.url}, whose own is marked; nothing was "
            "deleted: delete it yourself, or run the corpus again, which marks it"
        )
    if not files:
        if note is not None and note.purged:
            return 0
        if (note is None or not note.purge_begun) and (had := _had(store, run)):
            raise CorpusError(
                f"{evidence.url}: no evidence is here, and no note of a purge, though this corpus had some ({had}); "
                "if it was moved, move it back, or delete it where it is"
            )
        if note is None:
            return 0
    begun = replace(note or Note(identity=run.digest, path=store.url), purge_begun=_now())
    evidence.write(layout.EVIDENCE_NOTE, begun.dumps())
    evidence.delete_tree("", {layout.EVIDENCE_NOTE})
    if late := _files(evidence):
        raise CorpusError(
            f"{evidence.url}: {len(late)} files have come while it was purged, such as {late[0].path}; "
            "is a run at work? purge again when it has ended"
        )
    evidence.write(layout.EVIDENCE_NOTE, replace(begun, purged=_now()).dumps())
    return len(files)


def _files(evidence: Store) -> list[Entry]:
    return [entry for entry in evidence.list() if entry.path != layout.EVIDENCE_NOTE]


def _check_no_corpus(evidence: Store, files: list[Entry]) -> None:
    """Raise ``CorpusError`` where a corpus is among *files*, at any depth."""
    for entry in files:
        *folders, name = entry.path.split("/")
        if name == layout.RUN or layout.COMMITS in folders:
            raise CorpusError(f"{evidence.url}: a corpus lies there ({entry.path}), so it is no evidence")


def _had(store: Store, run: RunRecord) -> str:
    """Return what evidence the corpus must have had; ``""`` where it needs not have had any."""
    counts = committed_counts(store).values()
    if quarantined := sum(count[Status.quarantined.value] for count in counts):
        return f"{quarantined} quarantined pictures"
    return "pictures drawn erased and unerased" if counts and run.recipe.get("steps") else ""


def read_note(evidence: Store) -> Note | None:
    """Return the note in *evidence*, or None where it has none."""
    with contextlib.suppress(FileNotFoundError):
        return Note.loads(evidence.read(layout.EVIDENCE_NOTE), f"{evidence.url}/{layout.EVIDENCE_NOTE}")
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
