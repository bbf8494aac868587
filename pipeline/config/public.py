"""A loaded config as it may be saved and shown: without secrets, and complete without its erasure lists."""

from dataclasses import is_dataclass
from typing import Any

import yaml

from pipeline.config.identity import plain
from pipeline.config.interpolation import escape
from pipeline.config.problem import under
from pipeline.config.schema import Config
from pipeline.config.sections.declare import settings


def to_public_dict(config: Config) -> dict[str, Any]:
    """Return *config* as plain containers that ``load_config`` would take again.

    What was written as ``${...}`` is written so again, and text that only looks so is escaped. Left out are
    ``output.storage_options``, whatever is in it, and ``erasure.lists``: their concepts are in ``erasure.concepts``.
    """
    escaped = {key: escape(text) for key, text in config.written.items()}
    tree: dict[str, Any] = _tree(config, "", {**escaped, **config.interpolations})
    del tree["output"]["storage_options"], tree["erasure"]["lists"]
    return tree


def to_public_yaml(config: Config) -> str:
    """Return ``to_public_dict`` as YAML, keys in the schema's order."""
    return yaml.safe_dump(to_public_dict(config), sort_keys=False, allow_unicode=True, width=120)


def _tree(value: Any, path: str, interpolations: dict[str, str]) -> Any:
    if path in interpolations:
        return interpolations[path]
    if is_dataclass(value):
        return {
            f.name: _tree(getattr(value, f.name), under(path, f.name), interpolations) for f in settings(type(value))
        }
    if isinstance(value, dict):
        return {key: _tree(item, under(path, key), interpolations) for key, item in value.items()}
    if isinstance(value, list):
        return [_tree(item, f"{path}[{i}]", interpolations) for i, item in enumerate(value)]
    return escape(value) if isinstance(value, str) and "${" in value else plain(value)
