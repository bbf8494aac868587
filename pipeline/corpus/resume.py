"""May this config go on with what lies at its output? Asked of storage alone, before any device or worker."""

from collections.abc import Sequence

from pipeline.audit.compatibility import check_detectors
from pipeline.config import SEMANTICS, identity_difference
from pipeline.config.schema import RENAMED, Config
from pipeline.corpus import layout
from pipeline.corpus.run_record import RunRecord, read_run_record
from pipeline.corpus.stores import Store
from pipeline.erasure.compatibility import check_recipe
from pipeline.errors import ConfigError
from pipeline.models.settle import as_begun
from pipeline.prompts import PlanSummary
from pipeline.version import how_to_get


def follow(config: Config, store: Store) -> Config:
    """Return *config* with each ``auto`` and the proved words as the corpus in *store* was begun with, whatever this
    machine or the cache of words would make of it; as it is where no corpus was begun."""
    record = read_run_record(store)
    return config if record is None else as_begun(config, record.identity, record.words)


def existing_run(config: Config, summary: PlanSummary, store: Store) -> RunRecord | None:
    """Return what an earlier start pinned in *store*, or ``None``.

    Raises ``ConfigError`` with the differing fields where it was begun under another identity: going on would mix two
    corpora in one folder.
    """
    record = read_run_record(store)
    return record if record is None else of_this_corpus(config, summary, record)


def of_this_corpus(config: Config, summary: PlanSummary, record: RunRecord) -> RunRecord:
    """Return *record*; ``ConfigError`` where it is of another corpus than the plan of *summary*."""
    if record.digest == summary.identity.digest:
        return record
    differing = identity_difference(record.identity, summary.identity.fields)
    if other := _other_version(record):
        # Settings come, go and change their defaults with versions: which of the two makes a difference is not known.
        others = [line for line in differing if not line.startswith("semantics:")]
        besides = f"; by its defaults or by this config it also differs in {', '.join(others)}" if others else ""
        raise ConfigError(
            f"{config.output.path}: another version of Lacuna began it, {other}{besides}); choose another output.path, "
            f"or go on with that version: {_of_that_version(record)}"
        )
    _refuse_misspelt(config, differing)
    raise ConfigError(
        f"{config.output.path}: holds another corpus ({'; '.join(differing)}); "
        "choose another output.path, or give the config that it was begun with"
    )


def _refuse_misspelt(config: Config, differing: Sequence[str]) -> None:
    """Refuse with its nearest name an option that differs because nothing has it."""
    keys = [line.partition(":")[0] for line in differing]
    if any(key.startswith("model.scheduler_options") for key in keys):
        from pipeline.models.scheduler import check_scheduler_options

        check_scheduler_options(config.model)
    if any(key.startswith("audit.") and key.endswith("options") for key in keys):
        check_detectors(config)
    if any(key.startswith("erasure.recipe") and key.endswith("options") for key in keys):
        check_recipe(config)


def check_version(path: str, record: RunRecord) -> None:
    """Raise ``ConfigError`` where this version cannot go on with the corpus at *path*, which another began."""
    if other := _other_version(record):
        raise ConfigError(
            f"{path}: another version of Lacuna began it, {other}); repair it with that version: "
            f"{_of_that_version(record)}"
        )


def _other_version(record: RunRecord) -> str:
    """Return why this version cannot go on with the corpus of *record*, with an open bracket; "" where it can."""
    theirs = record.identity.get("semantics")
    if theirs != SEMANTICS:
        return f"which drew other bytes from the same config (semantics: {theirs} -> {SEMANTICS}"
    if renamed := sorted(record.identity.keys() & RENAMED.keys()):
        return f"whose configs were others ({', '.join(f'{key} is now {RENAMED[key]}' for key in renamed)}"
    return ""


def _of_that_version(record: RunRecord) -> str:
    known = how_to_get(record.lacuna)
    if known is not None:
        return known
    version = record.lacuna.get("version")
    told = f"tells version {version} but no commit" if version else "tells neither version nor commit"
    semantics = record.identity.get("semantics")
    if semantics == SEMANTICS:
        renamed = min(record.identity.keys() & RENAMED.keys())
        return (
            f"its {layout.RUN} {told}; in a clone of Lacuna, `git log -S '\"{renamed}\": ' -- "
            "pipeline/config/schema.py` names the commit that renamed it: take the one before"
        )
    return (
        f"its {layout.RUN} {told}; in a clone of Lacuna, `git log -G '^SEMANTICS = ' -- pipeline/config/identity.py` "
        f"lists where SEMANTICS changed: take a commit that had {semantics} (here it is {SEMANTICS})"
    )
