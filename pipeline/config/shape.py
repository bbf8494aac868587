"""Does a plain tree have the shape of the schema? Unknown keys, missing ones and wrong types, at any depth.

It exists for its messages: OmegaConf would refuse the same trees, but names only the innermost key and not its place.
Values are checked, not converted.
"""

import math
import re
import types
from dataclasses import MISSING, is_dataclass
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from pipeline.config.problem import Problem, show, under
from pipeline.config.schema import settings
from pipeline.errors import nearest


def check_shape(owner: type, data: Any, path: str = "") -> None:
    """Raise ``Problem`` for the first thing in *data* that the dataclass *owner* does not allow."""
    names = [f.name for f in settings(owner)]
    if not isinstance(data, dict):
        expected = f"expected a mapping with {', '.join(names)}" if path else "expected a mapping"
        raise Problem(path, f"is {show(data)}; {expected}")
    for key in data:
        if key not in names:
            raise Problem(under(path, key), f"unknown key{nearest(key, names)}; expected one of {', '.join(names)}")
    hints = get_type_hints(owner)
    for f in settings(owner):
        here = under(path, f.name)
        if f.name in data:
            _check(hints[f.name], data[f.name], here)
        elif f.default == "???":
            raise Problem(here, f"is missing; expected {_expected(hints[f.name])}")
        elif f.default_factory is not MISSING and is_dataclass(hints[f.name]):
            check_shape(hints[f.name], {}, here)  # a required key may be inside


def _check(hint: Any, value: Any, path: str) -> None:
    if is_dataclass(hint):
        check_shape(hint, value, path)  # type: ignore[arg-type]
        return
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise Problem(path, f"is {show(value)}; expected {_expected(hint)}")
        for i, item in enumerate(value):
            _check(get_args(hint)[0], item, f"{path}[{i}]")
        return
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise Problem(path, f"is {show(value)}; expected {_expected(hint)}")
        for key, item in value.items():
            if not isinstance(key, str):
                raise Problem(path, f"has the key {show(key)}; expected keys that are text (put it in quotes)")
            _check(get_args(hint)[1], item, under(path, key))
        return
    if hint is Any:
        _check_any(value, path)
        return
    if not _fits(hint, value):
        choices = [str(choice) for choice in _enum(hint)]
        raise Problem(path, f"is {show(value)}{nearest(str(value), choices)}; expected {_expected(hint)}")


def _check_any(value: Any, path: str) -> None:
    """What JSON can hold, because it goes into the identity: keys that are text, numbers that are finite."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Problem(path, f"has the key {show(key)}; expected keys that are text (put it in quotes)")
            _check_any(item, under(path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_any(item, f"{path}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Problem(path, f"is {value}; expected a finite number")


def _fits(hint: Any, value: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(arm, value) for arm in get_args(hint))
    if hint is type(None):
        return value is None
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return value in [str(choice) for choice in hint]
    if isinstance(value, bool):  # before int, of which Python makes it a kind; YAML reads a bare `no` as one
        return hint is bool
    if hint is bool:  # or text, here and below, as it comes from ${oc.env:...}
        return value in ("true", "false")
    if hint is str:
        return isinstance(value, (str, int, float))
    if hint is int:
        return isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value) is not None)
    if hint is float:
        return _is_finite(value)
    return isinstance(value, hint)


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, (int, float, str)) and math.isfinite(float(value))
    except ValueError:
        return False


def _enum(hint: Any) -> type[StrEnum] | tuple[()]:
    return hint if isinstance(hint, type) and issubclass(hint, StrEnum) else ()


def _expected(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join("null" if arm is type(None) else _expected(arm) for arm in get_args(hint))
    if get_origin(hint) is list:
        item = get_args(hint)[0]
        return "a list of mappings" if is_dataclass(item) else f"a list of {_PLURAL[item]}, such as [{_EXAMPLE[item]}]"
    if get_origin(hint) is dict:
        return "a mapping (key: value)"
    if _enum(hint):
        return f"one of {', '.join(_enum(hint))}"
    return {
        str: "text (in quotes if YAML would read it otherwise)",
        int: "a whole number",
        float: "a finite number",
    }.get(hint, "true or false")


_NAMES = {str: "text (in quotes if YAML would read it otherwise)", int: "a whole number", float: "a finite number"}
_PLURAL = {str: "texts", int: "whole numbers"}
_EXAMPLE = {str: "one, another", int: "64, 64"}
