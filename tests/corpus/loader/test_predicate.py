"""A predicate that is an Arrow expression: which rows and columns it is about, and one line for what cannot be one."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import Corpus
from pipeline.corpus.loader.predicate import predicate_of
from pipeline.errors import ConfigError

SCHEMA = pa.schema(
    [
        ("width", pa.int32()),
        ("caption", pa.string()),
        ("good", pa.bool_()),
        ("gates", pa.list_(pa.int64())),
        ("where", pa.struct([("x", pa.int64())])),
    ]
)


@pytest.mark.parametrize(
    ("where", "columns"),
    [
        (pc.field("good"), ["good"]),
        ((pc.field("width") >= 512) & ~pc.match_like(pc.field("caption"), "%logo%"), ["width", "caption"]),
        (pc.field("where", "x") == 3, ["where"]),
        (pc.list_value_length(pc.field("gates")) > 1, ["gates"]),
        (pc.field("caption").isin(["width", "good"]), ["caption"]),
        (pc.scalar(True), []),
    ],
)
def test_the_columns_that_it_reads(where, columns):
    found = predicate_of(where, SCHEMA)
    assert found.columns == columns
    assert found == predicate_of(where, SCHEMA)
    assert found.name != predicate_of(~where, SCHEMA).name


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (pc.field("widht") > 3, r"where: .widht > 3.: no column is called 'widht' .did you mean 'width'"),
        (pc.field("width"), r"where: width: Filter expression must evaluate to bool"),
        (pc.field("width") > "a", r"where: .*: Function 'greater' has no kernel"),
        (pc.field("where", "y") == 1, r"where: .*: No match for "),
        (pc.field(2), r"where: .*FieldPath.2.: expected columns by their names"),
        ((pc.field(0) > 3) & pc.field("good"), r"where: .*: expected columns by their names"),
        (pc.field("caption").isin([f"a\n{i}" for i in range(90)]) & pc.field("not"), r"no column is called 'not'"),
        (pa.array([True]), r"where is .*; expected a text .*or a pyarrow expression"),
    ],
)
def test_what_cannot_be_one_is_refused_in_a_line(where, said):
    with pytest.raises(ConfigError, match=said) as error:
        predicate_of(where, SCHEMA)
    assert isinstance(where, pa.Array) or ("\n" not in str(error.value) and len(str(error.value)) < 400)


def test_a_text_and_an_expression_leave_the_same_rows(corpus):
    both = [
        Corpus(corpus, where=where, columns=["number"])
        for where in (
            "number >= 200 and source in ('s1', 's2') and caption not like '%30_'",
            (pc.field("number") >= 200)
            & pc.field("source").isin(["s1", "s2"])
            & ~pc.match_like(pc.field("caption"), "%30_"),
        )
    ]
    assert len(both[0]) == len(both[1]) > 50
    assert both[0].__getitems__(range(len(both[0]))) == both[1].__getitems__(range(len(both[0])))
    assert both[0].fingerprint != both[1].fingerprint  # each has its own index, and states are of one of them
