"""Text files: rows at random, checked once, typed once, and named by number where they are wrong."""

import json
import os
import pickle
import random

import pyarrow as pa
import pytest

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError
from pipeline.prompts import lines, open_source
from pipeline.prompts.lines import STRIDE
from pipeline.prompts.source import make_row


def source(path, **settings):
    return open_source(PromptsConfig(source=str(path), **settings))


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
        assert [row.prompt.replace("\n", " ") for row in found.read(start, stop)] == [
            f"row {i}" for i in range(start, stop)
        ]
    assert found.read(5, 5) == []


def test_csv_quotes_hold_line_ends_delimiters_and_quotes(tmp_path):
    row = source(write(tmp_path / "p.csv", numbered("csv", 11))).read(10, 11)[0]
    assert row.prompt == "row\n10"
    assert row.columns == {"note": 'é "10", x'}


def test_tsv_without_quoting_takes_quotation_marks_as_they_are(tmp_path):
    path = write(tmp_path / "p.tsv", 'prompt\tnote\n"Hello" says a sign\tx\na "cat"\ty\n')
    assert [row.prompt for row in source(path).read(0, 2)] == ['"Hello" says a sign', 'a "cat"']


def test_rows_may_set_seed_negative_prompt_and_size(tmp_path):
    rows = [
        {"prompt": "a", "seed": 7, "negative_prompt": "blurry", "size": "64x128"},
        {"prompt": "b", "size": [32, 64]},
        {"prompt": "c", "width": 8, "height": 16, "seed": 2**63 - 1},
        {"prompt": "d", "seed": None, "negative_prompt": None, "size": None},
    ]
    found = source(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows)))).read(0, 4)
    assert [row.seed for row in found] == [7, None, 2**63 - 1, None]
    assert [row.negative_prompt for row in found] == ["blurry", None, None, None]
    assert [row.size for row in found] == [(64, 128), (32, 64), (8, 16), None]
    assert [row.columns for row in found] == [{}] * 4
    path = write(tmp_path / "p.csv", "prompt,seed,width,height,negative_prompt\na,7,64,128,\nb,,,,dull\n")
    one, two = source(path).read(0, 2)
    assert (one.seed, one.size, one.negative_prompt) == (7, (64, 128), None)
    assert (two.seed, two.size, two.negative_prompt) == (None, None, "dull")


def test_only_rows_that_ask_for_something_are_made_when_a_file_is_opened(tmp_path, monkeypatch):
    """Of 10^7 rows each is looked at, and making one costs as much as reading it."""
    made = []
    monkeypatch.setattr(lines, "make_row", lambda record, *rest: made.append(record) or make_row(record, *rest))
    rows = [{"prompt": f"row {i}", "id": i} for i in range(9)] + [{"prompt": "last", "id": 9, "seed": 3}]
    found = source(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows))))
    assert made == rows[-1:]
    assert [row.prompt for row in found.read(7, 10)] == ["row 7", "row 8", "last"]


def test_white_space_round_json_is_none_of_its_business(tmp_path):
    text = ' {"prompt": "a"}\t\r\n\x0c\n\n\t{"prompt": " b\u2028"} \n'
    found = source(write(tmp_path / "p.jsonl", text))
    assert [row.prompt for row in found.read(0, len(found))] == ["a", " b\u2028"]


def test_what_rows_ask_for_is_known_by_the_first_that_does(tmp_path):
    rows = [{"prompt": "a"}, {"prompt": "b", "size": "64x32"}, {"prompt": "c", "width": 64, "height": 32}]
    rows += [{"prompt": "d", "size": [8, 8], "negative_prompt": "grey"}, {"prompt": "e", "negative_prompt": "dull"}]
    wishes = source(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows)))).wishes
    assert (wishes.sizes, wishes.negative) == ({(64, 32): 1, (8, 8): 3}, 3)
    assert (wishes.of_first(3).sizes, wishes.of_first(3).negative) == ({(64, 32): 1}, None)
    assert wishes.of_first(4) == wishes


def test_types_of_columns_are_those_of_the_whole_file(tmp_path):
    """The first 5,000 rows have whole numbers and no tag; the last ones have fractions and tags."""
    rows = [{"prompt": "p", "score": i, "none": None} for i in range(5000)]
    rows += [{"prompt": "p", "score": 0.5, "tags": ["x"], "box": {"left": 1}}]
    found = source(write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows))))
    types = {field.name: field.type for field in found.schema}
    assert types == {
        "score": pa.float64(),
        "none": pa.string(),
        "tags": pa.list_(pa.string()),
        "box": pa.struct([("left", pa.int64())]),
    }
    first, last = found.read(0, 1)[0], found.read(5000, 5001)[0]
    assert first.columns == {"score": 0.0, "none": None, "tags": None, "box": None}
    assert isinstance(first.columns["score"], float)
    assert last.columns == {"score": 0.5, "none": None, "tags": ["x"], "box": {"left": 1}}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": " "}', "row 2 has an empty prompt in column 'prompt'"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": null}', "row 2 has an empty prompt"),
        ("p.jsonl", '{"prompt": "a"}\n{"promt": "b"}', "row 2 has no column 'prompt' (did you mean 'promt'?)"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": 3}', "row 2 has 3 in column 'prompt'; expected a text"),
        ("p.jsonl", '{"prompt": "a"}\n["b"]', "row 2 is no JSON object"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b"', "row 2 is not valid JSON: Expecting ',' delimiter: line 1"),
        ("p.jsonl", '{"prompt": "a"} {"prompt": "b"}', "row 1 is not valid JSON: Extra data: line 1 column 17"),
        (
            "p.jsonl",
            '{"prompt": "a"}\n\xa0{"prompt": "b"}',
            "row 2 is not valid JSON: Expecting value: line 1",
        ),
        ("p.jsonl", '{"prompt": "a"}\n\ufeff{"prompt": "b"}', "row 2 is not valid JSON: Unexpected UTF-8 BOM"),
        ("p.jsonl", '{"prompt": "a", "x": 1}\n{"prompt": "b", "x": "y"}', "rows 1 to 2: column 'x' has no single type"),
        ("p.jsonl", '{"prompt": "a", "seed": -1}', "row 1: seed is -1; expected a whole number"),
        ("p.jsonl", '{"prompt": "a", "seed": 1.5}', "row 1: seed is 1.5; expected a whole number"),
        ("p.jsonl", '{"prompt": "a", "seed": true}', "row 1: seed is True; expected a whole number"),
        ("p.jsonl", '{"prompt": "a", "size": "64"}', "row 1: size is '64'; expected such as '64x64'"),
        ("p.jsonl", '{"prompt": "a", "size": "64x60"}', "row 1: size has a side of 60 pixels"),
        ("p.jsonl", '{"prompt": "a", "width": 64}', "row 1: size is width 64 and height None"),
        ("p.txt", b"a\nb\n\xe9\n", "row 3 is not UTF-8 text"),
        ("p.csv", "prompt,x\na,1\nb\n", "row 2 has 1 fields; expected 2 (prompt, x)"),
        ("p.csv", 'prompt,x\na,1\n"b"c,2\n', "row 2 is not valid CSV"),
        ("p.csv", 'prompt,x\na,1\n"b,2\n', "row 2 is not valid CSV"),
        ("p.csv", 'prompt,x\n"a,1\n', "row 1 is not valid CSV"),
        ("p.csv", '"prompt,x\na,1\n', "the header is not valid CSV"),
        ("p.csv", b"prompt,\xe9\na,1\n", "the header is not UTF-8 text"),
        ("p.csv", "prompt,x\n,1\n", "row 1 has an empty prompt"),
        ("p.csv", "Prompt,x\na,1\n", "has no column 'prompt' (did you mean 'Prompt'?); it has Prompt, x"),
        ("p.csv", "prompt,x,x\na,1,2\n", "has two columns of one name"),
        ("p.csv", "", "has no column 'prompt'; it has none"),
        ("p.json", "[]", "has the suffix '.json' (did you mean '.jsonl'?)"),
    ],
)
def test_what_cannot_be_used_is_named(name, text, expected, tmp_path):
    with pytest.raises(ConfigError) as caught:
        source(write(tmp_path / name, text))
    assert expected in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


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
    assert found.read(0, 1)[0].prompt == "x"
    write(path, "y\nx")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ConfigError, match="was changed since the plan was made"):
        found.read(0, 1)
