"""What storage is asked about shards in doubt: few one by one, many by one listing."""

from pathlib import Path
from typing import Any

from pipeline.cluster.records import FEW, counts_of
from pipeline.corpus import CommitRecord, layout, open_store
from tests.counted import Counted


def test_many_shards_cost_one_listing_and_the_records_that_are_there(tmp_path: Path) -> None:
    store: Any = Counted(open_store(str(tmp_path)))
    for shard in (3, 5, FEW + 1000):
        record = CommitRecord(shard=shard, attempt="a", identity="i", counts={"ok": shard}, files=())
        store.create(layout.commit(shard), record.dumps())
    expected = {3: {"ok": 3}, 5: {"ok": 5}}
    assert counts_of(store, range(4, 4 + FEW)) == {5: {"ok": 5}}
    assert len(store.read_under("commits")) == FEW
    store.calls.clear()
    assert counts_of(store, range(FEW + 1)) == expected
    assert store.read_under("commits") == [layout.commit(3), layout.commit(5)]
    assert len(store.calls) == 3, "and one listing"
    store.calls.clear()
    assert counts_of(store, []) == {}
    assert store.read_under("commits") == []
