"""The lines of the card open a corpus in each reader that is installed, though first, middle and last tar are empty.

``pip install -e '.[readers]'`` brings those that are too large for every developer; ``pipeline/corpus/README.md`` says
with which versions all were run.
"""

import importlib.util
import re
import shutil
import subprocess
import sys

import braceexpand
import pytest

from pipeline.corpus import finish, layout, open_store
from pipeline.corpus.readers import TRIED, braces
from tests.corpora import make_corpus

pytestmark = pytest.mark.slow

PICTURES = [0, 3, 0, 0, 4, 5, 0]
KEPT = sum(PICTURES)
HELD = [shard for shard, pictures in enumerate(PICTURES) if pictures]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("readers") / "corpus")
    make_corpus(path, PICTURES)
    finish(path)
    return path


@pytest.fixture
def card(made, tmp_path, monkeypatch):
    """(path, {reader: its lines}) of a copy."""
    path = shutil.copytree(made, str(tmp_path / "corpus"))
    monkeypatch.setenv("WIDS_CACHE", str(tmp_path / "wids"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    finish(path)  # the card names the folder
    return path, lines_of(open_store(path).read(layout.CARD).decode())


def lines_of(card: str) -> dict[str, str]:
    named = re.findall(r"^([^\n]+):\n\n```(?:python|bash)\n(.*?)\n```$", card, re.M | re.S)
    return {name: code for name, code in named if not name.startswith("Of a copy")}


def opened(card, reader: str):
    path, lines = card
    names = {"path": path, "__name__": "lines_of_the_card"}
    exec(lines[reader], names)
    return names["data"]


def test_the_card_says_where_the_corpus_lies_and_names_every_reader(card):
    path, lines = card
    text = open_store(path).read(layout.CARD).decode()
    assert f'path = "{path}"' in text
    assert f"{TRIED}:" in text
    assert list(lines) == [
        "Lacuna", "WebDataset", "wids", "Hugging Face datasets", "Ray Data", "NVIDIA DALI", "Megatron Energon",
        "open_clip", "LitData",
    ]  # fmt: skip


def test_lacuna(card):
    assert len(opened(card, "Lacuna")._source) == KEPT


@pytest.mark.parametrize("workers", [0, 4])  # of which one has empty tars alone
def test_webdataset(card, workers):
    import webdataset

    pairs = list(webdataset.WebLoader(opened(card, "WebDataset"), batch_size=None, num_workers=workers))
    assert len(pairs) == KEPT
    assert all(image.shape == (16, 16, 3) and isinstance(caption, str) for image, caption in pairs)


def test_wids(card):
    data = opened(card, "wids")
    assert len(data) == KEPT
    assert {data[i]["__key__"][:6] for i in range(KEPT)} == {layout.shard_name(shard) for shard in HELD}


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets(card, streaming):
    if streaming:
        lines = card[1]["Hugging Face datasets"]
        card[1]["Hugging Face datasets"] = lines.replace('split="train")', 'split="train", streaming=True)')
    data = opened(card, "Hugging Face datasets")
    rows = list(data)
    assert len(rows) == KEPT
    assert rows[0]["jpg"].size == (16, 16)
    assert rows[0]["json"]["key"] == rows[0]["__key__"]
    assert list(data.features) == ["jpg", "txt", "json", "__key__", "__url__"]


def test_ray_data(card):
    """Nothing but a Ray of its own reads it; its processes take 20 s of a core to start."""
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        rows = opened(card, "Ray Data").take_all()
    finally:
        ray.shutdown()
    assert len(rows) == len({row["__key__"] for row in rows}) == KEPT
    assert rows[0]["jpg"].shape == (16, 16, 3)


def installed(module: str):
    missing = module not in sys.modules and importlib.util.find_spec(module.partition(".")[0]) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed (pip install -e '.[readers]')")


@installed("nvidia.dali")
def test_dali(card):
    pytest.importorskip("nvidia.dali")
    data = opened(card, "NVIDIA DALI")
    data.build()
    assert data.epoch_size("reader") == KEPT
    images, captions = data.run()
    assert images.at(0).shape == (16, 16, 3)
    assert len(captions) == 32


@installed("megatron")
def test_energon(card):
    seen = set()
    for batch in opened(card, "Megatron Energon"):
        seen.update(batch.__key__)
        if len(seen) == KEPT:
            break
    assert {key[:6] for key in seen} == {layout.shard_name(shard) for shard in HELD}
    assert [entry.path for entry in open_store(card[0]).list("train")] == [layout.tar(s) for s in range(len(PICTURES))]


@installed("litdata")
def test_litdata(card, tmp_path):
    """In a process of its own: it starts workers, which import the module that they were started from."""
    path, lines = card
    script = tmp_path / "convert.py"
    head, _, rest = lines["LitData"].partition("litdata.optimize")
    rest = "\n    ".join(("litdata.optimize" + rest).splitlines())
    script.write_text(f"path = {path!r}\n{head}\nif __name__ == '__main__':\n    {rest}\n    print(len(data))\n")
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200)
    assert ended.stdout.split()[-1] == str(KEPT), ended.stderr


def test_the_pattern_of_open_clip_names_every_tar(card):
    """open_clip needs an environment of its own; its lines differ from WebDataset's in how they are given."""
    path, lines = card
    pattern = re.search(r'--train-data "\$path/(.*)"', lines["open_clip"])
    assert pattern is not None
    found = [entry.path for entry in open_store(path).list("train")]
    assert list(braceexpand.braceexpand(pattern[1])) == found
    assert f"--train-num-samples {KEPT} " in lines["open_clip"]


RUNS = [[0], [3], [0, 1, 2], [0, 2, 3, 4, 9], [7, 9], [0, 1, *range(999_998, 1_000_002)]]


@pytest.mark.parametrize("shards", RUNS)
def test_a_pattern_names_its_shards_and_no_others(shards):
    names = [layout.shard_name(shard) for shard in shards]
    assert list(braceexpand.braceexpand(f"{braces(shards)}.tar")) == [f"{name}.tar" for name in names]


def test_the_lines_for_a_corpus_of_format_1_name_the_tars_that_are_there(tmp_path):
    path = str(tmp_path / "corpus")
    make_corpus(path, PICTURES, corpus_format=1)
    finish(path)
    store = open_store(path)
    assert [layout.tar_of(entry.path) for entry in store.list("train") if entry.path.endswith(".tar")] == HELD
    lines = lines_of(store.read(layout.CARD).decode())
    assert "{000001,{000004..000005}}.tar" in lines["WebDataset"]
    assert 'glob(path + "/train/*.idx")' in lines["NVIDIA DALI"]
    assert 'path + "/wids-train.json"' in lines["wids"]
    assert 'read_webdataset(path + "/train", file_extensions=["tar"])' in lines["Ray Data"]
    assert len(list(opened((path, lines), "WebDataset"))) == KEPT
