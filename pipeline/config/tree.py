"""A YAML file as an untyped tree: syntax, overrides and interpolations. It knows nothing of the schema.

OmegaConf reads the text (YAML 1.2 floats such as ``1e-4``, duplicate keys refused) and resolves ``${...}``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.problem import Problem, under
from pipeline.errors import ConfigError


def read_tree(path: Path, what: str = "config") -> DictConfig:
    """Read the mapping in the YAML file *path*; ``ConfigError`` where there is none, with a syntax error's line."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; expected a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such {what} file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; expected a YAML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise ConfigError(f"{path}: is empty; expected a mapping of keys such as 'model:'")
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "plain text"
            raise ConfigError(f"{path}: is {kind} at its top level; expected a mapping of keys such as 'model:'")
        tree = OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error.problem).split())}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_reason(error)}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply to be read") from None
    assert isinstance(tree, DictConfig)
    return tree


def apply_overrides(tree: DictConfig, overrides: Sequence[str]) -> dict[str, str]:
    """Write each ``key=value`` into *tree*, in order; return key -> override. The value is YAML, as in the file."""
    applied = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise ConfigError(f"override {override!r}: expected KEY=VALUE, such as seed=1")
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
            new = value["value"]  # type: ignore[call-overload, index]
            OmegaConf.update(tree, key, new, merge=new != {})  # {} empties a mapping, others are merged into it
        except yaml.YAMLError:
            raise ConfigError(f"override {override!r}: the value is not valid YAML; put it in quotes") from None
        except IndexError:
            raise ConfigError(f"override {override!r}: {key} is past the end of the list in the file") from None
        except ValueError:
            raise ConfigError(f"override {override!r}: a list takes a number, as in erasure.concepts[0]") from None
        except OmegaConfBaseException as error:
            raise ConfigError(f"override {override!r}: {_reason(error)}") from None
        applied[key] = override
    return applied


@dataclass(frozen=True)
class Interpolated:
    """A value that was written as ``${...}``: its text in the file, and what it stood for."""

    text: str
    value: Any


def resolve(tree: DictConfig) -> tuple[dict[str, Any], dict[str, Interpolated]]:
    """Return *tree* as plain containers with every ``${...}`` resolved, and what was written so, by key path.

    Raises ``Problem`` for an interpolation that cannot be resolved, such as a variable that is not set.
    """
    interpolated: dict[str, Interpolated] = {}
    return _plain(tree, "", interpolated), interpolated


def _plain(node: Any, path: str, interpolated: dict[str, Interpolated]) -> Any:
    if not isinstance(node, (DictConfig, ListConfig)):
        return node
    keys: list[Any] = list(range(len(node))) if isinstance(node, ListConfig) else list(node.keys())
    values = []
    for key in keys:
        child = f"{path}[{key}]" if isinstance(node, ListConfig) else under(path, key)
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]
            if OmegaConf.is_interpolation(node, key):
                text = str(OmegaConf.to_container(node, resolve=False)[key])  # type: ignore[index]
                interpolated[child] = Interpolated(text, value)
        except OmegaConfBaseException as error:
            raise Problem(child, _reason(error)) from None
        values.append(_plain(value, child, interpolated))
    return values if isinstance(node, ListConfig) else dict(zip(keys, values, strict=True))


def _reason(error: Exception) -> str:
    """The first line of OmegaConf's message, without the name of the exception inside it."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return first.partition('resolving interpolation: "')[2].rstrip('"') or first
