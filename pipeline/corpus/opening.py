"""Which store stands behind a location, a local folder or an object store, and the two that a run writes to."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.schema import OutputConfig
from pipeline.corpus import layout
from pipeline.corpus.local import LocalStore
from pipeline.corpus.stores import Store
from pipeline.paths import Location, locate


def open_store(place: str | Location, options: Mapping[str, str] | None = None) -> Store:
    """Open what ``paths.locate`` makes of *place*; nothing is created or contacted yet.

    ``options`` are obstore's configuration keys (endpoint, region, access_key_id, ...); without them the environment
    is asked (AWS_*, GOOGLE_*, AZURE_*). Raises ``StoreError`` for an unknown scheme or option.
    """
    location = locate(place)
    if location.on_disk:
        return LocalStore(location.path)
    from pipeline.corpus.remote import ObjectStore  # obstore is for whoever has object stores

    return ObjectStore(location, dict(options or {}))


@dataclass(frozen=True)
class Output:
    """The corpus at ``path`` and the evidence beside it, opened once for all who read and write them."""

    path: str
    options: Mapping[str, str]
    store: Store
    evidence: Store

    @classmethod
    def open(cls, path: str, options: Mapping[str, str] | None = None) -> "Output":
        """Open both as ``open_store`` does."""
        return cls(path, options or {}, open_store(path, options), open_store(layout.evidence_url(path), options))

    @classmethod
    def of(cls, config: OutputConfig) -> "Output":
        """Open what a config's ``output`` names."""
        return cls.open(config.path, config.storage_options)
