"""``${...}`` in a config, resolved by OmegaConf: other keys, ``${oc.env:NAME}`` and resolvers of the user's own."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from pipeline.config import scalars
from pipeline.config.problem import Problem, under
from pipeline.config.scalars import Plain
from pipeline.config.shape import arms, inner, scalar

_OPENING = re.compile(r"(\\*)\$\{")


@dataclass(frozen=True)
class Interpolated:
    """A value that was written as ``${...}``: its text in the file, and what it stood for."""

    text: str
    value: Any


def resolve(owner: type, tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Interpolated]]:
    """Return *tree*, of the shape of *owner*, with every ``${...}`` resolved, and what was written so, by key path.

    Raises ``Problem`` for one that cannot be resolved, such as a variable that is not set.
    """
    written = list(_written(tree, "", ()))
    if not written:
        return tree, {}
    for path, _, text in written:
        _parse({"text": text}, path)
    config, found = OmegaConf.create(_typed(owner, tree)), {}
    for path, keys, text in written:
        found[path] = Interpolated(text, _evaluated(config, keys, path))
    return _replaced(tree, "", found), {path: item for path, item in found.items() if is_interpolation(item.text)}


def is_interpolation(text: str) -> bool:
    """Has *text* a ``${`` that no backslash escapes?"""
    return any(len(opening[1]) % 2 == 0 for opening in _OPENING.finditer(text))


def escape(text: str) -> str:
    """Return what has to be written in a config for *text* to be read."""
    return _OPENING.sub(lambda opening: rf"{opening[1] * 2}\${{", text)


def _written(value: Any, path: str, keys: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...], str]]:
    """Yield key path, keys and text of all that has a ``${``."""
    if isinstance(value, str) and "${" in value:
        yield path, keys, str(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _written(item, under(path, key), (*keys, str(key)))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _written(item, f"{path}[{i}]", (*keys, i))


def _parse(tree: Any, path: str) -> DictConfig:
    try:
        parsed: DictConfig = OmegaConf.create(tree)
        return parsed
    except OmegaConfBaseException as error:
        raise Problem(path, _reason(error)) from None


def _typed(hint: Any, value: Any) -> Any:
    """Return *value* with its scalars typed by the fields that they fill, as another value may refer to them."""
    if isinstance(value, dict):
        return {str(key): _typed(inner(hint, key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(inner(hint, i), item) for i, item in enumerate(value)]
    if not isinstance(value, Plain) or "${" in value:
        return str(value) if isinstance(value, str) else value
    found = (scalar(arm, value) for arm in arms(hint))
    return next((value for value in found if value is not None), scalars.untyped(value))


def _evaluated(config: DictConfig, keys: tuple[Any, ...], path: str) -> Any:
    node: Any = config
    try:
        for key in keys:
            node = node[key]
        return OmegaConf.to_container(node, resolve=True) if isinstance(node, (DictConfig, ListConfig)) else node
    except OmegaConfBaseException as error:
        raise Problem(path, _reason(error)) from None


def _replaced(value: Any, path: str, found: dict[str, Interpolated]) -> Any:
    if path in found:
        return found[path].value
    if isinstance(value, dict):
        return {key: _replaced(item, under(path, key), found) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, f"{path}[{i}]", found) for i, item in enumerate(value)]
    return value


def _reason(error: Exception) -> str:
    """The first line of OmegaConf's message, without the name of the exception inside it, and what may be meant."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    reason = first.partition('resolving interpolation: "')[2].rstrip('"') or first
    if isinstance(error, GrammarParseError):
        reason = f"has a ${{ that is no reference to another value ({reason})"
    if isinstance(error, (GrammarParseError, InterpolationKeyError, UnsupportedInterpolationType)):
        reason += r"; for the characters themselves write \${ (in double quotes \\${)"
    return reason
