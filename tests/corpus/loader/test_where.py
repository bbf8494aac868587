"""The predicate of a corpus: what it keeps, and one line with the place for what it cannot be."""

import pyarrow as pa
import pytest

from pipeline.corpus.loader.where import parse_where
from pipeline.errors import ConfigError

TABLE = pa.table(
    {
        "width": pa.array([256, 512, None], pa.int32()),
        "share": pa.array([0.1, 0.5, None], pa.float32()),
        "caption": ["a dog_1", "o'x", None],
        "good": [True, False, None],
        "a name": ["x", "y", "z"],
        "scores": [[1], [2], [3]],
        "large": [1, 1 << 62, None],
        "hash": pa.array([7, (1 << 64) - 1, None], pa.uint64()),
        "half": pa.array([0.5, 2.0, None], pa.float16()),
    }
)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("width >= 512", [1]),
        ("512 <= width", [1]),
        ("width <> 512", [0]),
        ("not width = 512", [0]),
        ("width = 256.0 or width is null", [0, 2]),
        ("width is not null and not (good = true)", [1]),
        ("width in (256, 1)", [0]),
        ("width in (256.5, 512)", [1]),  # no number is cut to a whole one
        ("width not in (256)", [1]),  # as in SQL, null is neither in nor not in
        ("not width in (256)", [1]),
        ("share in (0.5)", [1]),
        ("caption like '%dog%'", [0]),
        ("caption like '_''x'", [1]),
        ("caption not like '%dog%'", [1]),
        ("caption = 'o''x'", [1]),
        ("\"a name\" = 'z' or `a name` = 'x'", [0, 2]),
        ("width = 256 or width = 512 and good = true", [0]),  # "and" binds first
        ("(width = 256 or width = 512) AND good = FALSE", [1]),
        ("width < 99999999999", [0, 1]),
        ("width > -1e3", [0, 1]),
        ("large > 1.5 and large < 1e30", [1]),  # of which Arrow says that they are not in the range of the other
        ("1e6 >= large or large = 2.5", [0]),
        ("large > share", [0, 1]),
        ("width in (1e30, 512)", [1]),
        ("hash in (-1, 7, 18446744073709551615)", [0, 1]),
        ("hash > 7 and hash > -1 and hash > large", [1]),
        ("18446744073709551615 = hash or hash = 7.0", [0, 1]),
        ("share in (9223372036854775807, 0.5)", [1]),  # which no double is
        ("half = 0.5 or half > large", [0]),
        ("half in (2) and half >= half", [1]),
        (" or ".join(f"width = {i}" for i in range(1000)), [0, 1]),
        (f"width in ({', '.join(map(str, range(10_000)))})", [0, 1]),
        ("(" * 50 + "width = 512" + ")" * 50, [1]),
    ],
)
def test_rows_that_are_kept(where, kept):
    expression, columns = parse_where(where, TABLE.schema)
    numbered = TABLE.append_column("row", pa.array(range(3)))
    assert numbered.filter(expression)["row"].to_pylist() == kept
    assert columns == [name for name in TABLE.schema.names if name in where]


@pytest.mark.parametrize(
    ("where", "place", "said"),
    [
        ("widht > 3", 1, "no column is called 'widht' (did you mean 'width'?)"),
        ("width > 3 and capton = 'a'", 15, "did you mean 'caption'?"),
        ("WIDTH > 3", 1, "no column is called 'WIDTH' (did you mean 'width'?)"),
        ('caption = "a dog"', 11, "no column is called 'a dog'; a text is written in '...'"),
        ("good", 5, "expected a comparison"),
        ("width like 'a'", 1, "'like' is for text, and 'width' holds int32"),
        ("width > 'a'", 9, "'width' holds int32, and 'a' is text"),
        ("caption = width", 11, "'caption' holds string, and 'width' holds int32"),
        ("width in ('a')", 11, "'width' holds int32, and 'a' is text"),
        ("width in ()", 11, "expected a column or a literal"),
        ("scores = 3", 1, "'scores' holds list<"),
        ("width > ", 9, "not 'the end'"),
        ("(width > 3", 11, "expected ')'"),
        ("width = null", 9, "NAME is null"),
        ("caption = 'abc", 11, "a text that does not end"),
        ("3 = 3", 1, "two literals are compared"),
        ("width $ 3", 7, "'$' has no meaning here"),
        ("width = 99999999999999999999", 9, "no 64-bit number"),
        ("width < 18446744073709551615", 9, "'width' holds int32, which has no 18446744073709551615"),
        ("hash < -9223372036854775809", 8, "no 64-bit number"),
        ("width < 1e999", 9, "no 64-bit number"),
        (" or ".join(["width = 3"] * 1001), 13_001, "more than 1000 tests; many values of one column are written"),
        ("(" * 5000 + "width = 3", 102, "nested deeper than 100"),
        ("not " * 5000 + "width = 3", 405, "nested deeper than 100"),
        ("width = 3 4", 11, "expected 'and', 'or' or the end"),
        ("", 1, "not 'the end'"),
    ],
)
def test_a_wrong_one_is_refused_with_its_place(where, place, said):
    with pytest.raises(ConfigError) as error:
        parse_where(where, TABLE.schema)
    assert f"where: at {place} of " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
