"""A corpus by number: what a sample holds, what is read for it, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import Corpus, Loader
from pipeline.config.schema import ImageFormat
from pipeline.corpus import open_store
from pipeline.corpus.loader.cache import Cache
from pipeline.corpus.loader.collate import collate
from pipeline.corpus.loader.decode import Undecodable, decode, decode_into
from pipeline.errors import ConfigError, CorpusError, StoreError
from tests.corpora import encode_image, make_corpus, number_of, picture


@pytest.mark.parametrize("corpus_format", [1, 2])
def test_samples_by_number(tmp_path, corpus_format):
    keys = make_corpus(path := str(tmp_path / "c"), [10, 0, 7], corpus_format=corpus_format)
    corpus = Corpus(path, columns=["key", "image", "caption", "number", "source", "shard"])
    assert len(corpus) == 17
    for i in range(17):
        sample = corpus[i]
        assert list(sample) == ["key", "image", "caption", "number", "source", "shard"]
        assert sample["image"].dtype == torch.uint8
        assert sample["image"].shape == (16, 16, 3)
        assert number_of(sample["image"]) == sample["number"] == i
        assert (sample["key"], sample["caption"]) == (keys[i], f"number {i}")
        assert sample["source"] == (f"s{i % 3}" if i % 5 else None)
        assert sample["shard"] == (0 if i < 10 else 2)
    assert corpus[-1]["number"] == 16
    assert [s["number"] for s in corpus.__getitems__([16, 3, 3])] == [16, 3, 3]
    assert [s["number"] for s in corpus.__getitems__([-1, 0, -17])] == [16, 0, 0]
    for wrong in (17, -18):
        with pytest.raises(IndexError, match=f"{wrong} of 17 samples"):
            corpus[wrong]
        with pytest.raises(IndexError, match=f"{wrong} of 17 samples"):
            Corpus(path, columns=["number"]).__getitems__([3, wrong])
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        corpus[1.5]


@pytest.mark.parametrize("image_format", [ImageFormat.jpg, ImageFormat.png, ImageFormat.webp])
def test_pictures_are_decoded_as_asked(tmp_path, image_format):
    make_corpus(path := str(tmp_path / "c"), [5], image_format=image_format, sizes=[(16, 24)])
    tensors, images, encoded = (Corpus(path, decode=how) for how in ("uint8", "pil", "bytes"))
    for i in range(5):
        assert isinstance(images[i]["image"], Image.Image)
        assert tensors[i]["image"].shape == (16, 24, 3)
        assert number_of(tensors[i]["image"]) == number_of(images[i]["image"]) == i
        assert isinstance(encoded[i]["image"], bytes)


def test_without_pictures_no_tar_is_read(tmp_path):
    make_corpus(path := str(tmp_path / "c"), [5])
    corpus = Corpus(path, columns=["caption"], partial=True)
    Path(path, "train", "000000.tar").unlink()
    assert corpus[3] == {"caption": "number 3"}


@pytest.mark.parametrize("cached", [False, True])
def test_a_corpus_on_s3(s3, tmp_path, cached):
    make_corpus(path := f"s3://corpora/{tmp_path.name}{cached}", [20, 13], s3)
    corpus = Corpus(path, options=s3, cache=tmp_path / "cache" if cached else None, columns=["image", "number"])
    samples = corpus.__getitems__(list(range(33)))
    assert [number_of(sample["image"]) for sample in samples] == list(range(33))


def test_with_a_cache_what_was_seen_is_read_while_the_server_is_away(s3, tmp_path, caplog):
    make_corpus(path := f"s3://corpora/{tmp_path.name}", [20, 13], s3)
    away = s3 | {"endpoint": "http://127.0.0.1:9"}
    with pytest.raises(StoreError, match="has not answered yet"):
        Corpus(path, options=away, cache=tmp_path / "cache")
    corpus = Corpus(path, options=s3, cache=tmp_path / "cache", columns=["image", "number"])
    corpus.__getitems__([3, 25])
    again = Corpus(path, options=away, cache=tmp_path / "cache", columns=["image", "number"])
    assert "opened as it was when it was last seen" in caplog.text
    assert again.fingerprint == corpus.fingerprint
    assert [number_of(again[i]["image"]) for i in range(33)] == list(range(33))


@pytest.mark.parametrize("opened", [False, True])
def test_a_cached_file_that_was_cut_is_fetched_again(corpus, tmp_path, caplog, opened):
    cached = Corpus(corpus, cache=tmp_path / "cache", columns=["image", "number"])
    assert cached[0]["number"] == 0
    (path,) = Path(tmp_path, "cache", "ranges").iterdir()
    before = path.read_bytes()
    os.truncate(path, 100)
    again = cached if opened else Corpus(corpus, cache=tmp_path / "cache", columns=["image", "number"])
    assert [number_of(sample["image"]) for sample in again.__getitems__(list(range(100)))] == list(range(100))
    assert path.read_bytes() == before
    assert f"{path}: has 100 bytes, where {len(before)} were cached; it is fetched again" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"columns": ["captoin"]}, "columns: 'captoin' is no column .*did you mean 'caption'"),
        ({"decode": "unit8"}, "decode is 'unit8' .*did you mean 'uint8'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; expected one of raise, skip"),
        ({"where": "numbr = 3"}, "did you mean 'number'"),
        ({"columns": []}, "columns: .*expected a list of one at least"),
        ({"columns": None}, "columns: None; expected a list"),
        ({"columns": [3]}, "columns: 3 is no column"),
        ({"where": 3}, "where is 3; expected a text"),
        ({"where": []}, "where is .*; expected a text"),
        ({"decode": None}, "decode is None; expected one of uint8, pil, bytes"),
        ({"decode": ["pil"]}, "decode is .'pil'. .*; expected one of"),
        ({"on_error": True}, "on_error is True; expected one of"),
        ({"partial": "no"}, "partial is 'no'; expected True or False"),
        ({"options": "us"}, "options: expected a dict of texts"),
        ({"options": {"region": 3}}, "options: expected a dict of texts"),
        ({"cache": 3}, "cache is 3; expected the name of a folder"),
    ],
)
def test_wrong_arguments_are_refused_in_a_line(corpus, arguments, said):
    with pytest.raises(ConfigError, match=said):
        Corpus(corpus, **arguments)


def test_what_is_no_place_or_cache_is_refused_in_a_line():
    with pytest.raises(ConfigError, match="path is 3; expected the name of a folder"):
        Corpus(3)
    for size in (0, "8G", 1.5):
        with pytest.raises(ConfigError, match=f"cache: size is {size!r}; expected a number of bytes"):
            Cache("/nvme", size)


@pytest.mark.parametrize("cached", [False, True])
def test_what_was_cut_off_a_tar_later_is_an_error_or_skipped_and_counted(corpus, tmp_path, monkeypatch, cached):
    """Of 128 pictures the last 64; those that stand in for them are of another tar too."""
    monkeypatch.setattr("pipeline.corpus.loader.pictures.AGAIN", (0.0,))
    more = {"columns": ["image", "number"], "cache": tmp_path / "cache" if cached else None}
    raising, skipping = (Corpus(corpus, on_error=how, **more) for how in ("raise", "skip"))
    cut = int(skipping.index.rows["offset"][192])
    os.truncate(Path(corpus, "train", "000003.tar"), cut + 10)
    first = r"^\S+train/000003.tar: the picture at byte \d+ is damaged .its tar ends before it.; repair it: [^\n]*$"
    with pytest.raises(CorpusError, match=first):
        list(Loader(raising, 4, shuffle=False))
    loader = Loader(skipping, 4)
    seen = [number for batch in loader for number in batch["number"].tolist()]
    lost = range(128 if cached else 192, 256)  # cached are blocks, and the tar is one
    assert (len(seen), len(loader), loader.skipped) == (344, 86, len(lost))
    assert set(range(344)) - set(seen) == set(lost)


def test_a_corpus_that_grows_is_refused_or_a_snapshot(corpus):
    commit = Path(corpus, "commits", "000003.json")
    data = commit.read_bytes()
    commit.unlink()
    with pytest.raises(CorpusError, match=r"4 of 5 shards are committed; .*partial=True"):
        Corpus(corpus)
    part = Corpus(corpus, partial=True, columns=["number"])
    commit.write_bytes(data)
    assert [part[i]["number"] for i in range(len(part))] == [*range(128), *range(256, 344)]
    assert len(Corpus(corpus, partial=True)) == 344


def test_a_commit_of_another_identity_is_refused(corpus):
    commit = Path(corpus, "commits", "000003.json")
    commit.write_text(json.dumps(json.loads(commit.read_text()) | {"identity": "f" * 64}))
    for partial in (False, True):
        with pytest.raises(CorpusError, match=r"000003.json: is of another corpus"):
            Corpus(corpus, partial=partial)


def test_a_damaged_file_is_refused_with_what_mends_it(corpus):
    tar = Path(corpus, "train", "000003.tar")
    tar.write_bytes(tar.read_bytes()[:-10240])
    with pytest.raises(CorpusError, match=r"train/000003.tar: is .*lacuna repair"):
        Corpus(corpus)
    assert len(Corpus(corpus, partial=True)) == 216


def test_what_is_damaged_later_is_an_error_that_names_it(corpus):
    opened = Corpus(corpus)
    Path(corpus, "train", "000001.tar").write_bytes(b"short")
    with pytest.raises(CorpusError, match=r"train/000001.tar: the picture .*its tar ends before it.; repair it"):
        opened[110]
    Path(corpus, "train", "000003.tar").unlink()
    with pytest.raises(CorpusError, match=r"train/000003.tar: the picture .*its tar is missing.; repair it"):
        opened[150]


def test_nothing_to_train_on_is_refused(corpus):
    with pytest.raises(CorpusError, match=r"has no pictures to train on where number > 1000"):
        Corpus(corpus, where="number > 1000")
    with pytest.raises(CorpusError, match=r"no corpus is here"):
        Corpus(f"{corpus}-not")


def test_damaged_pictures_are_errors_or_skipped_and_counted(corpus):
    whole = Corpus(corpus)
    tar = Path(corpus, "train", "000001.tar")
    data = bytearray(tar.read_bytes())
    for row in (105, 106):
        offset, length, _, _ = whole.index.rows[row].item()
        data[offset + length // 2 :][:8] = bytes(8)
        data[offset : offset + length] = bytes(data[offset : offset + length // 2]).ljust(length, b"\0")
    tar.write_bytes(data)
    with pytest.raises(CorpusError, match=r"train/000001.tar: the picture at byte \d+ is damaged .*on_error='skip'"):
        Corpus(corpus)[105]
    skipping = Corpus(corpus, on_error="skip", columns=["image", "number"])
    samples = skipping.__getitems__(np.arange(100, 110))
    assert [sample["number"] for sample in samples] == [100, 101, 102, 103, 104, 107, 107, 107, 108, 109]
    assert all(number_of(sample["image"]) == sample["number"] for sample in samples)
    assert skipping.skipped == 2


@pytest.mark.parametrize("decode", ["uint8", "pil", "bytes"])
@pytest.mark.parametrize("image_format", [ImageFormat.jpg, ImageFormat.png])
@pytest.mark.parametrize("sizes", [[(16, 24)], [(16, 24), (24, 16)]])
def test_a_batch_is_its_samples_as_columns(tmp_path, decode, image_format, sizes):
    make_corpus(path := str(tmp_path / "c"), [9], image_format=image_format, sizes=sizes)
    corpus, rows = Corpus(path, decode=decode, columns=["image", "number", "source"]), np.array([3, 0, 8])
    batch, expected = corpus.batch(rows), collate(corpus.read(rows))
    assert list(batch) == list(expected)
    assert batch["number"].tolist() == [3, 0, 8]
    assert batch["source"] == expected["source"]
    assert type(batch["image"]) is type(expected["image"])
    for ours, theirs in zip(batch["image"], expected["image"], strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_a_picture_of_another_size_than_its_manifest_says_is_damaged():
    data, pixels = encode_image(picture(3, 16, 16), ImageFormat.jpg, 90), np.empty((16, 24, 3), np.uint8)
    with pytest.raises(Undecodable, match="is 16x16, and its manifest says 16x24"):
        decode_into(data, pixels)


def test_bytes_of_no_picture_are_told_without_an_address_in_memory():
    with pytest.raises(Undecodable, match=r"^is no picture of a known kind$"):
        decode(b"no picture", "pil")


def test_a_store_that_answers_short_is_asked_again(corpus, monkeypatch, tmp_path):
    short = {"left": 1}
    opened = Corpus(corpus, cache=tmp_path / "cache")
    store = opened._pictures._store

    real = store.read_range

    def read_range(path, start, length):
        data = real(path, start, length)
        if short["left"]:
            short["left"] -= 1
            return data[: len(data) // 2]
        return data

    monkeypatch.setattr(store, "read_range", read_range)
    assert number_of(opened[3]["image"]) == 3
    assert short["left"] == 0
    assert open_store(corpus).exists("run.yaml")
