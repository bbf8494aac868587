"""What torchdata's StatefulDataLoader is told: it goes on at equal numbers, and at others hears what can go on."""

import copy
import pickle

import pytest
from torch.utils.data import IterableDataset

from pipeline import Corpus, Loader, Mixture
from pipeline.corpus.loader import BatchSampler, Stream
from pipeline.errors import CorpusError
from tests.trainers import as_it_is


def loader_of(corpus, kind, workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    if kind == "sampler":
        how = {"dataset": corpus, "batch_sampler": BatchSampler(corpus, 4, workers=workers)}
    else:
        how = {"dataset": Stream(corpus, 4), "batch_size": 4}
    return stateful.StatefulDataLoader(**how, num_workers=workers, collate_fn=as_it_is)


@pytest.mark.parametrize(
    ("kind", "saved", "loaded"),
    [
        ("sampler", 0, 2),
        ("sampler", 2, 0),
        ("sampler", 1, 2),
        ("sampler", 2, 1),
        ("stream", 0, 2),
        ("stream", 2, 0),
        ("stream", 1, 2),
        ("stream", 2, 1),
    ],
)
def test_another_number_of_workers_is_refused_with_what_can_go_on(corpus, kind, saved, loaded):
    opened = Corpus(corpus, columns=["number"])
    first = loader_of(opened, kind, saved)
    batches = iter(first)
    next(batches)
    state = copy.deepcopy(first.state_dict())
    other = loader_of(opened, kind, loaded)
    other.load_state_dict(state)
    said = rf"saved with num_workers {saved} and is loaded with {loaded}; a pipeline.Loader and its state go on"
    for begun in (iter, lambda loader: loader.state_dict()):  # which makes an iterator too
        with pytest.raises(CorpusError, match=said):
            begun(other)
    same = loader_of(opened, kind, saved)
    same.load_state_dict(state)
    assert list(same) == list(batches)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_batch_sampler_has_announced_what_a_loader_would(corpus, monkeypatch, workers, mixed):
    """With each batch the same, from wherever a pass begins, and it is still there where a worker gets the batch."""
    monkeypatch.setattr("pipeline.corpus.rows.SPAN", 9000)
    monkeypatch.setattr("pipeline.corpus.loader.order.CHAPTER_ROWS", 10)
    monkeypatch.setattr("pipeline.corpus.loader.order.CHAPTER_BLOCKS", 40)
    opened = Corpus(corpus)
    source = Mixture([(opened, 1)]) if mixed else opened
    told = []
    monkeypatch.setattr(source, "prefetch", lambda blocks: told.append(list(blocks)))

    def announced(batches):
        told.clear()
        return [told.pop() for _ in batches]

    state = Loader(source, 4)
    next(iter(state))
    for position in (0, 4):
        loader, sampler = Loader(source, 4), BatchSampler(source, 4, workers=workers)
        batches = iter(sampler)
        if position:
            loader.load_state_dict(state.state_dict())
            batches.load_state_dict({**batches.state_dict(), "epoch": 0, "position": position})
        expected = announced(loader)
        given = [pickle.loads(pickle.dumps(rows)) for rows in batches]
        found = announced(source.__getitems__(rows) for rows in given)
        if workers:  # who divide what is announced in the beginning
            assert sorted(found[0] + found[1]) == sorted(expected[0] + expected[1])
            assert found[1]
            assert found[2:] == expected[2 : len(found)]
        else:
            assert found == expected
        assert len(set().union(*found)) > 100
        assert sum(map(bool, found)) > 10


def test_a_stream_is_of_its_class(corpus):
    stream = Stream(Corpus(corpus, columns=["number"]), 4)
    assert stream.__class__ is Stream
    assert isinstance(stream, IterableDataset)
    assert not isinstance(stream, int)
    assert len(list(copy.copy(stream))) == 344
