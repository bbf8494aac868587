"""open_corpus gives every kept sample once an epoch, in whatever processes it is read."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from PIL import Image
from torch.utils.data import DataLoader

from pipeline import Corpus, Loader, open_corpus
from pipeline.corpus import layout, open_store, read_commit
from pipeline.corpus.loader.pairs import Pairs
from pipeline.errors import ConfigError, CorpusError, StoreError
from tests.corpus.conftest import make_corpus
from tests.corpus.test_verify import replace_picture

KEYS = [f"{shard:06d}{i:05d}" for shard in range(3) for i in range(4)]


@pytest.fixture
def corpus(place):
    """(path, options) of a sound corpus of three shards, on disk and on S3."""
    make_corpus(*place)
    return place


def keys_of(path, **arguments) -> list[str]:
    return [key for key, *_ in open_corpus(path, keys=True, decode=None, **arguments)]


def test_every_kept_sample_comes_once_in_the_order_of_the_corpus(corpus):
    path, options = corpus
    found = list(open_corpus(path, options=options, decode="numpy", keys=True))
    assert [key for key, _, _ in found] == KEYS
    assert all(image.shape == (16, 16, 3) and image.dtype == np.uint8 for _, image, _ in found)
    assert all("cat" not in caption for _, _, caption in found)


def test_each_way_of_decoding_gives_the_same_picture(sealed):
    path, store = sealed
    with tarfile.open(fileobj=io.BytesIO(store.read(layout.tar(0)))) as tar:
        member = tar.extractfile(f"{KEYS[0]}.png")
        assert member is not None
        encoded = member.read()
    truth = np.array(Image.open(io.BytesIO(encoded)))
    found = {how: next(iter(open_corpus(path, decode=how)))[0] for how in ("torch", "pil", "numpy", None)}
    assert found[None] == encoded
    assert np.array_equal(found["numpy"], truth)
    assert np.array_equal(np.array(found["pil"]), truth)
    assert (found["torch"].dtype, found["torch"].shape) == (torch.float32, (3, 16, 16))
    assert torch.equal(found["torch"], torch.from_numpy(truth).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_loader_workers_share_the_samples_and_each_epoch_has_its_own_order(sealed, workers):
    path, _ = sealed
    pairs = open_corpus(path, shuffle=100, keys=True)
    loader = DataLoader(pairs, batch_size=None, num_workers=workers)
    epochs = [[key for key, image, _ in loader if image.shape == (3, 16, 16)] for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [KEYS, KEYS]
    assert epochs[0] != epochs[1]
    pairs.set_epoch(0)
    assert [key for key, *_ in loader] == epochs[0]


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_spawned_worker_reads_from_an_object_store(corpus):
    path, options = corpus
    pairs = open_corpus(path, options=options, shuffle=100, keys=True)
    loader = DataLoader(pairs, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert sorted(key for key, *_ in loader) == KEYS


def test_its_seed_names_the_order(sealed):
    path, _ = sealed
    orders = [keys_of(path, shuffle=100, seed=seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == KEYS


def test_a_forked_reader_of_an_object_store_says_so_instead_of_hanging(corpus):
    path, options = corpus
    if "://" not in path:
        return
    loader = DataLoader(
        open_corpus(path, options=options), batch_size=None, num_workers=1, multiprocessing_context="fork"
    )
    with pytest.raises(StoreError, match="multiprocessing_context='spawn'"):
        next(iter(loader))


def read_as_rank(rank: int, world: int, path: str, folder: str, made: Pairs, own: Loader) -> None:
    """One training process; no variable of the environment tells it its rank."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    seen = {}
    for context, workers in (("fork", 2), ("spawn", 1)):
        pairs = open_corpus(path, shuffle=100, keys=True, decode=None)
        loader = DataLoader(pairs, batch_size=2, num_workers=workers, multiprocessing_context=context, collate_fn=list)
        seen[context] = [[key for key, *_ in batch] for batch in loader]
    # One that was made before there were ranks, pass by pass the same epoch on all of them.
    seen["made"] = [[key for key, *_ in made] for _ in range(2)]
    loader = DataLoader(made, batch_size=2, num_workers=2, multiprocessing_context="fork", collate_fn=list)
    seen["made, workers"] = [[key for batch in loader for key, *_ in batch] for _ in range(2)]
    seen["loader"] = [[key for batch in own for key in batch["key"]] for _ in range(2)]
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(seen, file)
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_that_torch_alone_knows_get_equal_parts_in_workers_of_both_kinds(sealed, tmp_path, monkeypatch):
    """A rank that got all samples, or more batches than another, would make DDP hang."""
    path, _ = sealed
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    world = 2
    made = open_corpus(path, shuffle=100, keys=True, decode=None)
    own = Loader(Corpus(path, columns=["key", "image"]), 1, workers=2, context="fork")
    torch.multiprocessing.spawn(read_as_rank, (world, path, str(tmp_path), made, own), world)
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)]
    for context in ("fork", "spawn"):
        assert len(seen[0][context]) == len(seen[1][context])
        assert sorted(key for rank in seen for batch in rank[context] for key in batch) == KEYS
    for way in ("made", "made, workers", "loader"):
        for parts in zip(*(rank[way] for rank in seen), strict=True):
            assert sorted(key for part in parts for key in part) == KEYS
        assert seen[0][way][0] != seen[0][way][1]


def test_ranks_are_given_or_known_and_never_guessed(sealed, monkeypatch):
    path, _ = sealed
    parts = [keys_of(path, rank=rank, world_size=5) for rank in range(5)]
    assert [len(part) for part in parts] == [2] * 5, "two are left over"
    assert len({key for part in parts for key in part}) == 10
    with pytest.raises(CorpusError, match="has 12 pictures for 13 ranks"):
        keys_of(path, rank=0, world_size=13)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match=r"torch\.distributed is not initialised; call init_process_group"):
        keys_of(path)


def test_a_corpus_that_grows_is_refused_or_read_as_a_snapshot(corpus):
    path, options = corpus
    store = open_store(path, options)
    committed = store.read(layout.commit(2))
    store.delete(layout.commit(2))
    with pytest.raises(CorpusError, match=r"2 of 3 shards are committed; finish its run, or .*partial=True"):
        open_corpus(path, options=options)
    snapshot = open_corpus(path, options=options, keys=True, partial=True)
    store.write(layout.commit(2), committed)
    assert [key for key, *_ in snapshot] == KEYS[:8], "what is committed later is not seen"
    assert keys_of(path, options=options) == KEYS


def test_a_shard_of_another_identity_is_refused(sealed):
    path, store = sealed
    store.write(layout.commit(1), replace(read_commit(store, 1), identity="e" * 64).dumps())
    for partial in (False, True):
        with pytest.raises(CorpusError, match=r"commits/000001\.json: is of another corpus \(identity eeeeeeeeeeee"):
            open_corpus(path, partial=partial)


def test_what_is_damaged_raises_or_another_is_given_in_its_place(sealed):
    path, store = sealed
    replace_picture(store, 1, b"no picture")
    with pytest.raises(CorpusError, match=r"train/000001\.tar: the picture at byte 512 is damaged .*lacuna repair"):
        list(open_corpus(path))
    found = list(open_corpus(path, keys=True, on_error="skip"))
    assert len(found) == len(KEYS)
    assert sorted({key for key, *_ in found}) == [key for key in KEYS if key != KEYS[4]]
    store.write(layout.tar(2), store.read(layout.tar(2))[:-512])
    with pytest.raises(CorpusError, match=r"train/000002\.tar: is \d+ bytes, was committed with \d+; repair it"):
        open_corpus(path, on_error="skip")
    assert keys_of(path, partial=True) == KEYS[:8]


def test_bad_arguments_are_one_line(sealed):
    path, store = sealed
    with pytest.raises(ConfigError, match=r"decode is 'numppy' \(did you mean 'numpy'\?\); expected one of torch, pil"):
        open_corpus(path, decode="numppy")
    with pytest.raises(ConfigError, match="shuffle is -1; expected a whole number, 0 or more"):
        open_corpus(path, shuffle=-1)
    for shard in range(3):
        record = read_commit(store, shard)
        store.write(layout.commit(shard), replace(record, counts={**record.counts, "ok": 0}).dumps())
    with pytest.raises(CorpusError, match="has no pictures to train on"):
        open_corpus(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": None}, "path is None; expected the name of a folder"),
        ({"shuffle": True}, "shuffle is True; expected a whole number"),
        ({"seed": "x"}, "seed is 'x'; expected a whole number"),
        ({"keys": 1}, "keys is 1; expected True or False"),
        ({"partial": None}, "partial is None; expected True or False"),
        ({"options": 3}, "options: expected a dict of texts"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; expected one of raise, skip"),
        ({"rank": 0}, "rank and world_size go together"),
        ({"rank": 0.0, "world_size": 2}, "rank is 0.0; expected a whole number"),
    ],
)
def test_arguments_of_wrong_types_are_one_line(sealed, arguments, said):
    with pytest.raises(ConfigError, match=f"^{said}[^\n]*$"):
        open_corpus(**{"path": sealed[0], **arguments})
