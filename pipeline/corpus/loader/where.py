"""The predicate of ``Corpus(where=...)``: a string over manifest columns, as an Arrow expression.

    width >= 512 and (source in ('coco', 'laion') or source is null) and not caption like '%logo%'

    predicate  = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | "(" predicate ")" | test
    test       = operand ( comparison operand | "is" ["not"] "null" | ["not"] "in" "(" literal { "," literal } ")"
                         | ["not"] "like" text )
    comparison = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">="
    operand    = name | literal
    literal    = number | text in '...' ('' is a quote) | "true" | "false"

A name that is no plain word is written in "..." or `...`. In a pattern ``%`` is any text and ``_`` one character. As in
SQL a comparison with null is null, and rows of which the predicate is null are left out. Knows nothing of corpora.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, nearest

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?!\w)|(?P<text>'(?:[^']|'')*')"
    r"""|(?P<quoted>"[^"]+"|`[^`]+`)|(?P<word>[^\W\d][\w.]*)|(?P<sign><=|>=|<>|!=|==|[=<>(),]))"""
)
_WORDS = {"and", "or", "not", "in", "is", "null", "like", "true", "false"}
DEPTH = 100  # of what is nested, far below what Python's stack holds
SHOWN = 200  # characters, around the place of an error
TESTS = 1000  # far below what Arrow's stack holds, for which each is nested in the last
_COMPARISONS = {"=": "==", "==": "==", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WHOLE = pa.decimal128(20)  # holds signed and unsigned numbers of 64 bits
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def parse_where(text: str, schema: pa.Schema) -> tuple[pc.Expression, list[str]]:
    """Return *text* as an expression over *schema*, and the columns that it reads, in the schema's order.

    Raises ``ConfigError`` with the place (counted from 1) of what is wrong, and the nearest name of an unknown column.
    """
    parser = _Parser(text, schema)
    expression = parser.predicate()
    if parser.now.kind != "end":
        raise parser.error(f"expected 'and', 'or' or the end, not {parser.now.text!r}")
    return expression, [name for name in schema.names if name in parser.columns]


@dataclass(frozen=True)
class _Token:
    kind: str  # number, text, name, word (reserved, lower case), sign, end
    text: str
    place: int  # of its first character, from 1


@dataclass(frozen=True)
class _Operand:
    token: _Token
    value: Any = None
    type: pa.DataType | None = None  # of a column; None of a literal


class _Parser:
    def __init__(self, text: str, schema: pa.Schema):
        self._text, self._schema = text, schema
        self._tokens = self._split()
        self._at = self._depth = self._tests = 0
        self.columns: set[str] = set()

    @property
    def now(self) -> _Token:
        return self._tokens[self._at]

    def error(self, message: str, token: _Token | None = None) -> ConfigError:
        place, text = (token or self.now).place, self._text
        if len(text) > SHOWN:
            first = max(0, place - SHOWN // 2)
            text = f"...{text[first : first + SHOWN]}..."
        return ConfigError(f"where: at {place} of {text!r}: {message}")

    def _split(self) -> list[_Token]:
        tokens, at, text = [], 0, self._text
        end = len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                place = at + len(text[at:]) - len(text[at:].lstrip())
                what = "a text that does not end" if text[place] in "'\"`" else f"{text[place]!r} has no meaning here"
                raise self.error(what, _Token("bad", "", place + 1))
            kind, found = match.lastgroup, match[match.lastgroup]
            place = match.start(kind) + 1
            if kind == "quoted":
                kind, found = "name", found[1:-1]
            elif kind == "word" and found.lower() in _WORDS:
                found = found.lower()
            elif kind == "word":
                kind = "name"
            tokens.append(_Token(kind, found, place))
            at = match.end()
        return [*tokens, _Token("end", "the end", len(text) + 1)]

    def _take(self, *texts: str) -> bool:
        """Step over the next token where it is one of these words or signs."""
        if self.now.kind in ("word", "sign") and self.now.text in texts:
            self._at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self.error(f"expected {text!r}, not {self.now.text!r}")

    def predicate(self) -> pc.Expression:
        left = self._conjunction()
        while self._take("or"):
            left = left | self._conjunction()
        return left

    def _conjunction(self) -> pc.Expression:
        left = self._negation()
        while self._take("and"):
            left = left & self._negation()
        return left

    def _negation(self) -> pc.Expression:
        if self._depth > DEPTH:
            raise self.error(f"'not' and '(' are nested deeper than {DEPTH}")
        self._depth += 1
        if self._take("not"):
            found = ~self._negation()
        elif self._take("("):
            found = self.predicate()
            self._need(")")
        else:
            found = self._test()
        self._depth -= 1
        return found

    def _test(self) -> pc.Expression:
        self._tests += 1
        if self._tests > TESTS:
            raise self.error(f"there are more than {TESTS} tests; many values of one column are written NAME in (...)")
        left, token = self._operand(), self.now
        if token.kind == "sign" and token.text in _COMPARISONS:
            self._at += 1
            return self._compared(left, _COMPARISONS[token.text], self._operand())
        if left.type is None:
            raise self.error("expected a comparison behind a literal")
        field = pc.field(left.value)
        if self._take("is"):
            negative = self._take("not")
            self._need("null")
            return ~field.is_null() if negative else field.is_null()
        negative = self._take("not")
        if self._take("in"):
            test = _is_in(field, left.type, [other.value for other in self._listed(left)])
            return ~test if negative else test
        if self._take("like"):
            if not (pa.types.is_string(left.type) or pa.types.is_large_string(left.type)):
                raise self.error(f"'like' is for text, and {left.value!r} holds {left.type}", left.token)
            pattern = self._operand()
            if pattern.type is not None or not isinstance(pattern.value, str):
                raise self.error("expected a pattern such as '%dog%' behind 'like'", pattern.token)
            test = pc.match_like(field, pattern.value)
            return ~test if negative else test
        if negative:
            raise self.error(f"expected 'in' or 'like' behind 'not', not {self.now.text!r}")
        raise self.error(f"expected a comparison (= != < <= > >=, in, like, is null), not {token.text!r}")

    def _listed(self, left: _Operand) -> list[_Operand]:
        self._need("(")
        values = []
        while True:
            value = self._operand()
            if value.type is not None:
                raise self.error("expected literals in a list", value.token)
            self._check(left, value)
            values.append(value)
            if not self._take(","):
                self._need(")")
                return values

    def _operand(self) -> _Operand:
        token = self.now
        self._at += 1
        if token.kind == "number":
            if not re.fullmatch(r"[+-]?\d+", token.text):
                if math.isinf(float(token.text)):
                    raise self.error(f"{token.text} is no 64-bit number", token)
                return _Operand(token, float(token.text))
            if not -1 << 63 <= int(token.text) < 1 << 64:
                raise self.error(f"{token.text} is no 64-bit number", token)
            return _Operand(token, int(token.text))
        if token.kind == "text":
            return _Operand(token, token.text[1:-1].replace("''", "'"))
        if token.kind == "word" and token.text in ("true", "false"):
            return _Operand(token, token.text == "true")
        if token.kind == "name":
            if token.text not in self._schema.names:
                hint = "; a text is written in '...'" if self._text[token.place - 1] == '"' else ""
                near = nearest(token.text, self._schema.names)
                raise self.error(f"no column is called {token.text!r}{near}{hint}", token)
            self.columns.add(token.text)
            return _Operand(token, token.text, self._schema.field(token.text).type)
        self._at -= 1
        hint = "; a column that is null is found by NAME is null" if token.text == "null" else ""
        raise self.error(f"expected a column or a literal, not {token.text!r}{hint}", token)

    def _compared(self, left: _Operand, sign: str, right: _Operand) -> pc.Expression:
        if left.type is None:
            left, right, sign = right, left, _MIRRORED[sign]
        if left.type is None:
            raise self.error("two literals are compared; expected a column on one side", right.token)
        self._check(left, right)
        a = pc.field(left.value)
        b = _literal(right.value) if right.type is None else pc.field(right.value)
        # Arrow refuses an integer that the other type does not hold, and compares no float16.
        if _fractional(left) or _fractional(right):
            a, b = (side.cast(pa.float64(), safe=False) for side in (a, b))
        elif _unsigned(left) or _unsigned(right):
            a, b = (side.cast(_WHOLE) for side in (a, b))
        match sign:
            case "==":
                return a == b
            case "!=":
                return a != b
            case "<":
                return a < b
            case "<=":
                return a <= b
            case ">":
                return a > b
            case _:
                return a >= b

    def _check(self, column: _Operand, other: _Operand) -> None:
        """Refuse what Arrow would refuse later and without a place, or would take for something else."""
        ours = _kind(column.type)
        if ours is None:
            raise self.error(f"{column.value!r} holds {column.type}, which cannot be compared", column.token)
        theirs = _kind(other.type) if other.type is not None else _literal_kind(other.value)
        if ours != theirs:
            shown = (
                f"{other.value!r} holds {other.type}" if other.type is not None else f"{other.token.text} is {theirs}"
            )
            raise self.error(f"{column.value!r} holds {column.type}, and {shown}", other.token)
        large = type(other.value) is int and other.value >= 1 << 63
        if large and pa.types.is_integer(column.type) and not _unsigned(column):
            raise self.error(f"{column.value!r} holds {column.type}, which has no {other.token.text}", other.token)


def _literal(value: Any) -> pc.Expression:
    large = type(value) is int and value >= 1 << 63
    return pc.scalar(pa.scalar(value, pa.uint64()) if large else value)


def _is_in(field: pc.Expression, type_: pa.DataType, values: list[Any]) -> pc.Expression:
    """Arrow's ``isin`` calls null no member; in SQL neither the test nor its negation holds of it."""
    if pa.types.is_floating(type_):
        test = field.cast(pa.float64()).isin(pa.array(map(float, values), pa.float64()))
    elif pa.types.is_integer(type_):
        whole = [Decimal(int(v)) for v in values if v == int(v) and -1 << 63 <= v < 1 << 64]
        test = field.cast(_WHOLE).isin(pa.array(whole, _WHOLE))
    else:
        test = field.isin(pa.array(values, type_))
    return pc.if_else(field.is_valid(), test, pa.scalar(None, pa.bool_()))


def _fractional(operand: _Operand) -> bool:
    return isinstance(operand.value, float) if operand.type is None else bool(pa.types.is_floating(operand.type))


def _unsigned(operand: _Operand) -> bool:
    return bool(operand.type is not None and pa.types.is_uint64(operand.type))


def _kind(type_: pa.DataType | None) -> str | None:
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return "a number"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "text"
    return "a truth value" if pa.types.is_boolean(type_) else None


def _literal_kind(value: object) -> str:
    if isinstance(value, bool):
        return "a truth value"
    return "text" if isinstance(value, str) else "a number"
