"""Which source a config asks for. Each format is a module of its own, imported only where it is used."""

from glob import has_magic
from pathlib import Path

from pipeline.config.schema import PromptsConfig
from pipeline.errors import ConfigError, nearest
from pipeline.prompts.source import RowSource
from pipeline.registry import SOURCES, is_class_name, load_function


def open_source(prompts: PromptsConfig) -> RowSource:
    """Open the prompts of a loaded config. Raises ``ConfigError`` for a source that is missing or cannot be used."""
    if prompts.template is not None:
        from pipeline.prompts.template import TemplateSource

        return TemplateSource(prompts.template, prompts.values)
    assert prompts.source is not None  # held by validate_static
    if is_class_name(prompts.source):
        from pipeline.prompts.own import OwnRows

        return OwnRows.open(prompts)
    if prompts.source.startswith("hf://"):
        from pipeline.prompts.huggingface import HubSource

        return HubSource.from_hub(prompts)
    local = "://" not in prompts.source
    path = Path(prompts.source if local else prompts.source.partition("?")[0])  # behind it are options of Arrow's
    suffix = path.suffix.lower()
    zipped = suffix == ".gz"
    if zipped:
        suffix = path.with_suffix("").suffix.lower()
    if suffix not in SOURCES or (zipped and suffix == ".parquet"):
        if local and path.is_dir():
            from pipeline.prompts.huggingface import HubSource

            return HubSource.from_folder(path, prompts)
        known, shown = ", ".join(SOURCES), suffix + ".gz" * zipped
        raise ConfigError(
            f"prompts.source: {prompts.source} has the suffix {shown!r}{nearest(shown, SOURCES)}; expected one of "
            f"{known} (text also with .gz behind it), a folder saved by HF datasets, hf://NAME or module:Class"
        )
    if suffix != ".parquet":
        if not local:
            raise ConfigError(f"prompts.source: {prompts.source}: only .parquet is read remotely; download it")
        if path.is_dir():
            raise ConfigError(f"prompts.source: {prompts.source} is a folder; expected a file")
    if local and not path.exists() and not has_magic(prompts.source):
        near = nearest(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise ConfigError(f"prompts.source: {prompts.source}: no such file{near}")
    try:
        found: RowSource = load_function("format of prompts", suffix, SOURCES)(prompts)
        return found
    except OSError as error:
        raise ConfigError(f"prompts.source: {prompts.source}: {error.strerror or error}") from error
