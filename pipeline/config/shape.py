"""From an untyped tree to the schema's dataclasses; unknown keys, missing ones and wrong types are refused.

It is written out, and not left to OmegaConf, for two things: scalars are typed by the field that they fill
(``scalars``), and a refusal names the whole key, what was expected and the nearest valid name.
"""

import math
import types
from dataclasses import MISSING, Field, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pipeline.config import scalars
from pipeline.config.problem import Problem, show, under
from pipeline.config.scalars import Plain
from pipeline.config.schema import RENAMED
from pipeline.config.sections.declare import settings
from pipeline.errors import nearest

T = TypeVar("T")


def build(owner: type[T], data: Any, path: str = "") -> T:
    """Return *data* as the dataclass *owner*; ``Problem`` for the first thing in it that *owner* does not allow.

    Where *owner* says so (``BY_NAME``), a text stands for a mapping with that key alone.
    """
    if (by_name := getattr(owner, "BY_NAME", None)) and scalars.text(data) is not None:
        data = {by_name: data}
    if not isinstance(data, dict):
        names = ", ".join(f.name for f in settings(owner))
        raise Problem(path, f"is {show(data)}; expected a mapping{f' with {names}' if path else ''}")
    for key in data:
        check_key(owner, key, path)
    hints = get_type_hints(owner)
    values = {}
    for f in settings(owner):
        here = under(path, f.name)
        if f.name in data:
            values[f.name] = _value(hints[f.name], data[f.name], here)
        elif _is_required(f):
            raise Problem(here, f"is missing; expected {_expected(hints[f.name])}")
        elif is_dataclass(hints[f.name]) and f.default_factory is hints[f.name]:
            values[f.name] = build(hints[f.name], {}, here)  # a required key may be inside
    return owner(**values)


def check_key(owner: type, key: str, path: str) -> None:
    """Raise ``Problem`` where the dataclass *owner*, at *path*, has no setting *key*."""
    names = [f.name for f in settings(owner)]
    if under(path, key) in RENAMED:
        raise Problem(under(path, key), f"is now {RENAMED[under(path, key)]}; expected it there")
    if key not in names:
        raise Problem(under(path, key), f"unknown key{nearest(key, names)}; expected one of {', '.join(names)}")


def inner(hint: Any, key: object) -> Any:
    """Return the type of what stands under *key* in a value of type *hint*: Any where it may be anything."""
    if is_dataclass(hint) and isinstance(hint, type):
        return get_type_hints(hint).get(str(key), Any)
    for arm in arms(hint):
        if get_origin(arm) is list and isinstance(key, int):
            return get_args(arm)[0]
        if get_origin(arm) is dict:
            return get_args(arm)[1]
    return Any


def arms(hint: Any) -> tuple[Any, ...]:
    """Return the types of which *hint* is a union, or itself alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_required(f: Field[Any]) -> bool:
    return f.default == "???" or (f.default is MISSING and f.default_factory is MISSING)


def _value(hint: Any, value: Any, path: str) -> Any:
    for arm in arms(hint):
        if is_dataclass(arm):
            return build(arm, value, path)  # type: ignore[arg-type]
        if get_origin(arm) is list and isinstance(value, list):
            return [_value(get_args(arm)[0], item, f"{path}[{i}]") for i, item in enumerate(value)]
        if get_origin(arm) is dict and isinstance(value, dict):
            return {_key(key, path): _value(get_args(arm)[1], item, under(path, key)) for key, item in value.items()}
        if arm is Any:
            return _anything(value, path)
        if arm is type(None) and scalars.is_null(value):
            return None
        if (found := scalar(arm, value)) is not None:
            return found
    choices = [str(choice) for arm in arms(hint) for choice in _enum(arm)]
    raise Problem(
        path, f"is {show(value)}{nearest(str(value), choices)}; expected {_expected(hint)}{_quoted(hint, value)}"
    )


def scalar(kind: Any, value: Any) -> Any:
    """Return *value* as *kind*, or None where it is no such thing."""
    if kind is str:
        return scalars.text(value)
    if kind is int:
        return scalars.whole(value)
    if kind is float:
        return scalars.number(value)
    if kind is bool:
        return scalars.truth(value)
    return kind(str(value)) if isinstance(value, str) and value in [str(choice) for choice in _enum(kind)] else None


def _key(key: str, path: str) -> str:
    found = scalars.text(key)
    if found is None:
        raise Problem(path, f"has the key {show(key)}; expected keys that are text{_quoted(str, key)}")
    return found


def _anything(value: Any, path: str) -> Any:
    """What JSON can hold, because it goes into the identity: keys that are text, numbers that are finite."""
    value = scalars.untyped(value)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(scalars.untyped(key), str):
                raise Problem(path, f"has the key {show(key)}; expected keys that are text{_quoted(str, key)}")
        return {str(key): _anything(item, under(path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_anything(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise Problem(path, f"is {value}; expected a finite number")
    return value


def _quoted(hint: Any, value: Any) -> str:
    """Say how to write *value* where text is expected, and YAML reads it otherwise."""
    return f" (put it in quotes: '{value}')" if str in arms(hint) and isinstance(value, Plain) and value else ""


def _enum(hint: Any) -> type[StrEnum] | tuple[()]:
    return hint if isinstance(hint, type) and issubclass(hint, StrEnum) else ()


def _expected(hint: Any) -> str:
    if len(arms(hint)) > 1:
        return " or ".join("null" if arm is type(None) else _expected(arm) for arm in arms(hint))
    if get_origin(hint) is list:
        item = get_args(hint)[0]
        return (
            _MAPPINGS[hasattr(item, "BY_NAME")]
            if is_dataclass(item)
            else f"a list of {_PLURAL[item]}, such as [{_EXAMPLE[item]}]"
        )
    if get_origin(hint) is dict:
        return "a mapping (key: value)"
    if _enum(hint):
        return f"one of {', '.join(_enum(hint))}"
    return {str: "text", int: "a whole number", float: "a finite number"}.get(hint, "true or false")


_MAPPINGS = {False: "a list of mappings", True: "a list of names or mappings"}
_PLURAL = {str: "texts", int: "whole numbers"}
_EXAMPLE = {str: "one, another", int: "64, 64"}
