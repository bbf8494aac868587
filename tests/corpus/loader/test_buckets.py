"""Aspect buckets: batches of one size, equal counts on ranks, exact resumes."""

import json
from collections import Counter

import numpy as np
import pytest

from pipeline import Corpus, Loader, Mixture
from pipeline.corpus.loader.buckets import nearest_buckets
from pipeline.errors import ConfigError, CorpusError
from tests.corpora import make_corpus, number_of

SIZES = [(16, 16), (16, 24), (24, 16)]
BUCKETS = [(8, 8), (8, 12), (12, 8)]


@pytest.fixture
def corpus(tmp_path):
    """Of 90 pictures 30 have each of three sizes."""
    make_corpus(str(tmp_path / "c"), [50, 40], sizes=SIZES)
    return Corpus(tmp_path / "c", columns=["image", "number"])


def test_the_nearest_shape_and_of_equal_shapes_the_nearest_area():
    sizes = [(512, 512), (1024, 1024), (512, 768), (768, 512)]
    heights, widths = np.array([500, 900, 600, 100, 300]), np.array([500, 1000, 800, 50, 320])
    assert nearest_buckets(heights, widths, sizes).tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("remainder", ["drop", "pad"])
def test_batches_are_of_one_size_and_ranks_have_as_many(corpus, world, remainder):
    loaders = [
        Loader(corpus, 4, buckets=BUCKETS, remainder=remainder, rank=rank, world_size=world) for rank in range(world)
    ]
    batches = [list(loader) for loader in loaders]
    assert {len(one) for one in batches} == {len(loaders[0])}
    seen = []
    for batch in (batch for one in batches for batch in one):
        (size,) = set(batch["size"])
        assert batch["image"].shape == (4, *size, 3)
        assert [number_of(image) for image in batch["image"]] == batch["number"].tolist()
        assert {SIZES[n % 3] for n in batch["number"].tolist()} == {(size[0] * 2, size[1] * 2)}
        seen += batch["number"].tolist()
    if remainder == "pad":
        assert set(seen) == set(range(90))
    else:
        assert len(set(seen)) == len(seen) > 90 - 3 * 4 - world * 4
    assert len({tuple(batch["size"][0]) for batch in batches[0][:8]}) > 1  # and they take turns


def test_a_resume_is_exact_at_other_ranks_and_refused_at_another_batch(corpus):
    first = [Loader(corpus, 4, buckets=BUCKETS, rank=rank, world_size=2) for rank in range(2)]
    seen = []
    for loader in first:
        batches = iter(loader)
        seen += [number for _ in range(3) for number in next(batches)["number"].tolist()]
    state = json.loads(json.dumps(first[1].state_dict()))
    rest = Loader(corpus, 4, buckets=BUCKETS)
    rest.load_state_dict(state)
    seen += [number for batch in rest for number in batch["number"].tolist()]
    assert len(set(seen)) == len(seen) == 84
    for batch, buckets in ((3, BUCKETS), (4, BUCKETS[:2]), (4, None)):
        with pytest.raises(CorpusError, match="of other aspect buckets or, with them, of another batch_size"):
            Loader(corpus, batch, buckets=buckets).load_state_dict(state)


def test_each_epoch_has_other_batches(corpus):
    loader = Loader(corpus, 4, buckets=BUCKETS)
    passes = [[batch["number"].tolist() for batch in loader] for _ in range(2)]
    assert passes[0] != passes[1]
    assert len(passes[0]) == len(passes[1])


def test_what_are_no_buckets_is_refused_in_a_line(corpus):
    for buckets in ([], [(8, 8), (8, 8)], [(8, 0)], [(8,)], [(8.0, 8)]):
        with pytest.raises(ConfigError, match="buckets: "):
            Loader(corpus, 4, buckets=buckets)
    for columns, decode in ((["caption"], "uint8"), (["image"], "bytes")):
        with pytest.raises(ConfigError, match="buckets: expected pictures that are decoded"):
            Loader(Corpus(corpus.url, columns=columns, decode=decode), 4, buckets=BUCKETS)
        with pytest.raises(ConfigError, match="buckets: expected pictures that are decoded"):
            Loader(Mixture([(Corpus(corpus.url, columns=columns, decode=decode), 1)]), 4, buckets=BUCKETS)


def test_a_batch_that_no_bucket_fills_is_refused_in_a_line(corpus):
    for source in (corpus, Mixture([(corpus, 1)])):
        with pytest.raises(ConfigError, match=r"^buckets: of 90 samples no bucket has a batch of 31; lower batch_size"):
            len(Loader(source, 31, buckets=BUCKETS))
        assert len(Loader(source, 31, buckets=BUCKETS, remainder="pad")) == 3


@pytest.fixture
def mixture(corpus, tmp_path):
    """The corpus, three times in five, and one whose 40 pictures, from 1000 on, have two sizes of the three."""
    make_corpus(str(tmp_path / "d"), [25, 15], sizes=SIZES[1:], first=1000)
    return Mixture([(corpus, 0.6), (Corpus(tmp_path / "d", columns=["image", "number"]), 0.4)], length=100)


def numbers_of(batches):
    return [number for batch in batches for number in batch["number"].tolist()]


@pytest.mark.parametrize("remainder", ["drop", "pad"])
def test_a_mixture_s_batches_are_of_one_size_and_ranks_have_as_many_in_each_epoch(mixture, remainder):
    loaders = [Loader(mixture, 4, buckets=BUCKETS, remainder=remainder, rank=rank, world_size=2) for rank in range(2)]
    plain = Loader(mixture, 1)
    epochs = []
    for _ in range(3):
        assert len(loaders[0]) == len(loaders[1])
        expected, batches = len(loaders[0]), [list(loader) for loader in loaders]
        assert [len(one) for one in batches] == [expected] * 2
        for batch in (batch for one in batches for batch in one):
            (size,) = set(batch["size"])
            assert batch["image"].shape == (4, *size, 3)
            for number in batch["number"].tolist():
                height, width = SIZES[number % 3] if number < 1000 else SIZES[1:][number % 2]
                assert (height // 2, width // 2) == size
        given, whole = Counter(numbers_of(batches[0] + batches[1])), Counter(numbers_of(plain))
        if remainder == "drop":
            assert given <= whole
            assert sum((whole - given).values()) < 3 * 4 + 2 * 4
        else:
            assert given >= whole
        epochs.append(given)
    assert epochs[0] != epochs[1]


def test_a_mixture_s_resume_is_exact_at_other_ranks(mixture):
    whole = numbers_of(at(Loader(mixture, 4, buckets=BUCKETS), 2))
    first = [at(Loader(mixture, 4, buckets=BUCKETS, rank=rank, world_size=2), 2) for rank in range(2)]
    passes = [iter(loader) for loader in first]
    seen = [number for _ in range(3) for one in passes for number in next(one)["number"].tolist()]
    state = json.loads(json.dumps(first[0].state_dict()))
    rest = Loader(mixture, 4, buckets=BUCKETS)
    rest.load_state_dict(state)
    assert rest.left == len(whole) // 4 - 6
    seen += numbers_of(rest)
    assert Counter(seen) == Counter(whole)


def at(loader, epoch):
    loader.set_epoch(epoch)
    return loader
