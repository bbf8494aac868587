"""The same shards load in our loader, in plain webdataset, in HF datasets and in wids."""

import io
import tarfile

import numpy as np
import pytest
import torch

from pipeline import open_corpus
from pipeline.corpus import finish, open_store, reading
from pipeline.errors import CorpusError
from tests.counted import Counted

KEYS = {f"{shard:06d}{i:05d}" for shard in range(3) for i in range(4)}


def test_ours_gives_every_kept_sample_once(corpus):
    path, options = corpus
    found = list(open_corpus(path, options=options, decode="numpy", keys=True))
    assert {key for key, _, _ in found} == KEYS
    assert len(found) == len(KEYS)
    assert all(image.shape == (16, 16, 3) and image.dtype == np.uint8 for _, image, _ in found)
    assert all("cat" not in caption for _, _, caption in found)


def test_a_corpus_is_opened_by_one_listing_in_the_order_of_its_shards(sealed, monkeypatch):
    path, store = sealed
    finish(path, {})  # indexes lie beside the tars
    store.copy("train/000000.tar", "train/1000000.tar")  # by name the last but one
    store.copy("train/000001.tar", "train/999999.tar")
    stores = []

    def counted(*args):
        stores.append(Counted(open_store(*args)))
        return stores[-1]

    monkeypatch.setattr(reading, "open_store", counted)
    keys = [key for key, _, _ in open_corpus(path, keys=True)]
    assert keys == [*sorted(KEYS), *sorted(KEYS)[4:8], *sorted(KEYS)[:4]]
    assert [call for store in stores for call in store.calls] == [("read", "run.yaml"), ("list", "train")]


def test_a_corpus_without_pictures_is_refused(sealed):
    path, store = sealed
    store.delete_tree("train")
    with pytest.raises(CorpusError, match="has no pictures to train on"):
        open_corpus(path)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_remote_tar_is_read_in_parts(corpus, monkeypatch):
    path, options = corpus
    whole = list(open_corpus(path, options=options, decode=None, keys=True))
    monkeypatch.setattr(reading, "PART", 700)  # no multiple of a tar's blocks
    assert list(open_corpus(path, options=options, decode=None, keys=True)) == whole


def test_a_remote_tar_gives_its_first_sample_before_all_of_it_is_read(tmp_path, monkeypatch):
    tar, data = io.BytesIO(), bytes(range(256)) * 16
    with tarfile.open(fileobj=tar, mode="w") as written:
        for number in range(100):
            member = tarfile.TarInfo(f"{number:011d}.jpg")
            member.size = len(data)
            written.addfile(member, io.BytesIO(data))
    store = open_store(str(tmp_path))
    store.write("train/000000.tar", tar.getvalue())
    counted, part = Counted(store), 4096
    monkeypatch.setattr(reading, "PART", part)
    samples = reading._RemoteTars(counted)([{"url": f"{store.url}/train/000000.tar"}])
    found = [next(iter(samples))]
    parts = sum(method == "read_range" for method, _ in counted.calls)
    assert parts * part < len(tar.getvalue()) / 4
    found += samples
    assert [sample["__key__"] for sample in found] == [f"{number:011d}" for number in range(100)]
    assert all(sample["jpg"] == data for sample in found)


@pytest.mark.parametrize("workers", [0, 2, 4])  # 4 workers share 3 shards
def test_ours_in_a_data_loader_with_shuffling(corpus, workers):
    path, options = corpus
    loader = torch.utils.data.DataLoader(
        open_corpus(path, options=options, shuffle=100, keys=True),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="spawn" if workers and "://" in path else None,
    )
    seen = [key for key, image, _ in loader if image.shape == (3, 16, 16)]
    assert sorted(seen) == sorted(KEYS)


def test_a_forked_reader_of_an_object_store_says_so_instead_of_hanging(corpus):
    path, options = corpus
    if "://" not in path:
        return
    loader = torch.utils.data.DataLoader(
        open_corpus(path, options=options), batch_size=None, num_workers=1, multiprocessing_context="fork"
    )
    with pytest.raises(CorpusError, match="multiprocessing_context='spawn'"):
        next(iter(loader))


def test_shuffling_changes_the_order_and_its_seed_repeats_it(corpus):
    path, options = corpus
    orders = [[k for k, _, _ in open_corpus(path, options=options, shuffle=100, seed=s, keys=True)] for s in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_ranks_share_the_shards(corpus, monkeypatch):
    path, options = corpus
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        parts.append({k for k, _, _ in open_corpus(path, options=options, keys=True)})
    assert parts[0] | parts[1] == KEYS
    assert not parts[0] & parts[1]
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(CorpusError, match="3 shards for 4 ranks"):
        open_corpus(path, options=options)


def test_other_loaders_read_the_same(tmp_path):
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("corpus_parts", Path(__file__).parent / "conftest.py")
    parts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parts)
    path = str(tmp_path / "corpus")
    store, evidence = parts.open_store(path), parts.open_store(f"{path}.evidence")
    parts.create_run_record(store, parts.run_record(3))
    for shard in range(3):
        parts.commit(store, evidence, shard, "a")
    finish(path, {})

    import webdataset

    plain = webdataset.WebDataset(f"{path}/train/{{000000..000002}}.tar", shardshuffle=False).decode("rgb8")
    assert {sample["__key__"] for sample in plain} == KEYS

    import wids

    indexed = wids.ShardListDataset(f"{path}/index/wids.json", cache_dir=str(tmp_path / "wids"))
    assert len(indexed) == len(KEYS)
    assert indexed[5][".txt"] == "number 1"

    import datasets

    loaded = datasets.load_dataset(path, split="train", cache_dir=str(tmp_path / "hf"))
    assert len(loaded) == len(KEYS)
    assert set(loaded["__key__"]) == KEYS
    assert loaded[0]["png"].size == (16, 16)
