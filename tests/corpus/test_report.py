"""The report's speed over time: what the commits' times say, no picture more or less."""

import time

import pytest

from pipeline.corpus import committed, finish, open_store
from pipeline.corpus.commit import CommitRecord
from pipeline.corpus.report import throughput


def record(shard: int, committed_at: float, seconds: float, images: int) -> CommitRecord:
    return CommitRecord(
        shard=shard, attempt="a", identity="d", counts={}, files=(), committed_at=committed_at,
        timings={"seconds": seconds, "images": images},
    )  # fmt: skip


def test_two_workers_and_a_pause():
    records = [record(0, 110, 10, 40), record(1, 110, 10, 20), record(2, 140, 10, 40)]
    assert throughput(records, 4) == (100, 140, [6, 0, 0, 4])
    assert throughput(records, 2)[2] == [3, 2]


def test_no_picture_is_counted_twice_or_lost():
    records = [record(i, 1_700_000_000 + 7.3 * i + i % 3, 11.1 + i, 5 + i) for i in range(23)]
    for bins in (1, 7, 200):
        first, last, rates = throughput(records, bins)
        assert sum(rates) * (last - first) / bins == pytest.approx(sum(r.timings["images"] for r in records))


def test_records_from_before_there_was_a_time_are_left_out():
    assert throughput([record(0, 0, 10, 40)], 4)[2] == []
    assert throughput([record(0, 0, 10, 40), record(1, 110, 10, 20)], 2) == (100, 110, [2, 2])


def test_a_commit_says_when_and_the_report_shows_it(corpus):
    path, options = corpus
    store = open_store(path, options)
    times = [found.committed_at for found in committed(store).values()]
    assert all(time.time() - 300 < moment <= time.time() for moment in times)
    finish(path, options)
    page = store.read("report.html").decode()
    assert "images/s of all workers, up to" in page
    assert time.strftime("%Y-%m-%d", time.gmtime(max(times))) in page
