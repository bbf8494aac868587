"""A YAML file as an untyped tree of mappings, lists and scalars that keep their text; it knows no schema."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.config.scalars import Plain
from pipeline.errors import ConfigError

MOST_EXPANDED = 1_000_000  # values, where aliases make more of them than the file has characters

_RECURSIVE = "YAML recursive aliases, which stand in what they name"
_PLAIN = "plain"
_CORE = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Reads scalars as text: ``Plain`` without quotes, ``str`` in them, or where tagged so. Builds nothing else."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and implicit[0]:
            return f"{_CORE}merge" if value == "<<" else _PLAIN
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def plain(self, node: yaml.ScalarNode) -> Plain:
        return Plain(self.construct_scalar(node))

    def sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return self.construct_sequence(node, deep=True)

    def mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "found a key that is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {key.value}", key.start_mark)
            seen.add(key.value)
        self.flatten_mapping(node)
        return {self.construct_object(key): self.construct_object(value, deep=True) for key, value in node.value}


_Loader.yaml_constructors = {
    **dict.fromkeys((_PLAIN, *(f"{_CORE}{kind}" for kind in ("int", "float", "bool", "null"))), _Loader.plain),
    f"{_CORE}str": _Loader.construct_scalar,
    f"{_CORE}seq": _Loader.sequence,
    f"{_CORE}map": _Loader.mapping,
    None: _Loader.construct_undefined,
}


def read_tree(path: Path, kind: str = "config") -> dict[str, Any]:
    """Read the mapping in the YAML file *path*; ``ConfigError`` where there is none, with a syntax error's line."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; expected a YAML file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such {kind} file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; expected a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        tree, _ = parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        what = " ".join(str(error.problem).split()).replace("found unconstructable recursive node", _RECURSIVE)
        raise ConfigError(f"{where}: not valid YAML: {what}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply to be read") from None
    if tree is None:
        raise ConfigError(f"{path}: is empty; expected a mapping of keys such as 'model:'")
    if not isinstance(tree, dict):
        found = "a list" if isinstance(tree, list) else "plain text"
        raise ConfigError(f"{path}: is {found} at its top level; expected a mapping of keys such as 'model:'")
    expanded = _values(tree, {})
    if expanded > max(MOST_EXPANDED, len(text)):
        raise ConfigError(f"{path}: its aliases (*name) stand for {expanded:,} values; expected {MOST_EXPANDED:,}")
    return tree


def parse_yaml(text: str) -> tuple[Any, str]:
    """Return what the YAML *text* holds (None: nothing), and what stands behind its end: blanks and comments.

    Raises ``yaml.YAMLError``.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return (None, text) if node is None else (loader.construct_document(node), text[node.end_mark.index :])
    finally:
        loader.dispose()


def _values(value: Any, known: dict[int, int]) -> int:
    """How many values *value* is, where each alias counts as what it stands for."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = 1 + sum(
            _values(item, known) for item in (value.values() if isinstance(value, dict) else value)
        )
    return known[id(value)]
