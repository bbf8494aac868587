"""Looks for the concepts of a new list in pictures that were drawn for others: nothing is drawn for it."""

import hashlib
from collections.abc import Callable, Set

import numpy as np

from pipeline.audit.auditor import Auditor
from pipeline.corpus import layout
from pipeline.corpus.encode import decode_image
from pipeline.errors import CorpusError
from pipeline.evaluation.words.cache import SweptShard, WordCache
from pipeline.evaluation.words.tally import Row

BATCH = 32  # pictures


def look_again(cache: WordCache, device: str, say: Callable[[str], None]) -> None:
    """Have the detector look at every picture of *cache* in which it did not look for some concept of the list, yet.

    Each shard is kept once it is done, so who is interrupted goes on. Raises ``ConfigError`` where the detector cannot
    judge the list, and ``CorpusError`` where pictures are gone.
    """
    todo = cache.unjudged()
    if not todo:
        return
    pictures = sum(row.offset is not None for part, _ in todo for row in part.rows)
    names = list(dict.fromkeys(concept.name for _, concepts in todo for concept in concepts))
    say(f"looking for {', '.join(names)} in {pictures:,} pictures that are there; nothing is drawn for it")
    auditor = cache.load_auditor(device)
    assert auditor is not None  # else the cache had no eye
    for part, concepts in todo:
        cache.write_judged(part, concepts, _seen(part, {concept.name for concept in concepts}, auditor))


def _seen(part: SweptShard, names: Set[str], auditor: Auditor) -> dict[str, list[str]]:
    """Return which of the concepts *names* are seen in each picture of *part*, by its key."""
    drawn = [row for row in part.rows if row.offset is not None]
    seen: dict[str, list[str]] = {}
    for i in range(0, len(drawn), BATCH):
        rows = drawn[i : i + BATCH]
        images = np.stack([decode_image(read_picture(part, row)) for row in rows])
        for row, verdict in zip(rows, auditor.judge(images), strict=True):
            seen[row.key] = [name for name in verdict.found if name in names]
    return seen


def read_picture(part: SweptShard, row: Row) -> bytes:
    """Return the encoded picture of *row*, which was drawn; ``CorpusError`` where it is gone or damaged."""
    assert row.offset is not None
    assert row.length is not None
    tar = layout.tar(part.shard)
    try:
        data = part.store.read_range(tar, row.offset, row.length)
        if hashlib.sha256(data).hexdigest() == row.sha256:
            return data
        reason = "is not as it was committed"
    except FileNotFoundError:
        reason = "is missing"
    raise CorpusError(f"{part.store.url}/{tar}: {reason}; delete {part.store.url}, and its words are drawn anew")
