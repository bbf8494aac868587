"""From a config to a pinned run: the model's revision, the recipe's tensors and the batch size, written once.

Whoever prepares first decides: `run.yaml` is created only if absent, and every later start, on whatever machine,
takes what it finds there and solves nothing again. Knows nothing of shards or of Ray; runs wherever there is a device.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from pipeline.audit.auditor import Auditor
from pipeline.config import to_public_dict
from pipeline.config.concepts import concepts_of
from pipeline.config.places import whole_paths
from pipeline.config.schema import BadRows, Config, Device
from pipeline.corpus import (
    RunRecord,
    Store,
    claim_evidence,
    create_run_record,
    evidence_url,
    layout,
    open_store,
)
from pipeline.corpus.evidence import write_pairs
from pipeline.corpus.resume import existing_run, of_this_corpus
from pipeline.erasure.compatibility import check_recipe
from pipeline.erasure.recipe import CompiledRecipe, active_methods, compile_recipe
from pipeline.errors import ConfigError
from pipeline.generation.batch import probe_batch_size
from pipeline.generation.engine import Engine
from pipeline.generation.environment import environment
from pipeline.models.family import Family
from pipeline.models.load import Model, load_model
from pipeline.pairs import draw_pairs
from pipeline.prompts import Looked, PlanSummary, Sample


def resolve_device(device: Device) -> str:
    """Return "cuda" or "cpu"; ``ConfigError`` where CUDA is asked for and absent."""
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError("cluster.device: cuda was asked for, but torch sees no CUDA device here; use auto or cpu")
    return device.value


def prepare(config: Config, summary: PlanSummary, *, device: str) -> RunRecord:
    """Pin the run: solve the recipe, check it, fix the batch size, write tensors and `run.yaml`.

    A run that is pinned already is returned as it is, also where another start pinned it meanwhile. Raises
    ``ConfigError`` where it is of another identity (``existing_run``).
    """
    store = open_store(config.output.path, config.output.storage_options)
    existing = existing_run(config, summary, store)
    if existing is not None:
        claim_evidence(config.output.path, existing.digest, config.output.storage_options)
        return existing
    check_recipe(config)
    torch.set_num_threads(config.cluster.threads_per_worker)
    auditor = Auditor.load(config.audit, concepts_of(config.erasure), device)  # refuses before any long work
    if auditor is not None:
        _check_sizes(config, summary.looked, auditor.check_size)
    model = load_model(config.model, torch.device(device))
    _check_sizes(config, summary.looked, model.family.latent_shape)
    _check_negative(config, summary.looked, model.family)
    recipe = compile_recipe(config, model)
    Engine(config, model, active_methods(config, model)).rehearse()  # what workers do is refused before it is pinned
    batch_size = settled_batch_size(config, model)
    revision = model.revision
    del model
    for name, data in recipe.tensors.items():
        store.write(layout.recipe(name), data)
    record = RunRecord(
        digest=summary.identity.digest,
        identity=summary.identity.fields,
        config=to_public_dict(config),
        batch_size=batch_size,
        recipe=recipe.record,
        model_revision=revision,
        detector_revision="" if auditor is None else auditor.revision,
        environment=environment(device, config.cluster.threads_per_worker),
        samples=summary.samples,
        shards=summary.shards,
        lacuna=summary.lacuna,
        paths=whole_paths(config),
        samples_per_shard=summary.samples_per_shard,
        column_schema=summary.column_schema,
    )
    pinned = of_this_corpus(config, summary, create_run_record(store, record))
    claim_evidence(config.output.path, pinned.digest, config.output.storage_options)
    return pinned


def _check_sizes(config: Config, looked: Looked, check: Callable[[int, int], object]) -> None:
    """Have *check* refuse the run's size and, under ``bad_rows: fail``, each that a row asks for."""
    check(*config.generation.pixels)
    if config.prompts.bad_rows is BadRows.skip:
        return
    for size, (where, count) in looked.sizes.items():
        try:
            check(*size)
        except ConfigError as error:
            reason = str(error).removeprefix("generation.size: ")
            raise ConfigError(
                f"prompts.source: {where}: {reason}; {count:,} of {looked.rows:,} rows ask for this size: mend them, "
                "or leave them out with `prompts.bad_rows: skip`"
            ) from error


def _check_negative(config: Config, looked: Looked, family: Family) -> None:
    """Refuse rows' own negative prompts, under ``bad_rows: fail``, where nothing would listen to them."""
    if looked.negative is None or config.prompts.bad_rows is BadRows.skip:
        return
    count = f"as {looked.negatives:,} of {looked.rows:,} rows"
    where = f"prompts.source: {looked.negative} has a negative prompt, {count}"
    ignore = "or say `prompts.columns.negative_prompt: null`"
    if "guidance" not in family.offers:
        raise ConfigError(f"{where}, but {family.name} takes none: {family.lacks['guidance']}; leave it out, {ignore}")
    if config.generation.guidance <= 1:
        raise ConfigError(
            f"{where}, but generation.guidance is {config.generation.guidance:g}, and up to 1 nothing listens to it; "
            f"raise it, {ignore}"
        )


def draw_evidence(config: Config, record: RunRecord, samples: Sequence[Sample], *, device: str) -> None:
    """Draw *samples* of a pinned run erased and unerased, and write the pairs to its evidence."""
    torch.set_num_threads(config.cluster.threads_per_worker)
    store = open_store(config.output.path, config.output.storage_options)
    auditor = pinned_auditor(config, record, device)
    # No more slots than samples: the rest of a batch would be drawn for nothing.
    sized = with_batch_size(_pinned_config(config, record), min(record.batch_size, len(samples)))
    evidence = open_store(evidence_url(config.output.path), config.output.storage_options)
    write_pairs(evidence, draw_pairs(sized, pinned_recipe(record, store), samples, auditor, device))


def settled_batch_size(config: Config, model: Model) -> int:
    """Return the config's batch size, or for "auto" the one that a probe of *model*, erased, finds."""
    size = config.generation.batch_size
    return probe_batch_size(config, model) if size == "auto" else size


def with_batch_size(config: Config, batch_size: int) -> Config:
    """Return *config* with the batch size that the run was pinned to."""
    return replace(config, generation=replace(config.generation, batch_size=batch_size))


def _pinned_config(config: Config, record: RunRecord) -> Config:
    """Return *config* with the batch size of a pinned run and, where the model is on the hub, with its commit: a
    branch may have moved on since."""
    revision = record.model_revision.partition("+")[0]
    of_folder = revision.startswith("sha256:")
    model = config.model if of_folder else replace(config.model, revision=revision)
    return with_batch_size(replace(config, model=model), record.batch_size)


def pinned_recipe(record: RunRecord, store: Store) -> CompiledRecipe:
    """Return the recipe of a pinned run, from its tensors in *store*."""
    return CompiledRecipe.from_files(record.recipe, lambda name: store.read(layout.recipe(name)))


def pinned_engine(config: Config, record: RunRecord, store: Store, device: str) -> Engine:
    """Load the engine of a pinned run: its tensors, its batch size, and its model.

    Raises ``ConfigError`` where a model's folder, or an adapter's file, has changed since the run began.
    """
    engine = Engine.load(_pinned_config(config, record), pinned_recipe(record, store), device)
    _check_revision(config, record, engine.model)
    return engine


def pinned_auditor(config: Config, record: RunRecord, device: str) -> Auditor | None:
    """Load the auditor of a pinned run; ``None`` where it has none.

    Raises ``ConfigError`` where the detector's weights are not those that looked at the pictures so far.
    """
    auditor = Auditor.load(config.audit, concepts_of(config.erasure), device)
    pinned, revision = record.detector_revision, "" if auditor is None else auditor.revision
    if pinned is not None and revision != pinned:
        raise ConfigError(
            f"audit.detector: the weights of {config.audit.detector} are now {revision or 'none'}, but the corpus was "
            f"begun with {pinned or 'none'}; put back the files that it had, or begin anew elsewhere"
        )
    return auditor


def solve_again(config: Config, record: RunRecord, device: str) -> CompiledRecipe:
    """Solve the recipe of a pinned run once more, on its model. Raises ``ConfigError`` as ``pinned_engine`` does."""
    config = _pinned_config(config, record)
    model = load_model(config.model, torch.device(device))
    _check_revision(config, record, model)
    return compile_recipe(config, model)


def _check_revision(config: Config, record: RunRecord, model: Model) -> None:
    if model.revision != record.model_revision:
        raise ConfigError(
            f"model.path: {config.model.path} is now {model.revision}, but the corpus was begun with "
            f"{record.model_revision}; put back the files of model and adapters that it had, or begin anew elsewhere"
        )
