"""What passes from a source to a manifest: each type of Arrow's unchanged, or one line; parts that differ, as one."""

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.schema import PromptsConfig
from pipeline.corpus.manifest import ManifestRow, Status, passed_names, write_manifest
from pipeline.errors import ConfigError
from pipeline.prompts import open_source
from pipeline.prompts.meaning import Meaning
from pipeline.prompts.passing import passing_schema
from pipeline.prompts.tables import table_rows

TEXT, WHOLE = pa.string(), pa.int64()
NS = [1, -1, None, 2**62 + 1]  # odd numbers of nanoseconds, far away


def ints(type_, values=NS):
    return pa.array(values, pa.int64()).view(type_)


# What passes unchanged: the values of each type, with nulls and extremes.
UNCHANGED = {
    "bool": pa.array([True, None]),
    "int8": pa.array([-128, 127, None], pa.int8()),
    "uint64": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "float16": pa.array([1.5, None], pa.float32()).cast(pa.float16()),
    "double": pa.array([float("inf"), 5e-324, None]),
    "string": pa.array(["é🐱", "", None]),
    "large_string": pa.array(["a", None], pa.large_string()),
    "fixed_size_binary": pa.array([b"\xff" * 16, None], pa.binary(16)),
    "decimal": pa.array(["1.05", None]).cast(pa.decimal128(38, 2)),
    "decimal256": pa.array(["1.05", None]).cast(pa.decimal256(60, 2)),
    "date32": pa.array([2**31 - 1, None], pa.int32()).view(pa.date32()),
    "time64[ns]": ints(pa.time64("ns"), [1, 86_399_999_999_999, None]),
    "timestamp[us], year 10000 and after": ints(pa.timestamp("us"), [253402300800000000, 2**63 - 1, None]),
    "timestamp[ns]": ints(pa.timestamp("ns")),
    "timestamp[ns, UTC]": ints(pa.timestamp("ns", "UTC")),
    "timestamp[us] of a place": ints(pa.timestamp("us", "Europe/Berlin")),
    "duration[ns]": ints(pa.duration("ns")),
    "duration[s]": ints(pa.duration("s")),
    "null": pa.nulls(2),
    "list": pa.array([["a", None], [], None]),
    "large_list": pa.array([[1], None], pa.large_list(WHOLE)),
    "fixed_size_list": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
    "list of timestamps": pa.array([[2**62 + 1], None], pa.list_(WHOLE)).cast(pa.list_(pa.timestamp("ns"))),
    "struct": pa.array([{"a": 1, "b": [{"c": "x"}]}, {"a": None, "b": None}, None]),
    "map": pa.array([[("k", 1), ("l", None)], [], None], pa.map_(TEXT, WHOLE)),
    "uuid": pa.array([b"\x01" * 16, None], pa.uuid()),
    "json": pa.array(['{"a": {}}', None], pa.json_()),
    "tensor": pa.array([[1.0, 2.0], None], pa.fixed_shape_tensor(pa.float32(), [2])),
}
# What passes as the values that it holds, or in the nearest type that parquet has.
ENCODED = {
    "dictionary": (pa.array(["a", "b", "a", None]).dictionary_encode(), TEXT),
    "dictionary of numbers": (pa.array([5, None]).dictionary_encode(), WHOLE),
    "list of dictionaries": (
        pa.array([["a"], None], pa.list_(TEXT)).cast(pa.list_(pa.dictionary(pa.int32(), TEXT))),
        pa.list_(TEXT),
    ),
    "string_view": (pa.array(["a", None], pa.string_view()), TEXT),
    "list of views": (pa.array([["a"], None], pa.list_(pa.string_view())), pa.list_(TEXT)),
    "timestamp[s]": (pa.array([253402300800, None]).view(pa.timestamp("s")), pa.timestamp("ms")),
    "list of timestamp[s]": (pa.array([[5], None]).cast(pa.list_(pa.timestamp("s"))), pa.list_(pa.timestamp("ms"))),
    "time32[s]": (pa.array([5, None], pa.int32()).view(pa.time32("s")), pa.time32("ms")),
    "date64": (pa.array([86_400_000, None]).view(pa.date64()), pa.date32()),
}
REFUSED = {
    "interval": (pa.nulls(1, pa.month_day_nano_interval()), "is month_day_nano_interval, which a manifest cannot hold"),
    "struct of nothing": (pa.array([{}]), "is an object without fields ({}), which a manifest cannot hold"),
    "list of structs of nothing": (pa.array([[{}]]), "is list<item: struct<>>, which a manifest cannot hold"),
    "run-end encoded": (pa.nulls(1, pa.run_end_encoded(pa.int32(), TEXT)), "which a manifest cannot hold"),
    "union": (pa.nulls(1, pa.dense_union([pa.field("a", pa.int32())])), "which a manifest cannot hold"),
    "binary": (pa.array([b"..."]), "is binary, and pictures and sound have no place in a manifest; list those that"),
    "picture": (pa.array([{"bytes": b"...", "path": "p"}]), "and pictures and sound have no place in a manifest"),
    "binary_view": (pa.array([b"."], pa.binary_view()), "is binary_view, and pictures and sound have no place"),
}


def in_manifest(values, **columns):
    """The column x as a manifest has it, of a table of which it is the column x."""
    table = pa.table({"prompt": ["a"] * len(values), "x": values})
    meaning = Meaning.of(PromptsConfig(source="t", columns=columns))
    schema = passing_schema([("t", table.schema)], meaning)
    read = table_rows(table, meaning, schema)
    assert [row.fault for row in read.rows] == [None] * len(values)
    return kept(read.columns)["x"]


def kept(columns):
    rows = [
        ManifestRow(key=f"{i:011d}", shard=0, prompt="a", caption="a", seed=i, width=8, height=8, status=Status.ok)
        for i in range(len(columns))
    ]
    return pq.read_table(io.BytesIO(write_manifest(rows, columns)))


@pytest.mark.parametrize("kind", UNCHANGED)
def test_a_type_that_parquet_has_passes_unchanged(kind):
    found = in_manifest(UNCHANGED[kind])
    assert found.type == UNCHANGED[kind].type
    assert found.combine_chunks().equals(UNCHANGED[kind])


@pytest.mark.parametrize("kind", ENCODED)
def test_what_is_mere_encoding_passes_as_the_values_that_it_holds(kind):
    values, type_ = ENCODED[kind]
    found = in_manifest(values)
    assert found.type == type_
    assert found.combine_chunks().equals(values.cast(type_))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_manifest_cannot_hold_is_refused_in_one_line(kind):
    values, why = REFUSED[kind]
    with pytest.raises(ConfigError) as told:
        in_manifest(values)
    assert str(told.value).startswith("prompts.source: t: column 'x' is ")
    assert why in str(told.value)
    assert "prompts.columns.pass" in str(told.value)
    assert "\n" not in str(told.value)


def test_bytes_pass_where_they_are_asked_for_by_name():
    values = pa.array([b"\xff\xd8", b"", None])
    found = in_manifest(values, **{"pass": ["x"]})
    assert found.type == pa.binary()
    assert found.combine_chunks().equals(values)


def test_all_this_without_pandas():
    """It comes only with an extra, and Arrow's nanoseconds become Python's objects by it alone."""
    here = """
import sys, pytest
class Absent:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.exit(pytest.main(sys.argv[1:]))
"""
    chosen = ["-q", "-p", "no:cacheprovider", __file__, "-k", "unchanged or encoding or parts"]
    done = subprocess.run([sys.executable, "-c", here, *chosen], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def parts(folder: Path, *tables, **settings):
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{i}.parquet")
    return open_source(PromptsConfig(source=str(folder / "*.parquet"), **settings))


def part(**columns):
    return pa.table({"prompt": ["a", "b"], **columns})


@pytest.mark.parametrize(
    ("one", "two", "type_"),
    [
        (pa.array(["x", "y"]), pa.nulls(2), TEXT),
        (pa.nulls(2), pa.array([[1], [2]]), pa.list_(WHOLE)),
        (pa.array(["x", "y"]), pa.array(["x", "y"], pa.large_string()), pa.large_string()),
        (pa.array(["x", "y"]), pa.array(["x", "y"]).dictionary_encode(), TEXT),
        (pa.array([1, 2], pa.int32()), pa.array([1, 2**40]), WHOLE),
        (pa.array([1, 2]), pa.array([0.5, None]), pa.float64()),
        (ints(pa.timestamp("ms"), [1, 2]), ints(pa.timestamp("ns"), [1, 2]), pa.timestamp("ns")),
        (pa.array([{"a": 1}] * 2), pa.array([{"b": "x"}] * 2), pa.struct([("a", WHOLE), ("b", TEXT)])),
    ],
)
def test_parts_that_differ_in_type_are_one_source(one, two, type_, tmp_path):
    for a, b in ((one, two), (two, one)):
        found = parts(tmp_path, part(x=a), part(x=b))
        x = found.read(0, 4).columns["x"]
        assert found.schema.field("x").type == x.type == kept(found.read(0, 4).columns)["x"].type
        assert x.type == type_ or pa.types.is_struct(type_)
        decoded = pa.chunked_array([a.cast(TEXT) if pa.types.is_dictionary(a.type) else a]).cast(x.type)
        assert x.slice(0, 2).equals(decoded)


def test_parts_may_differ_in_order_and_lack_columns_but_not_the_prompt(tmp_path):
    found = parts(tmp_path, part(note=["x", "y"]), part(id=[1, 2]).select(["id", "prompt"]))
    assert found.read(1, 3).columns.to_pylist() == [{"note": "y", "id": None}, {"note": None, "id": 1}]
    assert [row.prompt for row in found.read(0, 4).rows] == ["a", "b", "a", "b"]
    with pytest.raises(ConfigError, match=r"1.parquet has no column 'prompt' \(did you mean 'prompts'\?\)"):
        parts(tmp_path, part(), pa.table({"prompts": ["a"]}))
    found = parts(tmp_path, part(), pa.table({"prompt": pa.nulls(2)}))
    assert [row.fault for row in found.read(1, 3).rows] == [None, "column 'prompt' is null; expected a prompt"]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (pa.array([1, 2]), pa.array(["x", "y"])),
        (pa.array([1, 2], pa.uint64()), pa.array([1, 2])),
        (pa.array(["x", "y"]), pa.array([b"x" * 4, b"y" * 4], pa.binary(4))),
        (ints(pa.timestamp("us"), [1, 2]), ints(pa.timestamp("us", "UTC"), [1, 2])),
        (pa.array([[1], [2]]), pa.array([{"a": 1}] * 2)),
    ],
)
def test_parts_that_no_type_holds_are_refused_with_file_column_and_both_types(one, two, tmp_path):
    with pytest.raises(ConfigError) as told:
        parts(tmp_path, part(x=one), part(x=two))
    said = f"{tmp_path}/1.parquet: column 'x' is {two.type}, and {one.type} in {tmp_path}/0.parquet; expected one type"
    assert said in str(told.value).replace("element", "item")
    found = parts(tmp_path, part(x=one), part(x=two), columns={"pass": []})
    assert found.schema.names == []


def test_a_value_that_the_type_of_all_parts_does_not_hold_makes_a_bad_row(tmp_path):
    found = parts(tmp_path, part(x=[2**60 + 1, 3]), part(x=[0.5, 1.5]))
    read = found.read(0, 4)
    assert read.rows[0].fault.startswith("column 'x' does not fit double: Integer value 1152921504606846977")
    assert [row.fault for row in read.rows[1:]] == [None] * 3
    assert read.columns["x"].to_pylist() == [None, 3.0, 0.5, 1.5]


@pytest.mark.parametrize("role", ["seed", "negative_prompt", "size", "width"])
def test_a_column_that_can_never_steer_is_refused_by_its_type(role, tmp_path):
    columns = {role: ints(pa.timestamp("ns"), [1, 2])}
    with pytest.raises(ConfigError, match=rf"prompts.columns.{role}: column '{role}' of .* is timestamp\[ns\];"):
        parts(tmp_path, part(**columns))
    found = parts(tmp_path, part(**columns), columns={"prompt": "prompt"})  # then it passes
    assert found.schema.names == [role]


def test_columns_of_a_manifests_own_names_are_renamed_and_never_meet():
    assert passed_names(["id", "key", "source_key", "seed"]) == ["id", "source_source_key", "source_key", "source_seed"]
    found = kept(pa.table({"key": [1, 2], "source_key": [3, 4]}))
    assert found["key"].to_pylist() == ["00000000000", "00000000001"]
    assert (found["source_source_key"].to_pylist(), found["source_key"].to_pylist()) == ([1, 2], [3, 4])
    assert len(set(found.column_names)) == len(found.column_names)


def test_a_manifests_bytes_do_not_depend_on_how_its_columns_were_read():
    whole = pa.table({"x": [f"text {i}" for i in range(3000)], "y": [None, 1, 2] * 1000})
    cut = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 2047), whole.slice(2048)])
    rows = [
        ManifestRow(key=f"{i:011d}", shard=0, prompt="a", caption="a", seed=i, width=8, height=8, status=Status.ok)
        for i in range(3000)
    ]
    assert write_manifest(rows, whole) == write_manifest(rows, cut)
