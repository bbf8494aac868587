"""Arguments that a user may get wrong, refused in a line."""

from collections.abc import Sequence

from pipeline.errors import ConfigError, nearest


def expect_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}; expected a whole number, {least} or more")


def expect_one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}{nearest(str(value), choices)}; expected one of {', '.join(choices)}")
