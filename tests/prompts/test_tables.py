"""Parquet (local, S3, HTTP) and HF datasets."""

import pickle
import random
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError
from pipeline.prompts import open_source
from pipeline.prompts.parquet import BATCH
from pipeline.prompts.places import Place

ROWS = 3 * BATCH + 11


def source(path, **settings):
    return open_source(PromptsConfig(source=str(path), **settings))


def table(rows, first=0):
    numbers = range(first, first + rows)
    return pa.table(
        {
            "id": list(numbers),
            "prompt": [f"row {i}" for i in numbers],
            "kind": pa.array(["x"] * rows).dictionary_encode(),
            "seed": [None if i % 2 else i for i in numbers],
        }
    )


def check(found, rows, first=0):
    assert len(found) == rows
    assert found.schema == pa.schema([("id", pa.int64()), ("kind", pa.string())])
    rng = random.Random(1)
    for start in [0, rows - 1, *sorted(rng.randrange(rows) for _ in range(8))]:
        stop = min(rows, start + rng.randrange(1, 2 * BATCH))
        read = found.read(start, stop)
        assert [row.prompt for row in read.rows] == [f"row {i + first}" for i in range(start, stop)]
        assert read.columns.to_pylist() == [{"id": i + first, "kind": "x"} for i in range(start, stop)]
        assert [row.seed for row in read.rows] == [None if i % 2 else i for i in range(start + first, stop + first)]
    seeds = len(range(first + first % 2, first + rows, 2))
    assert (found.look().rows, found.look().bad, found.look().seeds) == (rows, 0, seeds)
    blocks = [range(start, min(start + 30, rows)) for start in range(0, rows, max(40, rows // 20))]
    assert found.read_blocks(blocks) == [found.read(block.start, block.stop) for block in blocks]


def test_row_groups_and_files_of_a_glob_are_one_source(tmp_path):
    pq.write_table(table(ROWS), tmp_path / "a.parquet", row_group_size=5000)
    pq.write_table(table(100, first=ROWS), tmp_path / "b.parquet", row_group_size=7)
    found = source(tmp_path / "*.parquet")
    check(found, ROWS + 100)
    check(pickle.loads(pickle.dumps(found)), ROWS + 100)
    check(source(tmp_path / "a.parquet"), ROWS)


def together(monkeypatch, files):
    """Have each opening of a file wait until so many are being opened; return the names in the order of opening."""
    opened, barrier, opening = [], threading.Barrier(files, timeout=20), Place.open

    def wait(place):
        opened.append(place.name)
        barrier.wait()  # never passed where files are opened one after the other
        return opening(place)

    monkeypatch.setattr(Place, "open", wait)
    return opened


def test_row_groups_of_a_shuffle_are_read_together_and_each_once(tmp_path, monkeypatch):
    pq.write_table(table(5000), tmp_path / "a.parquet", row_group_size=1000)
    found = source(tmp_path / "*.parquet")
    found.read(0, 1)  # parses the footer
    blocks = [range(10, 20), range(500, 1001), range(1900, 1901), range(2000, 2999), range(4990, 5000)]
    expected = [found.read(block.start, block.stop) for block in blocks]
    opened = together(monkeypatch, 4)
    assert found.read_blocks(blocks) == expected
    assert len(opened) == 4
    assert found.read_blocks([]) == []


def test_footers_are_read_together_and_used_in_order(tmp_path, monkeypatch):
    for i in range(4):
        pq.write_table(table(10 + i, first=[0, 10, 21, 33][i]), tmp_path / f"{i}.parquet")
    fingerprint = source(tmp_path / "*.parquet").fingerprint
    with monkeypatch.context() as patch:
        opened = together(patch, 4)
        found = source(tmp_path / "*.parquet")
        assert len(opened) == 4
    check(found, 46)
    assert found.fingerprint == fingerprint
    (tmp_path / "1.parquet").write_bytes(b"no parquet")
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "2.parquet")
    with pytest.raises(ConfigError, match=r"1.parquet is not a parquet file"):
        source(tmp_path / "*.parquet")


def test_a_source_can_be_read_again_after_it_could_not(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"row {i} {random.Random(i).randbytes(200).hex()}" for i in range(3 * BATCH)]  # more than one buffer
    pq.write_table(pa.table({"prompt": texts}), path, use_dictionary=False)
    found, whole = source(path), path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    with pytest.raises(ConfigError, match=r"a.parquet: the footer cannot be read: "):
        found.read(0, 1)
    path.write_bytes(whole)
    assert found.read(0, 1).rows[0].prompt == texts[0]
    path.write_bytes(bytes(len(whole)))
    last = 3 * BATCH - 1
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"a.parquet: row group 0 cannot be read: "):
            found.read(last, last + 1)
    path.write_bytes(whole)
    assert found.read(last, last + 1).rows[0].prompt == texts[last]


@pytest.mark.parametrize("kind", ["parquet", "hf"])
@pytest.mark.parametrize("columns", [{}, {"seed": pa.array([None] * 29 + [3])}, {"negative_prompt": pa.nulls(30)}])
def test_a_bad_row_is_found_by_looking_and_its_neighbours_live(kind, columns, tmp_path):
    prompts = [f"row {i}" for i in range(30)]
    prompts[13], prompts[20], prompts[21] = " \u200b", "", None
    table = pa.table({"prompt": prompts, **columns})
    if kind == "parquet":
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
        found, name = source(tmp_path / "a.parquet"), "a.parquet"
    else:
        pytest.importorskip("datasets").Dataset(table).save_to_disk(str(tmp_path / "one"))
        found, name = source(tmp_path / "one"), "one"
    looked = found.look()
    blank = "column 'prompt' is blank; expected a prompt"
    assert (looked.rows, looked.bad, looked.first) == (30, 3, (13, f"{tmp_path / name}: row 14: {blank}"))
    one, two = found.read_blocks([range(5, 9), range(11, 25)])
    assert [row.prompt for row in one.rows] == [f"row {i}" for i in range(5, 9)]
    faults = {i: row.fault for i, row in enumerate(two.rows, 11) if row.fault}
    assert faults == {13: blank, 20: blank, 21: "column 'prompt' is null; expected a prompt"}
    assert source(tmp_path / name, limit=13).look().bad == 0


def not_utf8(*texts):
    """Bytes as a text column, unchecked, as other writers of parquet leave them."""
    raw = pa.array(texts, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())


def test_bytes_that_are_no_text_make_bad_rows(tmp_path):
    prompts, notes = not_utf8(b"a", b"caf\xe9", b"c", None), not_utf8(b"x", b"y", b"\xed\xa0\xbd", b"z")
    pq.write_table(pa.table({"prompt": prompts, "note": notes}), tmp_path / "a.parquet")
    found = source(tmp_path / "a.parquet")
    assert found.look().bad == 2  # what passes is read only when it is drawn
    read = found.read(0, 4)
    assert [row.fault for row in read.rows] == [
        None,
        "column 'prompt' is not UTF-8 text (byte 0xe9)",
        "column 'note' does not fit string: In chunk 0: Invalid: Invalid UTF8 sequence at string index 0",
        "column 'prompt' is null; expected a prompt",
    ]
    assert [row.prompt for row in read.rows] == ["a", "caf\ufffd", "c", ""]
    assert read.columns["note"].to_pylist() == ["x", "y", None, "z"]


def test_planning_reads_footers_only(tmp_path):
    """The rows of a file may be unreadable, and it still has a length, a schema and a fingerprint."""
    path = tmp_path / "a.parquet"
    pq.write_table(table(ROWS), path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    broken = bytearray(whole)
    broken[4 : len(whole) - 8 - length] = bytes(len(whole) - 12 - length)
    path.write_bytes(broken)
    found = source(path)
    assert len(found) == ROWS
    with pytest.raises(ConfigError, match=r"a.parquet: row group 0 cannot be read: "):
        found.read(0, 1)
    path.write_bytes(whole)
    assert source(path).fingerprint == source(path).fingerprint


def test_the_fingerprint_is_of_content_and_not_of_place(tmp_path):
    (tmp_path / "sub").mkdir()
    for path, rows in (("a.parquet", table(50)), ("sub/b.parquet", table(50)), ("c.parquet", table(50, first=1))):
        pq.write_table(rows, tmp_path / path)
    a, b, c = (source(tmp_path / path).fingerprint for path in ("a.parquet", "sub/b.parquet", "c.parquet"))
    assert a == b != c


def test_files_that_cannot_be_used(tmp_path):
    pq.write_table(table(3), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"no column 'promt' \(did you mean 'prompt'\?\)"):
        source(tmp_path / "a.parquet", columns={"prompt": "promt"})
    with pytest.raises(ConfigError, match=r"column 'id' of .* is int64; expected text"):
        source(tmp_path / "a.parquet", columns={"prompt": "id"})
    pq.write_table(pa.table({"captions": [["a", "b"], ["c"]]}), tmp_path / "lists.parquet")
    with pytest.raises(ConfigError, match=r"column 'captions' of .* is list<.*>; expected text"):
        source(tmp_path / "lists.parquet", columns={"prompt": "captions"})
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"b.parquet is not a parquet file, or it is cut off"):
        source(tmp_path / "b.parquet")
    (tmp_path / "b.parquet").write_bytes(bytes(92) + (88).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ConfigError, match=r"b.parquet: the footer cannot be read: "):
        source(tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"z\*.parquet: no such file"):
        source(tmp_path / "z*.parquet")


def test_s3(tmp_path, monkeypatch):
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="prompts")
        pq.write_table(table(ROWS), tmp_path / "a.parquet", row_group_size=5000)
        pq.write_table(table(10, first=ROWS), tmp_path / "b.parquet")
        for name in ("a", "b"):
            client.upload_file(str(tmp_path / f"{name}.parquet"), "prompts", f"deep/{name}.parquet")
        check(source("s3://prompts/deep/a.parquet"), ROWS)
        found = source("s3://prompts/deep/*.parquet")
        check(found, ROWS + 10)
        assert len(pickle.loads(pickle.dumps(found)).read(0, 3).rows) == 3
        with pytest.raises(ConfigError, match=r"s3://prompts/deep/c.parquet: no such file"):
            source("s3://prompts/deep/c.parquet")
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        options = f"endpoint_override={host}:{port}&scheme=http"
        check(source(f"s3://prompts/deep/b.parquet?{options}"), 10, first=ROWS)
        check(source(f"s3://prompts/deep/*.parquet?{options}"), ROWS + 10)
    finally:
        server.stop()


class _Ranges(BaseHTTPRequestHandler):
    """Serves the bytes of ``files``, whole or in ranges."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self):
        self._answer(False)

    def do_GET(self):
        self._answer(True)

    def _answer(self, body):
        data = self.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = data[int(asked[1]) : int(asked[2]) + 1] if asked else data
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(part)

    def log_message(self, *args):
        pass


def test_http(tmp_path):
    pq.write_table(table(ROWS), tmp_path / "a.parquet", row_group_size=5000)
    _Ranges.files = {"/a.parquet": (tmp_path / "a.parquet").read_bytes()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        found = source(f"{url}/a.parquet")
        check(found, ROWS)
        assert found.fingerprint != source(tmp_path / "a.parquet").fingerprint  # it has an ETag
        with pytest.raises(ConfigError, match=r"b.parquet: "):
            source(f"{url}/b.parquet")
    finally:
        server.shutdown()


def test_a_folder_of_hf_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset(table(300))
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": whole, "test": whole.select(range(7))}).save_to_disk(str(tmp_path / "two"))
    check(source(tmp_path / "one"), 300)
    check(pickle.loads(pickle.dumps(source(tmp_path / "two", split="test"))), 7)
    assert source(tmp_path / "one").fingerprint == source(tmp_path / "one").fingerprint
    assert source(tmp_path / "one").fingerprint != source(tmp_path / "two", split="test").fingerprint
    with pytest.raises(ConfigError, match=r"no split 'tests' \(did you mean 'test'\?\); it has train, test"):
        source(tmp_path / "two", split="tests")
    with pytest.raises(ConfigError, match="no column 'promt'"):
        source(tmp_path / "one", columns={"prompt": "promt"})


@pytest.mark.parametrize("reference", ["hf://", "hf://a/b/c", "hf://a b"])
def test_references_to_the_hub_that_are_none(reference):
    with pytest.raises(ConfigError, match="expected hf://NAME"):
        source(reference)


def test_a_dataset_that_cannot_be_reached():
    pytest.importorskip("datasets")
    with pytest.raises(ConfigError, match="hf://nobody/nothing: "):
        source("hf://nobody/nothing")
