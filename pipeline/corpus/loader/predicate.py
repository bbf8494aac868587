"""Which rows of a corpus are read: ``Corpus(where=...)``, a text (see ``where``) or an Arrow expression."""

import hashlib
import pickle
import re
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.loader.arguments import shown
from pipeline.corpus.loader.where import parse_where
from pipeline.errors import ConfigError, nearest

LONG = 200  # characters of an expression, in messages


class Predicate(NamedTuple):
    """``expression`` reads the manifests' ``columns``; ``text`` shows it to people; ``name`` tells it apart.

    The name of a text is the text. That of an expression is a digest of what Arrow makes of it to send it elsewhere:
    what Arrow shows of it leaves out the middle of a long list.
    """

    expression: pc.Expression
    columns: Sequence[str]
    text: str
    name: str


def predicate_of(where: str | pc.Expression, schema: pa.Schema) -> Predicate:
    """Return *where* as a predicate over *schema*. Raises ``ConfigError`` for what cannot be one."""
    if isinstance(where, str):
        return Predicate(*parse_where(where, schema), where, where)
    if not isinstance(where, pc.Expression):
        raise ConfigError(f"where is {shown(where)}; expected a text such as 'width >= 512', or a pyarrow expression")
    text = " ".join(str(where).split())
    text = text if len(text) <= LONG else f"{text[:LONG]}..."
    rows = schema.empty_table()
    if why := _refused(where, rows):
        unknown = re.match(r"No match for FieldRef\.Name\((.*?)\) in ", why)
        if unknown:
            why = f"no column is called {unknown[1]!r}{nearest(unknown[1], schema.names)}"
        raise ConfigError(f"where: {text}: {why}")
    try:
        sent = pickle.dumps(where)
    except pa.ArrowNotImplementedError as error:  # a column by its number, which is another in other manifests
        raise ConfigError(f"where: {text}: expected columns by their names ({error})") from error
    columns = [name for name in schema.names if _refused(where, rows.drop_columns([name]))]
    return Predicate(where, columns, text, f"expression {hashlib.sha256(sent).hexdigest()}")


def _refused(expression: pc.Expression, rows: pa.Table) -> str:
    """Return why Arrow cannot tell of *rows* whether they fulfil *expression*; ``""`` where it can."""
    try:
        rows.filter(expression)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        return str(error).splitlines()[0]
    return ""
