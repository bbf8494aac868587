"""Which store stands behind a location: a local folder or an object store."""

from collections.abc import Mapping

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
