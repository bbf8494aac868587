"""The loader in one process: what a batch is, equal counts, exact resumes, and what is refused."""

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import Corpus, Loader
from pipeline.corpus.loader import BatchSampler, Stream
from pipeline.errors import ConfigError, CorpusError
from tests.corpora import make_corpus, number_of

TOTAL = 344


@pytest.fixture
def numbers(corpus):
    return Corpus(corpus, columns=["number"])


def numbers_of(batches) -> list[int]:
    return [number for batch in batches for number in batch["number"].tolist()]


def test_a_batch_is_a_dict_of_columns(corpus):
    batch = next(iter(Loader(Corpus(corpus, columns=["image", "caption", "number", "source"]), 4)))
    assert batch["image"].shape == (4, 16, 16, 3)
    assert batch["number"].tolist() == [number_of(image) for image in batch["image"]]
    assert batch["caption"] == [f"number {n}" for n in batch["number"].tolist()]
    assert batch["source"] == [f"s{n % 3}" if n % 5 else None for n in batch["number"].tolist()]


def test_pictures_of_several_sizes_are_a_list(tmp_path):
    make_corpus(path := str(tmp_path / "c"), [8], sizes=[(16, 16), (16, 24)])
    batch = next(iter(Loader(Corpus(path), 8)))
    assert {tuple(image.shape) for image in batch["image"]} == {(16, 16, 3), (16, 24, 3)}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_pass_is_an_epoch_of_its_own_order(numbers, workers):
    loader = Loader(numbers, 5, workers=workers)
    passes = [numbers_of(loader) for _ in range(3)]
    assert [len(one) for one in passes] == [340] * 3
    assert [len(set(one)) for one in passes] == [340] * 3
    assert len({tuple(one) for one in passes}) == 3
    assert len(loader) == 68
    again = Loader(numbers, 5)
    again.set_epoch(1)
    assert numbers_of(again) == passes[1]
    assert numbers_of(again) == passes[2]  # the next one by itself
    assert numbers_of(Loader(numbers, 5, seed=1)) != passes[0]


def test_without_shuffle_the_order_is_that_of_the_corpus(numbers):
    loader = Loader(numbers, 8, shuffle=False, remainder="pad")
    assert numbers_of(loader) == [*range(TOTAL)]


def test_a_pass_that_was_left_is_followed_by_the_next_epoch(numbers):
    loader = Loader(numbers, 5, workers=1)
    first = next(iter(loader))["number"].tolist()
    assert loader.epoch == 0
    assert numbers_of(loader) == numbers_of(at_epoch(Loader(numbers, 5, workers=1), 1))
    assert first == numbers_of(Loader(numbers, 5))[:5]


def at_epoch(loader, epoch):
    loader.set_epoch(epoch)
    return loader


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_resume_is_exact_at_any_other_ranks_workers_and_batches(numbers, seed):
    """No sample twice, none lost but a remainder smaller than ranks x workers x batch; through several resumes."""
    rng, state, seen = random.Random(seed), None, []
    epoch = rng.randrange(3)
    while True:
        world, batch, workers = rng.choice([1, 2, 4]), rng.randrange(1, 8), rng.choice([0, 0, 0, 1, 3])
        loaders = [Loader(numbers, batch, workers=workers, rank=rank, world_size=world) for rank in range(world)]
        for loader in loaders:
            if state is None:
                loader.set_epoch(epoch)
            else:
                loader.load_state_dict(state)
                assert loader.state_dict() == state
        left = loaders[0].left
        assert {loader.left for loader in loaders} == {left}
        assert 0 <= TOTAL - len(seen) - left * world * batch < world * max(1, workers) * batch
        passes = [iter(loader) for loader in loaders]
        for _ in range(min(left, rng.randrange(1, 12))):
            for one in passes:
                seen += next(one)["number"].tolist()
        state = json.loads(json.dumps(loaders[rng.randrange(world)].state_dict()))
        assert state["position"] == len(seen)
        assert len(set(seen)) == len(seen)
        assert set(seen) == set(
            numbers_of([{"number": torch.as_tensor(loaders[0]._order.take(epoch, 0, len(seen))[0])}])
        )
        if left <= 12 and TOTAL - len(seen) < 16:
            break
    assert TOTAL - len(seen) < 16


def test_a_resume_goes_on_with_the_next_epoch(numbers):
    loader = Loader(numbers, 5)
    batches = iter(loader)
    for _ in range(66):
        next(batches)
    other = Loader(numbers, 5)
    other.load_state_dict(loader.state_dict())
    other.set_epoch(0)  # as a training loop does, and keeps the position
    assert (other.left, len(other)) == (2, 68)
    rest = numbers_of(other)
    assert rest == numbers_of(batches)
    assert other.epoch == loader.epoch == 1
    assert other.state_dict() == loader.state_dict()
    assert numbers_of(other) == numbers_of(loader)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("remainder", ["drop", "pad"])
def test_a_resume_at_equal_numbers_is_as_if_nothing_had_been(numbers, workers, remainder):
    loader = Loader(numbers, 7, workers=workers, remainder=remainder)
    whole, states = [], []
    for batch in loader:
        whole.append(batch["number"].tolist())
        states.append(loader.state_dict())
    for count in (1, 4, len(whole) - 1):
        other = Loader(numbers, 7, workers=workers, remainder=remainder)
        other.load_state_dict(states[count - 1])
        assert [batch["number"].tolist() for batch in other] == whole[count:]


def test_a_state_at_the_end_of_an_epoch_loses_and_repeats_nothing(numbers):
    loader = Loader(numbers, 5)
    for _ in loader:
        state = loader.state_dict()
    other = Loader(numbers, 5)
    other.load_state_dict(state)
    assert other.left == 0
    assert numbers_of(other) == []
    assert numbers_of(other) == numbers_of(loader)


@pytest.mark.parametrize("world", [1, 3])
def test_a_padded_epoch_gives_all_and_begins_again_at_its_beginning(numbers, world):
    loaders = [Loader(numbers, 7, remainder="pad", workers=0, rank=r, world_size=world) for r in range(world)]
    parts = [numbers_of(loader) for loader in loaders]
    assert len({len(part) for part in parts}) == 1
    given = [number for part in parts for number in part]
    assert set(given) == set(range(TOTAL))
    twice = sorted(number for number in set(given) if given.count(number) == 2)
    assert twice == sorted(loaders[0]._order.take(0, 0, len(given) - TOTAL)[0].tolist())


def mark(sample):
    return {"number": sample["number"], "draw": torch.rand(()), "python": random.random()}


def test_what_a_transform_draws_depends_on_the_position_alone(numbers):
    def draws(workers, world, batch):
        loaders = [
            Loader(numbers, batch, workers=workers, seed=3, transform=mark, rank=rank, world_size=world)
            for rank in range(world)
        ]
        return {
            number: (draw, python)
            for loader in loaders
            for given in loader
            for number, draw, python in zip(
                given["number"].tolist(), given["draw"].tolist(), given["python"].tolist(), strict=True
            )
        }

    alone = draws(0, 1, 4)
    assert len(set(alone.values())) == TOTAL
    several = draws(1, 2, 2)
    assert several == {number: alone[number] for number in several}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    got = [torch.rand(()) for _, _ in zip(Loader(numbers, 4, transform=mark), range(3), strict=False)]
    assert torch.equal(torch.stack(got), expected)  # the training process's own draws are not disturbed


def number_alone(sample):
    return sample["number"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_gives_no_sample_is_told_in_a_line(numbers, workers):
    with pytest.raises(ConfigError, match=r"^transform gave \d+; expected a dict of columns$"):
        next(iter(Loader(numbers, 4, transform=number_alone, workers=workers)))


def test_damaged_pictures_are_counted_and_counts_stay(corpus):
    from pathlib import Path

    whole = Corpus(corpus)
    tar = Path(corpus, "train", "000003.tar")
    data = bytearray(tar.read_bytes())
    for row in (130, 131, 200):
        offset, length, _, _ = whole.index.rows[row].item()
        data[offset : offset + length] = bytes(length)
    tar.write_bytes(data)
    for workers in (0, 2):
        loader = Loader(Corpus(corpus, columns=["image", "number"], on_error="skip"), 4, workers=workers)
        seen = numbers_of(loader)
        assert len(seen) == TOTAL
        assert loader.skipped == 3
        assert set(range(TOTAL)) - set(seen) == {130, 131, 200}
    with pytest.raises(CorpusError, match=r"train/000003.tar: the picture at byte \d+ is damaged"):
        numbers_of(Loader(Corpus(corpus, columns=["image", "number"]), 4, workers=1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a whole number, 1 or more"),
        ({"workers": -1}, "workers is -1"),
        ({"workers": 2.0}, "workers is 2.0"),
        ({"remainder": "dorp"}, "remainder is 'dorp' .*did you mean 'drop'"),
        ({"context": "spwan"}, "context is 'spwan' .*did you mean 'spawn'"),
        ({"rank": 1}, "rank and world_size go together"),
        ({"rank": "0", "world_size": 2}, "rank is '0'; expected a whole number"),
        ({"rank": 0, "world_size": "2"}, "world_size is '2'; expected a whole number, 1 or more"),
        ({"seed": "x"}, "seed is 'x'; expected a whole number"),
        ({"seed": None}, "seed is None; expected a whole number"),
        ({"shuffle": 100}, "shuffle is 100; expected True or False"),
        ({"pin_memory": "yes"}, "pin_memory is 'yes'; expected True or False"),
        ({"prefetch": None}, "prefetch is None; expected a whole number"),
        ({"transform": "fit"}, "transform is 'fit'; expected a function"),
        ({"remainder": None}, "remainder is None; expected one of drop, pad"),
        ({"context": 3}, "context is 3; expected one of fork, spawn, forkserver"),
        ({"buckets": 512}, "buckets: 512; expected a list of sizes"),
        ({"buckets": [512]}, "buckets: 512 is no size"),
        ({"rank": 2, "world_size": 2}, "rank is 2 of 2; expected 0 to 1"),
    ],
)
def test_wrong_arguments_are_refused_in_a_line(numbers, arguments, said):
    with pytest.raises(ConfigError, match=said):
        Loader(numbers, **{"batch_size": 4, **arguments})


def test_what_is_no_source_or_epoch_is_refused_in_a_line(corpus, numbers):
    for made in (Loader, BatchSampler, Stream):
        with pytest.raises(ConfigError, match="expected a Corpus or a Mixture"):
            made(corpus, 4)
        with pytest.raises(ConfigError, match="seed is 'x'; expected a whole number"):
            made(numbers, 4, seed="x")
        for epoch in (-1, "1", None):
            with pytest.raises(ConfigError, match=f"epoch is {epoch!r}; expected a whole number, 0 or more"):
                made(numbers, 4).set_epoch(epoch)


@pytest.mark.parametrize("buckets", [None, [(8, 8), (8, 12)]])
def test_one_that_is_pickled_goes_on_in_the_same_order(corpus, buckets):
    loader = Loader(Corpus(corpus, columns=["image", "number"]), 4, seed=3, buckets=buckets)
    state = Loader(loader._source, 4, seed=3, buckets=buckets)
    next(iter(state))
    loader.load_state_dict(state.state_dict())
    taken = pickle.loads(pickle.dumps(loader))
    assert taken.state_dict() == loader.state_dict()
    for _ in range(2):
        assert numbers_of(taken) == numbers_of(loader)


def test_a_worker_s_error_is_the_line_that_it_would_be_without_workers(corpus):
    opened = Corpus(corpus)
    offset, length, _, _ = opened.index.rows[0].item()
    with open(Path(corpus, "train", "000000.tar"), "r+b") as tar:
        tar.seek(offset)
        tar.write(bytes(length))
    with pytest.raises(CorpusError, match=r"^\S+train/000000.tar: the picture at byte \d+ is damaged [^\n]*$"):
        next(iter(Loader(opened, 4, workers=1, shuffle=False)))


def test_states_of_something_else_are_refused_in_a_line(corpus, numbers):
    state = Loader(numbers, 5).state_dict()
    for name, value in (("position", -4), ("position", "3"), ("epoch", 2.5)):
        with pytest.raises(CorpusError, match=f"state: {name} is {value!r}; expected what state_dict gave"):
            Loader(numbers, 5).load_state_dict({**state, name: value})
    with pytest.raises(CorpusError, match=r"of another seed .seed: 0, here 1"):
        Loader(numbers, 5, seed=1).load_state_dict(state)
    with pytest.raises(CorpusError, match="of another shuffle"):
        Loader(numbers, 5, shuffle=False).load_state_dict(state)
    with pytest.raises(CorpusError, match="of another corpus, snapshot or predicate"):
        Loader(Corpus(corpus, where="number > 3"), 5).load_state_dict(state)
    for other in ({}, {"epoch": 3}, []):
        with pytest.raises(CorpusError, match="is no state of a lacuna loader"):
            Loader(numbers, 5).load_state_dict(other)


def test_too_few_samples_are_refused(numbers):
    with pytest.raises(ConfigError, match="344 samples are fewer than one batch of 400"):
        next(iter(Loader(numbers, 400)))
    assert len(Loader(numbers, 400, remainder="pad")) == 1
    assert np.array_equal(sorted(numbers_of(Loader(numbers, 400, remainder="pad")))[-1:], [343])
