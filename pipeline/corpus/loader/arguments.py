"""Arguments that a user may get wrong, refused in a line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import ConfigError, nearest

SHOWN = 80  # characters of what was given


def shown(value: object) -> str:
    """Return *value* as it is shown in a message: on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def expect_number(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}; expected a whole number")


def expect_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {shown(value)}; expected a whole number, {least} or more")


def expect_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}; expected True or False")


def expect_one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(
            f"{name} is {shown(value)}{nearest(str(value), choices)}; expected one of {', '.join(choices)}"
        )


def expect_folder(name: str, value: object) -> None:
    if not isinstance(value, (str, Path)):
        raise ConfigError(f"{name} is {shown(value)}; expected the name of a folder")


def expect_options(options: object) -> None:
    """Of an object store; what they hold is not shown."""
    told = isinstance(options, Mapping) and all(isinstance(text, str) for pair in options.items() for text in pair)
    if options is not None and not told:
        raise ConfigError("options: expected a dict of texts, such as {'region': 'eu-west-1'}")
