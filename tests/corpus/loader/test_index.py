"""The index: blocks cover the pictures, little is held, it is made once and shared."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import Corpus, Loader
from pipeline.config.schema import ImageFormat
from pipeline.corpus import ManifestRow, Status, commit_shard, committed, create_run_record, layout, open_store
from pipeline.corpus.encode import encode_image
from pipeline.corpus.loader import index
from pipeline.corpus.loader.predicate import predicate_of
from pipeline.corpus.rows import ROW, SPAN, placed_in_blocks
from pipeline.errors import ConfigError, CorpusError, StoreError
from tests.corpora import IDENTITY, make_corpus, number_of, picture, run_record


def test_blocks_divide_the_rows_of_each_shard_and_hold_their_bytes(corpus, monkeypatch, home):
    monkeypatch.setattr("pipeline.corpus.rows.SPAN", 9000)
    opened = Corpus(corpus).index
    rows, blocks, shards = opened.rows, opened.blocks, opened.shards
    assert shards["number"].tolist() == [0, 1, 3, 4]  # nothing of 2 may be trained on
    assert shards["row"].tolist() == [0, 100, 128, 256]
    block = opened.block_of(np.arange(len(opened)))
    assert (np.diff(block) >= 0).all()
    assert set(block) == set(range(len(blocks)))
    assert (blocks["shard"][block] == opened.shard_of(np.arange(len(opened)))).all()
    assert (rows["offset"] >= blocks["start"][block]).all()
    assert (rows["offset"] + rows["length"] <= blocks["end"][block]).all()
    assert (blocks["end"] - blocks["start"] <= 13_500 + rows["length"].max()).all()
    assert len(blocks) > 20


def test_a_block_does_not_read_over_a_gap():
    table = pa.table(
        {"offset": [512, 3000, 900_000, 902_000], "length": [2000] * 4, "height": [8] * 4, "width": [8] * 4}
    )
    _, blocks = placed_in_blocks(table, 10, 0)
    assert blocks["row"].tolist() == [10, 12]
    assert blocks["start"].tolist() == [512, 900_000]
    assert blocks["end"].tolist() == [5000, 904_000]


def test_a_picture_larger_than_a_block_is_one():
    size = SPAN * 3
    table = pa.table({"offset": [0, size, 2 * size], "length": [size] * 3, "height": [8] * 3, "width": [8] * 3})
    _, blocks = placed_in_blocks(table, 0, 0)
    assert blocks["row"].tolist() == [0, 1, 2]


def test_a_row_takes_less_than_forty_bytes_and_none_when_pickled(corpus):
    opened = Corpus(corpus)
    assert ROW.itemsize == 16
    assert all(
        isinstance(array.base, np.memmap) for array in (opened.index.rows, opened.index.blocks, opened.index.shards)
    )
    assert len(pickle.dumps(opened)) < 4096
    assert pickle.loads(pickle.dumps(opened))[5]["caption"] == "number 5"


def test_predicates_that_differ_in_the_middle_of_a_list_alone_are_not_one(corpus):
    lists = [", ".join(map(str, [*range(40), 50 + i, *range(200, 240)])) for i in range(2)]
    numbers = [Corpus(corpus, where=f"number in ({numbers})", columns=["number"]) for numbers in lists]
    assert numbers[0].fingerprint != numbers[1].fingerprint
    assert [opened[40]["number"] for opened in numbers] == [50, 51]


def test_expressions_that_differ_in_the_middle_of_a_list_alone_are_not_one(corpus, home):
    lists = [[*range(40), 50 + i, *range(200, 240)] for i in range(2)]
    numbers = [Corpus(corpus, where=pc.field("number").isin(values), columns=["number"]) for values in lists * 2]
    assert [one.fingerprint for one in numbers[:2]] == [one.fingerprint for one in numbers[2:]]
    assert numbers[0].fingerprint != numbers[1].fingerprint
    assert [opened[40]["number"] for opened in numbers] == [50, 51, 50, 51]
    assert len(list((home / "index").iterdir())) == 2
    state = Loader(numbers[0], 5).state_dict()
    Loader(numbers[2], 5).load_state_dict(state)
    with pytest.raises(CorpusError, match="of another corpus, snapshot or predicate"):
        Loader(numbers[1], 5).load_state_dict(state)


def test_what_arrow_cannot_tell_of_a_row_is_one_line(corpus, home):
    store = open_store(corpus)
    asked = predicate_of(pc.field("number").cast(pa.int8()) > 3, pa.schema([("number", pa.int64())]))
    with pytest.raises(ConfigError, match=r"^where: '.cast.number.*> 3.' cannot be told of .*3.parquet \([^\n]*\)$"):
        index.open_index(store, "d", list(committed(store).values()), asked, ["number"], home)


def test_it_is_made_once_and_further_columns_are_added(corpus, monkeypatch):
    reads = []
    monkeypatch.setattr(
        index, "sound_manifest", lambda *args, real=index.sound_manifest: reads.append(1) or real(*args)
    )
    Corpus(corpus)
    assert len(reads) == 4
    Corpus(corpus)
    assert len(reads) == 4
    assert Corpus(corpus, columns=["number"])[7] == {"number": 7}
    assert len(reads) == 8


def test_one_that_was_not_finished_is_made_again(corpus, home):
    folder = Corpus(corpus).index.folder
    (folder / "done").unlink()
    (folder / "rows.bin").write_bytes(b"torn")
    (folder / "column-caption.arrow").rename(folder / "column-caption.arrow.part")
    assert Corpus(corpus)[9]["caption"] == "number 9"


@pytest.mark.parametrize("left", [0, 48, 100])  # 48: a whole number of rows
@pytest.mark.parametrize("name", ["rows.bin", "blocks.bin", "shards.bin", "column-caption.arrow", "done"])
def test_one_that_was_cut_is_made_again_and_whoever_had_it_is_told(corpus, caplog, name, left):
    opened = Corpus(corpus)
    path, pickled = opened.index.folder / name, pickle.dumps(opened)
    before = path.read_bytes()
    path.write_bytes(before[: min(left, len(before) - 1)])
    with pytest.raises(
        StoreError, match=r"^\S+: was cut since it was made; open the corpus again, which makes it anew$"
    ):
        pickle.loads(pickled)[300]
    again = Corpus(corpus)
    assert (len(again), number_of(again[300]["image"]), again[300]["caption"]) == (344, 300, "number 300")
    assert path.read_bytes() == before
    assert (f"{path}: was cut since it was made; it is made anew" in caplog.text) == (name != "done")
    assert pickle.loads(pickled)[300]["caption"] == "number 300"


def test_another_snapshot_or_predicate_has_another_index(tmp_path):
    path = str(tmp_path / "corpus")
    make_corpus(path, [10, 10])
    whole = Corpus(path)
    part = Corpus(path, where="number < 5")
    Path(path, "commits", "000001.json").unlink()
    less = Corpus(path, partial=True)
    assert [len(one) for one in (whole, part, less)] == [20, 5, 10]
    assert len({one.fingerprint for one in (whole, part, less)}) == 3
    assert Corpus(path, where="number   <5", partial=True).fingerprint != part.fingerprint


def test_a_home_that_cannot_be_written_is_a_line(corpus, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"cannot hold the corpus's index .*give cache=FOLDER"):
        Corpus(corpus)


def test_lists_of_fixed_size_are_arrays_where_they_hold_numbers_alone_and_python_lists_elsewhere(tmp_path):
    columns = {
        "vector": pa.array([[1.5, 2.5], [3.5, 4.5], None], pa.list_(pa.float32(), 2)),
        "gap": pa.array([[1, 2], [3, None], [5, 6]], pa.list_(pa.int64(), 2)),
        "words": pa.array([["a", "b"], ["c", None], ["d", "e"]], pa.list_(pa.string(), 2)),
    }
    path, keys = str(tmp_path / "corpus"), [f"{i:011d}" for i in range(3)]
    rows = [
        ManifestRow(
            key=key, shard=0, prompt="p", caption="c", seed=0, width=16, height=16, status=Status.ok, reason=""
        )
        for key in keys
    ]  # fmt: skip
    run, table = run_record(1, 3, layout.FORMAT, ImageFormat.png), pa.table(columns)
    create_run_record(open_store(path), replace(run, column_schema=table.schema))
    commit_shard(
        open_store(path), open_store(f"{path}.evidence"), shard=0, attempt="a", rows=rows, columns=table,
        images={key: encode_image(picture(0), ImageFormat.png, 0) for key in keys}, identity=IDENTITY,
        environment={}, timings={}, corpus_format=layout.FORMAT,
    )  # fmt: skip
    opened = Corpus(path, columns=list(columns))
    vectors = [sample["vector"] for sample in (opened[0], opened[1])]
    assert [(v.dtype, v.tolist()) for v in vectors] == [(np.float32, [1.5, 2.5]), (np.float32, [3.5, 4.5])]
    assert opened[2]["vector"] is None
    assert [opened[i]["words"] for i in range(3)] == columns["words"].to_pylist()
    assert [np.array(opened[i]["gap"], object).tolist() for i in range(3)] == columns["gap"].to_pylist()
    (batch,) = Loader(opened, 3, shuffle=False)
    assert batch["words"] == columns["words"].to_pylist()
    assert batch["gap"][1] == [3, None]
