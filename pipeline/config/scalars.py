"""What a scalar of YAML means, by the kind of field that it fills: text as it was written, numbers as people read them.

YAML 1.1, which most readers follow, takes ``007`` for seven, ``12:30`` for 750 and ``1_000`` for a thousand. Here a
scalar keeps its text until the schema says what is meant.
"""

import math
import re
from typing import Any

_NULLS = ("", "~", "null", "Null", "NULL")
_TRUE: tuple[str, ...] = ("true", "yes", "on")
_FALSE: tuple[str, ...] = ("false", "no", "off")  # the latter two of each as in YAML 1.1
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][+-]?[0-9]+)?")
_SPECIAL = re.compile(r"([+-]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class Plain(str):
    """A scalar that was written without quotes, as it was written; what stood in quotes is a ``str``."""


def is_null(value: Any) -> bool:
    """Is *value* nothing: ``null``, ``~`` or left empty?"""
    return value is None or (isinstance(value, Plain) and value in _NULLS)


def truth(value: Any) -> bool | None:
    """What *value* says as an answer, or None where it is none. In quotes only true and false are."""
    if isinstance(value, bool):
        return value
    for answer, words in ((True, _TRUE), (False, _FALSE)):
        said = words if isinstance(value, Plain) else words[:1]
        if isinstance(value, str) and value in (form for word in said for form in (word, word.title(), word.upper())):
            return answer
    return None


def text(value: Any) -> str | None:
    """Return *value* as text, as it was written; None for what YAML would read as a truth or as nothing."""
    if isinstance(value, Plain):
        return None if is_null(value) or truth(value) is not None else str(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):  # of an interpolation
        return str(value)
    return value if isinstance(value, str) else None


def whole(value: Any) -> int | None:
    """Return *value* as a whole number, read as decimal (``010`` is ten); None for what is none."""
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(value: Any) -> float | None:
    """Return *value* as a finite number; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def untyped(value: Any) -> Any:
    """Return *value* as YAML 1.2 types it, for fields that may hold anything."""
    if not isinstance(value, Plain):
        return value
    if is_null(value):
        return None
    if value.lower() in ("true", "false") and truth(value) is not None:
        return truth(value)
    if re.fullmatch(r"0x[0-9a-fA-F]{1,32}|0o[0-7]{1,40}", value):
        return int(value, 0)
    if (found := whole(value)) is not None:
        return found
    if special := _SPECIAL.fullmatch(value):
        return float(special[0].replace(".", ""))
    return float(value) if _NUMBER.fullmatch(value) else str(value)
