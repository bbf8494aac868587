"""``KEY=VALUE`` on the command line. For a text field the value is what the shell gave, to the letter; else it is YAML.

A key is written as in messages: ``erasure.concepts[0].anchor``, and in brackets where it is no plain word:
``audit.thresholds[St. Bernard]``.
"""

import re
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import is_dataclass
from typing import Any, get_origin

import yaml

from pipeline.config import scalars
from pipeline.config.problem import show, under
from pipeline.config.scalars import Plain
from pipeline.config.shape import arms, check_key, inner
from pipeline.config.tree import parse_yaml
from pipeline.errors import ConfigError

_PART = re.compile(
    r"""\.?(?P<name>[^.\[\]=]+)|\[(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<key>[^\]"'][^\]]*))\]"""
)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str], owner: type) -> dict[str, str]:
    """Write each ``key=value`` into *tree*, of the shape of *owner*, in order; return key path -> override.

    A mapping is merged into what is there, but ``{}`` empties it; its keys are told singly. Raises ``ConfigError``.
    """
    applied: dict[str, str] = {}
    for override in overrides:
        try:
            parts, text = _parts(override)
            keys, path, hint = _place(parts, owner)
            value = _value(text, hint)
            _write(tree, keys, value)
        except ConfigError as error:
            raise ConfigError(f"override {override!r}: {error}") from None
        for leaf in _leaves(value, path):
            applied.pop(leaf, None)
            applied[leaf] = override
    return applied


def overrider(path: str, applied: dict[str, str]) -> str | None:
    """Return the override that the value under the key *path* came from, or None where it is the file's."""
    found = [text for key, text in applied.items() if f"{path}.".startswith((f"{key}.", f"{key}["))]
    return found[-1] if found else None


def _parts(override: str) -> tuple[list[str], str]:
    """Split an override into the parts of its key, and its value."""
    keys, end = [], 0
    while match := _PART.match(override, end):
        if match["name"] is not None and (end == 0) == override[end:].startswith("."):
            break
        keys.append(next(part for part in match.groups() if part is not None))
        end = match.end()
    if not keys or not override[end:].startswith("=") or not all(key.strip() for key in keys):
        raise ConfigError("expected KEY=VALUE, such as seed=1")
    return keys, override[end + 1 :]


def _place(parts: Sequence[str], owner: type) -> tuple[list[str | int], str, Any]:
    """Return the keys that *parts* are, their path in messages, and the type of what stands there."""
    keys: list[str | int] = []
    path, hint = "", owner
    for i, part in enumerate(parts):
        above, outer = path, hint
        if is_dataclass(outer):
            check_key(outer, part, above)
        if any(get_origin(arm) is list for arm in arms(outer)):
            if not part.isdecimal():
                raise ConfigError(f"{above} is a list; a list takes a number, as in {above}[0]")
            keys.append(int(part))
            path = f"{above}[{part}]"
        else:
            keys.append(part)
            path = under(above, part)
        hint = inner(outer, keys[-1])
        if i + 1 < len(parts) and not any(map(_holds_keys, arms(hint))):
            if get_origin(outer) is dict:
                raise ConfigError(f"a name with a dot stands in brackets: {above}[{'.'.join(parts[i:])}]=...")
            raise ConfigError(f"{path} holds no further keys")
    return keys, path, hint


def _holds_keys(kind: Any) -> bool:
    return kind is Any or is_dataclass(kind) or get_origin(kind) in (list, dict)


def _value(text: str, hint: Any) -> Any:
    """Read the value of an override for a field of type *hint*."""
    kinds = arms(hint)
    of_lists = any(get_origin(kind) is list for kind in kinds) and text.lstrip().startswith("[")
    if str in kinds and not of_lists:
        return None if type(None) in kinds and scalars.is_null(Plain(text)) else text
    try:
        value, rest = parse_yaml(text)
    except yaml.YAMLError:
        raise ConfigError("the value is not valid YAML; put it in quotes") from None
    except RecursionError:
        raise ConfigError("the value is nested too deeply") from None
    if rest.strip():
        raise ConfigError(
            "`#` begins a comment in YAML, which cuts the value off; put it in quotes, within the shell's"
        )
    return value


def _write(tree: dict[str, Any], keys: Sequence[str | int], value: Any) -> None:
    node: Any = tree
    for i, key in enumerate(keys):
        where = ".".join(map(str, keys[:i]))
        if isinstance(node, list):
            key = _index(key, node, where)
        elif not isinstance(node, dict):
            raise ConfigError(f"{where} is {show(node)} in the file, and holds no further keys")
        if i + 1 < len(keys):
            if isinstance(node, dict) and scalars.is_null(node.get(key)):
                node[key] = [] if isinstance(keys[i + 1], int) else {}
            node[key] = copy(node[key])  # by an alias (*name) it may stand elsewhere too
            node = node[key]
        elif isinstance(value, dict) and value and isinstance(node, dict) and isinstance(node.get(key), dict):
            node[key] = _merged(node[key], value)
        else:
            node[key] = value


def _index(key: str | int, node: list[Any], where: str) -> int:
    if not str(key).isdecimal():
        raise ConfigError(f"{where} is a list; a list takes a number, as in {where}[0]")
    if int(key) >= len(node):
        raise ConfigError(f"{where}[{key}] is past the end of the list in the file, which has {len(node)}")
    return int(key)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, item in new.items():
        both = isinstance(item, dict) and item and isinstance(old.get(key), dict)
        merged[key] = _merged(old[key], item) if both else item
    return merged


def _leaves(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, under(path, key))
    else:
        yield path
