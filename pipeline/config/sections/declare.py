"""How a setting is declared: as ``identity`` (it changes the bytes of the corpus, so a resume under another value is
refused) or as ``operational`` (it may change between a run and its resume).

There is no third kind and no default class: a field without one is an error, which ``tests/config`` holds.
"""

from dataclasses import MISSING, Field, field, fields
from typing import Any


def identity(default: Any = ..., *, factory: Any = None, silent: bool = False) -> Any:
    """Declare a field that changes the bytes of the corpus. A *silent* one is no part of the identity where it has its
    default: corpora that were begun before there was such a field are the same as those that do without it."""
    return _declare(True, default, factory, silent)


def operational(default: Any = ..., *, factory: Any = None) -> Any:
    """Declare a field that may differ between a run and its resume."""
    return _declare(False, default, factory)


def section(kind: type) -> Any:
    """Declare a mapping of further fields; each of those has a class of its own, the section has none."""
    return field(default_factory=kind, metadata={})


def _declare(is_identity: bool, default: Any, factory: Any, silent: bool = False) -> Any:
    metadata = {"identity": is_identity, "silent": silent}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    if default is ...:
        return field(default="???", metadata=metadata)  # "must be given"
    return field(default=default, metadata=metadata)


def default(of: Field[Any]) -> Any:
    """Return the default of a field that has one."""
    return of.default if of.default_factory is MISSING else of.default_factory()


def settings(owner: type) -> list[Field[Any]]:
    """Return the fields of the dataclass *owner* that a config may set."""
    return [f for f in fields(owner) if not f.metadata.get("no_setting")]
