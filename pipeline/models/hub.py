"""The hub of models and LoRAs: asked, or its cache; and a sentence of its own for each answer that gives nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, which is its client's
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pipeline.errors import ConfigError

# All that the hub's library raises. HTTPError is its client's, let through where nobody answers.
_ERRORS = (HfHubHTTPError, HFValidationError, EntryNotFoundError, OfflineModeIsEnabled, HTTPError)
_tries = logging.getLogger("huggingface_hub.utils._http")


@contextmanager
def asking_the_hub(where: str, name: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's library raises inside, which asks for *name* at *revision*, into a ``ConfigError``.

    *where* names the key and its value. What the library says of each of its tries is not shown, but for long waits.
    """
    _tries.addFilter(_is_long_wait)
    try:
        yield
    except OSError as error:  # diffusers wraps the hub's errors in plain ones
        cause = error if isinstance(error, _ERRORS) else error.__cause__
        if not isinstance(cause, _ERRORS):
            raise
        raise ConfigError(f"{where} {_reason(cause, name, revision)}") from error
    except _ERRORS as error:
        raise ConfigError(f"{where} {_reason(error, name, revision)}") from error
    finally:
        _tries.removeFilter(_is_long_wait)


def _is_long_wait(said: logging.LogRecord) -> bool:
    return said.getMessage().startswith("Rate limited")


def single_safetensors(where: str, name: str, revision: str | None) -> Path:
    """Return the one safetensors file of *name* (owner/name) on the hub, or in the local cache where the hub cannot be
    asked or does not answer. Raises ``ConfigError`` from *where*."""
    with asking_the_hub(where, name, revision):
        try:
            info = HfApi().model_info(name, revision=revision)
        except (OfflineModeIsEnabled, HTTPError) as error:
            if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
                raise
            try:
                folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
            except IncompleteSnapshotError as partial:  # other files of it; the one that is wanted may be there
                folder = Path(partial.snapshot_path)
            except LocalEntryNotFoundError:
                raise error from None
            files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")]
            return folder / _only(where, files)
        names = [f.rfilename for f in info.siblings or [] if f.rfilename.endswith(".safetensors")]
        return Path(hf_hub_download(name, _only(where, names), revision=info.sha))


def _only(where: str, names: list[str]) -> str:
    if len(names) != 1:
        raise ConfigError(f"{where} holds {len(names)} .safetensors files; download the one to use and give its path")
    return names[0]


def _reason(error: BaseException, name: str, revision: str | None) -> str:
    cached = "is not whole in the local cache" if isinstance(error, IncompleteSnapshotError) else "is not here"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, _ERRORS):
        error = error.__cause__  # why it looked into the cache, where it found nothing
    match error:
        case GatedRepoError():
            return f"is gated: accept its terms at https://huggingface.co/{name} and set HF_TOKEN"
        case DisabledRepoError():
            return "was taken off the hub by those who run it"
        case RevisionNotFoundError():
            return f"has no revision {revision!r} on the hub"
        case RepositoryNotFoundError():
            return "is not on the hub (or private: set HF_TOKEN), nor here"
        case HFValidationError():
            return "is neither here nor a hub id (owner/name)"
        case OfflineModeIsEnabled() | LocalEntryNotFoundError():
            return f"{cached}, and HF_HUB_OFFLINE keeps from asking the hub"
        case RemoteEntryNotFoundError():
            return "lacks a file on the hub that its index names"
        case HfHubHTTPError():
            return _answer(error)
    return f"{cached}, and the hub cannot be reached"


def _answer(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    match status:
        case 429:
            wait = error.response.headers.get("Retry-After")
            pause = f"{wait} s" if wait else "some minutes"
            return f"cannot be had now: the hub limits how often it is asked (429); wait {pause}, or set HF_TOKEN"
        case 401 | 403:
            return f"cannot be read: the hub does not accept HF_TOKEN for it ({status}); renew it, or its rights"
        case _ if status >= 500:
            return f"cannot be had now: the hub is out of order ({status}); try again later"
    return f"cannot be read from the hub: {str(error).splitlines()[0]}"
