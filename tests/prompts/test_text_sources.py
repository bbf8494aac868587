"""Text files: rows at random, checked once, typed once, and named by number where they are wrong."""

import gzip
import json
import os
import pickle
import random

import pyarrow as pa
import pytest

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError
from pipeline.prompts import lines, open_source, textfiles
from pipeline.prompts.lines import STRIDE
from pipeline.prompts.source import make_row


def source(path, **settings):
    return open_source(PromptsConfig(source=str(path), **settings))


def rows(found, start=0, stop=None):
    return found.read(start, len(found) if stop is None else stop).rows


def columns(found, start=0, stop=None):
    return found.read(start, len(found) if stop is None else stop).columns.to_pylist()


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def numbered(kind, count):
    """A file of *count* prompts "row 0", "row 1", ... with what is awkward in its format, and blank lines."""
    prompts = [f"row {i}" for i in range(count)]
    if kind == "txt":
        return "".join(f"  {prompt}\r\n" + "\n" * (i % 7 == 0) for i, prompt in enumerate(prompts))
    if kind == "jsonl":
        return "\n\n".join(json.dumps({"id": i, "prompt": prompt}) for i, prompt in enumerate(prompts))
    comma = "," if kind == "csv" else "\t"
    lines = [f'"row\n{i}"{comma}"é ""{i}"", x"' if i % 5 == 0 else f"row {i}{comma}plain" for i in range(count)]
    return f"\ufeffprompt{comma}note\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv"])
def test_any_slice_of_a_file_is_what_the_whole_file_says(kind, tmp_path):
    count = 3 * STRIDE + 17
    found = pickle.loads(pickle.dumps(source(write(tmp_path / f"p.{kind}", numbered(kind, count)))))
    assert len(found) == count
    rng = random.Random(0)
    for start in [0, STRIDE - 1, STRIDE, 3 * STRIDE, count - 1, *(rng.randrange(count) for _ in range(20))]:
        stop = min(count, start + rng.randrange(1, 2 * STRIDE))
        assert [row.prompt.replace("\n", " ") for row in rows(found, start, stop)] == [
            f"row {i}" for i in range(start, stop)
        ]
    assert rows(found, 5, 5) == []


def test_csv_quotes_hold_line_ends_delimiters_and_quotes(tmp_path):
    found = source(write(tmp_path / "p.csv", numbered("csv", 11)))
    assert rows(found, 10)[0].prompt == "row\n10"
    assert columns(found, 10) == [{"note": 'é "10", x'}]


def test_tsv_without_quoting_takes_quotation_marks_as_they_are(tmp_path):
    path = write(tmp_path / "p.tsv", 'prompt\tnote\n"Hello" says a sign\tx\na "cat"\ty\n')
    assert [row.prompt for row in rows(source(path))] == ['"Hello" says a sign', 'a "cat"']


def test_rows_may_set_seed_negative_prompt_and_size(tmp_path):
    given = [
        {"prompt": "a", "seed": 7, "negative_prompt": "blurry", "size": "64x128"},
        {"prompt": "b", "size": [32, 64], "seed": "8.0"},
        {"prompt": "c", "width": 8, "height": 16.0, "seed": 2**63 - 1},
        {"prompt": "d", "seed": None, "negative_prompt": None, "size": None},
        {"prompt": "e", "seed": float("nan"), "negative_prompt": float("nan"), "size": float("nan")},
        {"prompt": "f", "seed": "", "negative_prompt": "", "width": None, "height": float("nan")},
    ]
    source_of = source(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, given))))
    found = rows(source_of)
    assert [row.seed for row in found] == [7, 8, 2**63 - 1, None, None, None]
    assert [row.negative_prompt for row in found] == ["blurry"] + [None] * 5
    assert [row.size for row in found] == [(64, 128), (32, 64), (8, 16), None, None, None]
    assert [row.fault for row in found] == [None] * 6
    assert source_of.schema.names == []
    path = write(tmp_path / "p.csv", "prompt,seed,width,height,negative_prompt\na,7,64,128,\nb,,,,dull\n")
    one, two = rows(source(path))
    assert (one.seed, one.size, one.negative_prompt) == (7, (64, 128), None)
    assert (two.seed, two.size, two.negative_prompt) == (None, None, "dull")


def test_only_rows_that_ask_for_something_are_made_when_a_file_is_opened(tmp_path, monkeypatch):
    """Of 10^7 rows each is looked at, and making one costs as much as reading it."""
    made = []
    monkeypatch.setattr(lines, "make_row", lambda record, *rest: made.append(record) or make_row(record, *rest))
    given = [{"prompt": f"row {i}", "id": i} for i in range(9)] + [{"prompt": "last", "id": 9, "seed": 3}]
    found = source(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, given))))
    assert made == given[-1:]
    assert [row.prompt for row in rows(found, 7)] == ["row 7", "row 8", "last"]


def test_white_space_round_json_is_none_of_its_business(tmp_path):
    text = ' {"prompt": "a"}\t\r\n\x0c\n\n\t{"prompt": " b\u2028"} \n'
    found = source(write(tmp_path / "p.jsonl", text))
    assert [row.prompt for row in rows(found)] == ["a", " b\u2028"]


def test_what_rows_ask_for_is_counted_and_known_by_the_first_that_does(tmp_path):
    given = [{"prompt": "a"}, {"prompt": "b", "size": "64x32"}, {"prompt": "c", "width": 64, "height": 32, "seed": 1}]
    given += [{"prompt": "d", "size": [8, 8], "negative_prompt": "grey"}, {"prompt": "e", "negative_prompt": "dull"}]
    path = write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, given)))
    looked = source(path).look()
    assert looked.sizes == {(64, 32): (f"{path}: row 2", 2), (8, 8): (f"{path}: row 4", 1)}
    assert (looked.seeds, looked.negatives, looked.negative) == (1, 2, f"{path}: row 4")
    assert (looked.rows, looked.bad, looked.first) == (5, 0, None)
    looked = source(path, limit=3).look()
    assert (looked.rows, looked.sizes, looked.negative) == (3, {(64, 32): (f"{path}: row 2", 2)}, None)


def test_types_of_columns_are_those_of_the_whole_file(tmp_path):
    """The first 5,000 rows have whole numbers and no tag; the last ones have fractions and tags."""
    given = [{"prompt": "p", "score": i, "none": None} for i in range(5000)]
    given += [{"prompt": "p", "score": 0.5, "tags": ["x"], "box": {"left": 1}}]
    found = source(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, given))))
    types = {field.name: field.type for field in found.schema}
    assert types == {
        "score": pa.float64(),
        "none": pa.string(),
        "tags": pa.list_(pa.string()),
        "box": pa.struct([("left", pa.int64())]),
    }
    (first,), (last,) = columns(found, 0, 1), columns(found, 5000)
    assert first == {"score": 0.0, "none": None, "tags": None, "box": None}
    assert isinstance(first["score"], float)
    assert last == {"score": 0.5, "none": None, "tags": ["x"], "box": {"left": 1}}


GOOD = {"txt": "a", "jsonl": '{"prompt": "a"}', "csv": "prompt,x\na,1"}


@pytest.mark.parametrize(
    ("kind", "row", "fault"),
    [
        ("jsonl", '{"prompt": " "}', "column 'prompt' is blank; expected a prompt"),
        ("jsonl", '{"prompt": "\\u200b\\u0000\\u3000"}', "column 'prompt' is blank; expected a prompt"),
        ("jsonl", '{"prompt": ""}', "column 'prompt' is blank; expected a prompt"),
        ("jsonl", '{"prompt": null}', "column 'prompt' is null; expected a prompt"),
        ("jsonl", '{"promt": "b"}', "has no column 'prompt'; expected a prompt"),
        ("jsonl", '{"prompt": 3}', "column 'prompt' is 3; expected a text"),
        ("jsonl", '{"prompt": ["b"]}', "column 'prompt' is ['b']; expected a text"),
        ("jsonl", '{"prompt": "a \\ud83d cat"}', "column 'prompt' has a lone surrogate (\\ud83d, half of a character)"),
        ("jsonl", b'{"prompt": "caf\xe9"}', "column 'prompt' is not UTF-8 text (byte 0xe9)"),
        ("jsonl", '["b"]', "is no JSON object"),
        ("jsonl", '{"prompt": "b"', "is not valid JSON: Expecting ',' delimiter: line 1"),
        ("jsonl", '{"prompt": "b"} {"prompt": "c"}', "is not valid JSON: Extra data: line 1 column 17"),
        ("jsonl", '\xa0{"prompt": "b"}', "is not valid JSON: Expecting value: line 1"),
        ("jsonl", '\ufeff{"prompt": "b"}', "is not valid JSON: Unexpected UTF-8 BOM"),
        ("jsonl", "[" * 100_000, "is not valid JSON: it is nested too deeply"),
        ("jsonl", '{"prompt": "a", "seed": -1}', "column seed: is -1; expected a whole number from 0 to 2^63 - 1"),
        ("jsonl", '{"prompt": "a", "seed": 9223372036854775808}', "column seed: is 9223372036854775808; expected"),
        ("jsonl", '{"prompt": "a", "seed": 1.5}', "column seed: is 1.5; expected a whole number"),
        ("jsonl", '{"prompt": "a", "seed": 1e300}', "column seed: is 1e+300; expected a whole number"),
        ("jsonl", '{"prompt": "a", "seed": Infinity}', "column seed: is inf; expected a whole number"),
        ("jsonl", '{"prompt": "a", "seed": true}', "column seed: is true; expected a whole number"),
        ("jsonl", '{"prompt": "a", "seed": [1]}', "column seed: is [1]; expected a whole number"),
        ("jsonl", '{"prompt": "a", "size": "64"}', "column size: is '64'; expected such as '64x64'"),
        ("jsonl", '{"prompt": "a", "size": {"w": 64}}', "column size: is {'w': 64}; expected such as '64x64'"),
        ("jsonl", '{"prompt": "a", "size": "64x60"}', "column size: has a side of 60 pixels; expected multiples of 8"),
        ("jsonl", '{"prompt": "a", "size": "0x64"}', "column size: has a side of 0 pixels"),
        ("jsonl", '{"prompt": "a", "size": [64, -64]}', "column size: has a side of -64 pixels"),
        (
            "jsonl",
            '{"prompt": "a", "size": "64x800000"}',
            "column size: has a side of 800000 pixels",
        ),
        (
            "jsonl",
            '{"prompt": "a", "width": 64}',
            "column width and height: is 64 and null; expected two",
        ),
        ("jsonl", '{"prompt": "a", "width": 64, "height": 64.5}', "column width and height: is 64 and 64.5; expected"),
        ("jsonl", '{"prompt": "a", "negative_prompt": 3}', "column 'negative_prompt' is 3; expected a text"),
        ("jsonl", '{"prompt": "a", "negative_prompt": "\\udc80"}', "column 'negative_prompt' is not UTF-8 text"),
        ("jsonl", '{"prompt": "a", "x": "\\ud83d"}', "column 'x' has a lone surrogate"),
        ("jsonl", '{"prompt": "a", "x": {"y": ["\\ud83d"]}}', "column 'x' has a lone surrogate"),
        ("txt", b"caf\xe9", "column 'prompt' is not UTF-8 text (byte 0xe9)"),
        ("csv", "b", "has 1 fields; expected 2 (prompt, x)"),
        ("csv", ",1", "column 'prompt' is blank; expected a prompt"),
        ("csv", b"b,\xe9", "column 'x' is not UTF-8 text (byte 0xe9)"),
    ],
)
def test_a_bad_row_says_why_and_its_neighbours_live(kind, row, fault, tmp_path):
    row, end = row.encode() if isinstance(row, str) else row, b"\nlast,2" if kind == "csv" else b"\nlast"
    end = b'\n{"prompt": "last"}' if kind == "jsonl" else end
    found = source(write(tmp_path / f"p.{kind}", GOOD[kind].encode() + b"\n" + row + end))
    looked = found.look()
    assert (looked.rows, looked.bad, looked.first[0]) == (3, 1, 1)
    assert looked.first[1].startswith(f"{tmp_path / f'p.{kind}'}: row 2: {fault}")
    one, bad, last = rows(found)
    assert (one.prompt, last.prompt, one.fault, last.fault) == ("a", "last", None, None)
    assert bad.fault.startswith(fault)
    assert (bad.seed, bad.negative_prompt, bad.size) == (None, None, None)
    bad.prompt.encode()
    assert columns(found, 1, 2)[0].get("x") is None or kind == "csv"
    assert rows(pickle.loads(pickle.dumps(found)), 1, 2) == [bad]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "p.jsonl",
            '{"prompt": "a", "x": 1}\n{"prompt": "b", "x": "y"}',
            "row 2: column 'x' has 'y', but those before it",
        ),
        ("p.jsonl", '{"prompt": "a", "x": {}}', "column 'x' is an object without fields ({}), which a manifest cannot"),
        (
            "p.jsonl",
            '{"prompt": "a", "x": [{"y": {}}]}',
            "column 'x' is list<item: struct<y: struct<>>>, which",
        ),
        ("p.jsonl", '{"prompt": "a", "\\ud83d": 1}', "row 1: the name '\\ud83d' is no text"),
        ("p.csv", 'prompt,x\na,1\n"b"c,2\n', "row 2 is not valid CSV"),
        ("p.csv", 'prompt,x\na,1\n"b,2\n', "row 2 is not valid CSV"),
        ("p.csv", 'prompt,x\n"a,1\n', "row 1 is not valid CSV"),
        ("p.csv", '"prompt,x\na,1\n', "the header is not valid CSV"),
        ("p.csv", b"prompt,\xe9\na,1\n", "the header is not UTF-8 text"),
        ("p.csv", "Prompt,x\na,1\n", "has no column 'prompt' (did you mean 'Prompt'?); it has Prompt, x"),
        ("p.csv", "prompt,x,x\na,1,2\n", "has two columns of one name, 'x'"),
        ("p.csv", "", "has no column 'prompt'; it has none"),
        ("p.jsonl", '{"promt": "b"}', "has no column 'prompt' (did you mean 'promt'?); it has promt"),
        ("p.jsn", "[]", "has the suffix '.jsn' (did you mean '.json'?)"),
        ("p.json", '[{"prompt": "a"}, {"prompt": "b" ]', "row 2 is not valid JSON: Expecting ',' delimiter"),
        ("p.json", '[{"prompt": "a"}, {"prompt": "b"}', "row 3 is not valid JSON: Expecting value"),
        ("p.json", '[{"prompt": "a"} {"prompt": "b"}]', "row 2 is followed by '{'; expected a comma"),
        ("p.json", '[{"prompt": "a"}]\n[{"prompt": "b"}]', "row 2 would stand behind the end of the array"),
        ("p.jsonl.gz", b"no gzip at all", "cannot be decompressed: Not a gzipped file"),
        ("p.jsonl.gz", gzip.compress(b'{"prompt": "a"}' * 99, mtime=0)[:-9], "cannot be decompressed: "),
    ],
)
def test_what_cannot_be_used_is_named(name, text, expected, tmp_path):
    with pytest.raises(ConfigError) as caught:
        source(write(tmp_path / name, text))
    assert expected in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "text", "bad"), [("p.jsonl", "no\nJSON\n", 2), ("p.csv", "prompt,x\n", 0)])
def test_where_no_row_can_be_read_nothing_passes(name, text, bad, tmp_path):
    found = source(write(tmp_path / name, text), columns={"pass": ["x"]})
    assert (len(found), found.look().bad, found.schema.names) == (bad, bad, [])


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([2**64 - 1, 5, None], pa.uint64()),
        ([5] * 5000 + [2**64 - 1] + [7] * 5000, pa.uint64()),
        ([2**63 - 1, -(2**63)], pa.int64()),
        ([-5, 2**64 - 1], "row 2: column 'x' has 18446744073709551615, but {}: row 1 has -5, and no type of whole"),
        ([0, -5] + [1] * 5000 + [2**64 - 1], "row 5003: column 'x' has 18446744073709551615, but {}: row 2 has -5"),
        ([2**64 - 1] + [1] * 5000 + [-5], "row 5002: column 'x' has -5, but those before it are uint64"),
        ([1, 2**64], "row 2: column 'x' has 18446744073709551616, but no type of whole numbers holds it"),
        ([1, [2**64 - 1]], "row 2: column 'x' has [18446744073709551615], but those before it are int64"),
    ],
)
def test_whole_numbers_are_of_the_type_that_holds_them_all(values, type_, tmp_path):
    path = write(tmp_path / "p.jsonl", "\n".join(json.dumps({"prompt": "a", "x": value}) for value in values))
    if isinstance(type_, str):
        with pytest.raises(ConfigError) as caught:
            source(path)
        assert type_.format(path) in str(caught.value)
        return
    found = source(path)
    assert found.schema == pa.schema([("x", type_)])
    assert [row["x"] for row in columns(found)] == values


def test_a_number_that_its_columns_type_does_not_hold_makes_a_bad_row(tmp_path):
    values = [2**60 + 1] + [1] * 4999 + [0.5]
    path = write(tmp_path / "p.jsonl", "\n".join(json.dumps({"prompt": "a", "x": value}) for value in values))
    found = source(path)
    assert found.schema == pa.schema([("x", pa.float64())])
    assert [row.fault for row in rows(found, 0, 2)] == [
        "column 'x' is 1152921504606846977, which does not fit double",
        None,
    ]
    assert columns(found, 0, 2) == [{"x": None}, {"x": 1.0}]


ARRAY = '\ufeff[ {"prompt": "one 🐱", "n": 1},\n\n  {"n": 2, "prompt": "two"} ,3, {"prompt": "four"}\n]\n'


def test_a_json_array_is_read_at_random_however_it_is_cut(tmp_path, monkeypatch):
    given = [{"prompt": f"row {i} é🐱 {'x' * (i % 50)}", "n": i} for i in range(2 * STRIDE + 5)]
    path = write(tmp_path / "p.json", json.dumps(given, indent=1, ensure_ascii=False))
    for chars in (7, 1 << 16):
        monkeypatch.setattr(textfiles, "CHARS", chars)
        found = source(path)
        assert len(found) == len(given)
        for start in (0, 1, STRIDE - 1, STRIDE, 2 * STRIDE + 4):
            assert [row.prompt for row in rows(found, start)] == [row["prompt"] for row in given[start:]]
            assert columns(found, start, start + 1) == [{"n": start}]
    found = source(write(tmp_path / "q.json", ARRAY))
    assert [row.prompt for row in rows(found)] == ["one 🐱", "two", "", "four"]
    assert [row.fault and row.fault[:17] for row in rows(found)] == [None, None, "is no JSON object", None]
    assert columns(found) == [{"n": 1}, {"n": 2}, {"n": None}, {"n": None}]
    lines_of_objects = write(tmp_path / "r.json", '{"prompt": "a"}\n{"prompt": "b"}\n')
    assert [row.prompt for row in rows(source(lines_of_objects))] == ["a", "b"]
    assert len(source(write(tmp_path / "s.json", " [ ]"))) == 0


def test_files_of_a_glob_are_one_source_in_the_order_of_their_names(tmp_path):
    for name, part in (("b", range(600, 1300)), ("a", range(600)), ("c", range(1300, 1310))):
        given = [{"prompt": f"row {i}", **({"half": i / 2} if name == "b" else {"half": i})} for i in part]
        if name == "c":
            given[3]["prompt"] = None
        data = "\n".join(map(json.dumps, given)).encode()
        (tmp_path / f"{name}.jsonl").write_bytes(data)
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(data[:100]) + gzip.compress(data[100:]))
    for pattern in ("*.jsonl", "*.jsonl.gz"):
        found = source(tmp_path / pattern)
        assert found.look().first[1].startswith(f"{tmp_path / 'c'}{pattern[1:]}: row 4: column 'prompt' is null")
        for start, stop in ((1000, 1310), (0, 1310), (590, 610), (1299, 1301), (5, 6)):  # backwards too
            expected = ["" if i == 1303 else f"row {i}" for i in range(start, stop)]
            assert [row.prompt for row in rows(found, start, stop)] == expected
        assert found.schema == pa.schema([("half", pa.float64())])
        assert columns(found, 1299, 1301) == [{"half": 649.5}, {"half": 1300.0}]
    assert found.fingerprint == source(tmp_path / "*.jsonl").fingerprint
    assert source(tmp_path / "a.jsonl.gz").fingerprint == source(tmp_path / "a.jsonl").fingerprint


def test_columns_mean_what_the_config_says_and_nothing_else_steers(tmp_path):
    given = {"caption": "a", "w": 64, "h": 32, "seed": 5, "size": "8x8", "negative_prompt": "grey", "id": 3}
    path = write(tmp_path / "p.jsonl", json.dumps(given))
    found = source(path, columns={"prompt": "caption", "width": "w", "height": "h"})
    (row,) = rows(found)
    assert (row.prompt, row.size, row.seed, row.negative_prompt) == ("a", (64, 32), None, None)
    assert columns(found) == [{"seed": 5, "size": "8x8", "negative_prompt": "grey", "id": 3}]
    found = source(path, columns={"prompt": "caption", "size": "size", "seed": "id", "pass": ["h", "caption"]})
    (row,) = rows(found)
    assert (row.size, row.seed) == ((8, 8), 3)
    assert columns(found) == [{"h": 32, "caption": "a"}]
    assert source(path, columns={"prompt": "caption", "pass": []}).schema.names == []
    for wrong, expected in (
        ({"prompt": "captoin"}, "prompts.columns.prompt: {} has no column 'captoin' (did you mean 'caption'?); it has"),
        ({"prompt": "caption", "seed": "sed"}, "prompts.columns.seed: {} has no column 'sed' (did you mean 'seed'?)"),
        (
            {"prompt": "caption", "pass": ["id", "sizes"]},
            "prompts.columns.pass[1]: {} has no column 'sizes' (did you",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            source(path, columns=wrong)
        assert expected.format(path) in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    write(tmp_path / "prompts.txt", "a")
    with pytest.raises(ConfigError, match=r"promts.txt: no such file \(did you mean 'prompts.txt'\?\)"):
        source(tmp_path / "promts.txt")
    with pytest.raises(ConfigError, match="a folder that HF datasets did not save"):
        source(tmp_path)
    with pytest.raises(ConfigError, match=r"only .parquet is read remotely"):
        source("s3://bucket/prompts.txt")


def test_the_fingerprint_is_of_content_and_not_of_place(tmp_path):
    (tmp_path / "sub").mkdir()
    one = source(write(tmp_path / "a.txt", "x\ny"))
    assert source(write(tmp_path / "sub/b.txt", "x\ny")).fingerprint == one.fingerprint
    assert source(write(tmp_path / "c.txt", "x\nz")).fingerprint != one.fingerprint


def test_a_file_that_changes_under_a_plan_is_noticed(tmp_path):
    path = write(tmp_path / "a.txt", "x\ny")
    found = source(path)
    assert rows(found, 0, 1)[0].prompt == "x"
    write(path, "y\nx")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ConfigError, match="was changed since the plan was made"):
        found.read(0, 1)
