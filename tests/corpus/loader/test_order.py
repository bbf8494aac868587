"""The order: a permutation, the same at any division of it, near itself in storage, and dealt by lanes."""

import numpy as np
import pytest

from pipeline.corpus.loader import order
from pipeline.corpus.loader.fetches import AT_ONCE
from pipeline.corpus.loader.order import LANES, Rounds, Sequential, Shuffled
from pipeline.errors import ConfigError


def some_order(rng, monkeypatch) -> Shuffled:
    monkeypatch.setattr(order, "CHAPTER_ROWS", int(rng.choice([10, 4096])))
    monkeypatch.setattr(order, "CHAPTER_BLOCKS", int(rng.choice([3, 64])))
    sizes = rng.integers(1, 60, rng.integers(1, 300))
    return Shuffled(np.cumsum(sizes) - sizes, int(sizes.sum()), 1e6, seed=int(rng.integers(100)))


@pytest.mark.parametrize("seed", range(40))
def test_a_step_is_the_next_part_of_one_permutation_whoever_shares_it(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    mixed, epoch = some_order(rng, monkeypatch), int(rng.integers(5))
    length = mixed.length
    whole = mixed.share(epoch, 0, length, 0, 1).rows
    assert sorted(whole) == list(range(length))
    for world in (1, 2, 4, 5):
        batch, start = int(rng.integers(1, 9)), int(rng.integers(length))
        shares = [mixed.share(epoch, start, start + world * batch, rank, world) for rank in range(world)]
        assert all(len(share.rows) == batch for share in shares)
        assert all((whole[share.positions % length] == share.rows).all() for share in shares)
        # Behind the end it begins anew, which is how a remainder is padded.
        expected = whole[np.arange(start, start + world * batch) % length]
        assert sorted(np.concatenate([share.rows for share in shares])) == sorted(expected)


def test_seed_and_epoch_name_the_order():
    def rows(seed, epoch):
        return Shuffled(np.arange(0, 1000, 10), 1000, 1.0, seed).take(epoch, 0, 1000)[0].tolist()

    assert rows(0, 0) == rows(0, 0)
    assert len({tuple(rows(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    # Of no library's random generator, so that a state of today can be loaded by a later version.
    assert Shuffled(np.arange(0, 40, 4), 40, 1.0, 7).take(1, 0, 40)[0].tolist()[:8] == [19, 11, 30, 27, 15, 23, 34, 36]


def test_what_is_read_at_some_time_is_of_few_blocks_and_each_is_left_for_good():
    blocks, per_block = 1000, 50
    mixed = Shuffled(np.arange(blocks) * per_block, blocks * per_block, 4e6, seed=1)
    block = mixed.take(0, 0, mixed.length)[0] // per_block
    first, last = np.full(blocks, mixed.length), np.zeros(blocks, int)
    np.minimum.at(first, block, np.arange(mixed.length))
    np.maximum.at(last, block, np.arange(mixed.length))
    assert (last - first).max() < 128 * per_block
    # And it is a shuffle: batches are of many blocks, and neighbours are far from each other.
    assert np.mean([len(set(batch)) for batch in block[:40_000].reshape(-1, 32)]) > 20
    assert abs(np.corrcoef(block[:-1], block[1:])[0, 1]) < 0.2


def test_ranks_read_different_blocks():
    blocks, per_block, batch = 640, 48, 16
    mixed = Shuffled(np.arange(blocks) * per_block, blocks * per_block, 4e6, seed=1)
    for world in (2, 4, LANES):
        seen = [set() for _ in range(world)]
        for start in range(0, mixed.length - world * batch, world * batch):
            for rank in range(world):
                seen[rank] |= set(
                    (mixed.share(0, start, start + world * batch, rank, world).rows // per_block).tolist()
                )
        assert sum(map(len, seen)) < 1.25 * blocks


def test_each_block_of_a_later_chapter_is_announced_once_a_rank_before_it_is_read():
    per_block = 50
    mixed = Shuffled(np.arange(700) * per_block, 700 * per_block, 4e6, seed=3)
    for world in (1, 2):
        announced = [np.array([], int) for _ in range(world)]
        for start in range(0, mixed.length, world * 10):
            for rank in range(world):
                share = mixed.share(2, start, min(start + world * 10, mixed.length), rank, world)
                announced[rank] = np.append(announced[rank], share.ahead)
        every = np.concatenate(announced)
        chapter = len(mixed.ahead(2, 0, mixed._epoch(2)[1][1], 0, 1))
        assert len(every) == len(set(every.tolist())) == 700 - chapter


@pytest.mark.parametrize("seed", range(20))
def test_all_blocks_of_a_pass_are_announced_before_they_are_read_wherever_it_begins(seed, monkeypatch):
    """Whatever the steps, which need not end where a chapter does; a rank's own blocks, once each."""
    rng = np.random.default_rng(seed)
    mixed, epoch, world = some_order(rng, monkeypatch), int(rng.integers(5)), int(rng.choice([1, 2, 4]))
    blocks = mixed._blocks
    step, start = world * int(rng.integers(1, 40)), int(rng.integers(mixed.length)) if seed % 4 else 0
    announced = [mixed.opening(epoch, start, step, rank, world) for rank in range(world)]
    for at in range(start, mixed.length, step):
        shares = [mixed.share(epoch, at, at + step, rank, world) for rank in range(world)]
        announced = [np.append(own, share.ahead) for own, share in zip(announced, shares, strict=True)]
        every = np.concatenate(announced)
        read = mixed.take(epoch, at, min(at + step, mixed.length))[0]
        assert set(np.searchsorted(blocks, read, side="right") - 1) <= set(every.tolist())
    assert len(every) == len(set(every.tolist()))
    if start == 0:
        assert len(every) == len(blocks)


def test_storage_always_has_as_much_before_it_as_it_takes_at_once():
    per_block, step = 50, 32
    mixed = Shuffled(np.arange(700) * per_block, 700 * per_block, 4e6, seed=3)
    announced = mixed.opening(1, 0, step, 0, 1).tolist()
    last_chapter = int(mixed._epoch(1)[1][-2])
    for at in range(0, last_chapter - step, step):
        share = mixed.share(1, at, at + step, 0, 1)
        announced += share.ahead.tolist()
        # What this step reads is fetched before what is announced behind it.
        last = max(announced.index(block) for block in set((share.rows // per_block).tolist()))
        assert len(announced) - 1 - last >= AT_ONCE


def test_blocks_come_in_the_order_of_their_first_rows():
    per_block = 50
    mixed = Shuffled(np.arange(700) * per_block, 700 * per_block, 4e6, seed=3)
    rows = mixed.take(0, 0, mixed.length)[0] // per_block
    first = {block: np.flatnonzero(rows == block)[0] for block in range(700)}
    opening = mixed.opening(0, 0, 32, 0, 1)
    moments = [first[block] for block in opening.tolist()]
    assert moments == sorted(moments)
    assert moments[0] == 0
    later = mixed.opening(0, 2000, 32, 0, 1).tolist()
    assert set(rows[2000 : len(opening) * per_block]) <= set(later)
    assert not {block for block in range(700) if (np.flatnonzero(rows == block) < 2000).all()} & set(later)


@pytest.mark.parametrize("world", [1, 3])
def test_rows_in_their_order_are_announced_before_they_are_read(world):
    plain, step = Sequential(np.arange(0, 40_000, 10), 40_000), 33 * world
    for rank in range(world):
        announced = set(plain.opening(0, 2000, step, rank, world).tolist())
        for at in range(2000, plain.length, step):
            share = plain.share(0, at, at + step, rank, world)
            announced |= set(share.ahead.tolist())
            if at + step <= plain.length:
                assert set((share.rows // 10).tolist()) <= announced
        if world > 1:
            assert len(announced) < 4000 / world * 1.7  # not those of the others


def test_rows_in_their_order():
    plain = Sequential(np.arange(0, 100, 10), 100)
    assert plain.share(3, 10, 20, 0, 1).rows.tolist() == list(range(10, 20))
    shares = [plain.share(0, 90, 110, rank, 2).rows for rank in range(2)]
    assert sorted(np.concatenate(shares)) == sorted([*range(90, 100), *range(10)])
    assert plain.share(0, 0, 10, 0, 1).ahead.tolist() == []  # the opening has all ten blocks
    assert plain.opening(0, 0, 10, 0, 1).tolist() == list(range(10))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("pad", [False, True])
def test_steps_are_equal_for_workers_and_leave_less_than_a_round(world, workers, pad):
    for length in (100, 216, 344):
        for position in (0, 40, length - 1, length, length + 20):
            rounds = Rounds(length, 4, world, workers, pad)
            steps, unit = rounds.steps(position), 4 * world * max(1, workers)
            assert position or steps % max(1, workers) == 0
            left = max(0, length - position) - steps * rounds.step
            assert (0 <= -left < unit) if pad else (0 <= left < unit)


def test_an_epoch_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="20 samples are fewer than one batch of 8 for each of 1 workers of 3 ranks"):
        Rounds(20, 8, 3, 0, False).steps(0)
    assert Rounds(20, 8, 3, 0, True).steps(0) == 1
