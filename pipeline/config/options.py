"""The options of a method, a detector or a source: a mapping in the config, held to what its class takes."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import fields, make_dataclass
from typing import Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import ConfigError, nearest


def read_options(where: str, name: str, options_class: type, values: Mapping[str, Any]) -> Any:
    """Build *options_class* from a config's mapping; ``ConfigError`` names the bad key, type or value.

    A key that the class lists in ``RENAMED`` is refused with its new name.
    """
    known = [f.name for f in fields(options_class)]
    renamed: Mapping[str, str] = getattr(options_class, "RENAMED", {})
    for key in values:
        if key in renamed:
            raise ConfigError(f"{where}.{key}: is now {renamed[key]}; expected it there")
    _check_keys(where, name, values, known)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(options_class), OmegaConf.create(dict(values)))
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, ConfigError):  # from the options' own __post_init__
            raise ConfigError(f"{where}: {error.__cause__}") from error
        key = f".{error.full_key}" if getattr(error, "full_key", None) else ""
        raise ConfigError(f"{where}{key}: {str(error).splitlines()[0]}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def read_keywords(where: str, name: str, owner: type, given: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's mapping as keywords for the constructor of *owner*, whose first *given* parameters are others.

    ``ConfigError`` names a key that it does not take or lacks, or a value of another type than it is annotated with;
    annotations of which a config knows nothing, such as Mapping, are not checked.
    """
    parameters = list(inspect.signature(owner).parameters.values())[given:]
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        _check_keys(where, name, values, named)
    for parameter in named.values():
        if parameter.default is parameter.empty and parameter.name not in values:
            raise ConfigError(f"{where}.{parameter.name}: is missing, and {name} needs it")
    hints = _hints(owner)
    types = {key: hints[key] for key in values if key in named and key in hints and _is_known(hints[key])}
    read = read_options(where, name, make_dataclass("Options", types.items()), {key: values[key] for key in types})
    return {**values, **vars(read)}


def _check_keys(where: str, name: str, values: Mapping[str, Any], known: Collection[str]) -> None:
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}.{key}: {name} has no such option{nearest(key, known)}; it has {', '.join(known) or 'none'}"
            )


def _hints(owner: type) -> dict[str, Any]:
    try:
        return get_type_hints(owner.__init__)  # type: ignore[misc]
    except NameError:  # of what is imported for type checkers alone
        return {}


def _is_known(annotation: Any) -> bool:
    """Is it a type that a config's values can be held to?"""
    try:
        OmegaConf.structured(make_dataclass("Options", [("value", annotation)]))
    except OmegaConfBaseException:
        return False
    return True
