"""What all who draw with a config share, opened once: device, stores, auditor and model; and the run that it pins.

Whoever prepares first decides: `run.yaml` is created only if absent, and every later start, on whatever machine,
takes what it finds there and solves nothing again. Knows nothing of shards or of Ray; runs wherever there is a device.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pipeline.audit.auditor import Auditor
from pipeline.audit.quality import Quality
from pipeline.config import to_public_dict
from pipeline.config.concepts import concepts_of
from pipeline.config.places import whole_paths
from pipeline.config.schema import BadRows, Config, Device
from pipeline.config.sections.generation import AUTO, Compile, Quantize
from pipeline.corpus import (
    Output,
    RunRecord,
    claim_evidence,
    create_run_record,
    layout,
    read_run_record,
)
from pipeline.corpus.compiled import PinnedCode
from pipeline.corpus.manifest import NO_COLUMNS, check_quality
from pipeline.corpus.resume import existing_run, of_this_corpus
from pipeline.corpus.words import pinned_words
from pipeline.erasure.compatibility import check_recipe
from pipeline.erasure.method import Method
from pipeline.erasure.recipe import CompiledRecipe, active_methods, compile_recipe
from pipeline.erasure.tensors import apply_tensors
from pipeline.erasure.trained import Trained, read_trained
from pipeline.errors import ConfigError
from pipeline.generation.batch import probe_batch_size
from pipeline.generation.compilation import Artifacts, Compilation, release
from pipeline.generation.engine import Engine
from pipeline.generation.environment import environment
from pipeline.models.compiling import check_compiler
from pipeline.models.family import Family
from pipeline.models.kernels import check_kernels_here, install_attention
from pipeline.models.load import Model, load_model
from pipeline.models.quantize import quantize_denoiser
from pipeline.prompts import Looked, PlanSummary

log = logging.getLogger(__name__)


def resolve_device(device: Device) -> str:
    """Return "cuda" or "cpu"; ``ConfigError`` where CUDA is asked for and absent."""
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.cuda and not torch.cuda.is_available():
        raise ConfigError("cluster.device: cuda was asked for, but torch sees no CUDA device here; use auto or cpu")
    return device.value


class Session:
    """One config at work in one process: each part is opened when it is first asked for, and once.

    The model is in memory once. It is edited and unedited in place, so of its engines only the newest can be used.
    """

    def __init__(
        self,
        config: Config,
        *,
        device: str | None = None,
        output: Output | None = None,
        say: Callable[[str], object] = lambda line: None,
    ):
        """*device* ("cuda", "cpu") is by default the config's (``resolve_device``), *output* opened here; *say* is told
        what is compiled."""
        self.config = config
        self.device = device or resolve_device(config.cluster.device)
        self.say = say
        self.output = output or Output.of(config.output)
        self.concepts = concepts_of(config.erasure)
        torch.set_num_threads(config.cluster.threads_per_worker)
        self._pinned: RunRecord | None = None
        self._checked: RunRecord | None = None  # whose detectors are found to be these
        self._model: Model | None = None
        self._originals: dict[str, Tensor] = {}  # of the weights that an edit has written over
        self._compiled: Compilation | None = None  # the last one

    @property
    def auditor(self) -> Auditor | None:
        """What the config's audit looks with, or None where it asks for none.

        Raises ``ConfigError`` where it cannot judge the list, and where other detectors looked at the pictures of the
        run that this session goes on with.
        """
        if self._pinned is not None and self._auditor is not None and self._checked is not self._pinned:
            self._auditor.check(self._pinned.detectors)
            self._checked = self._pinned
        return self._auditor

    @cached_property
    def _auditor(self) -> Auditor | None:
        return Auditor.load(self.config.audit, self.concepts, self.device)

    @property
    def quality(self) -> Quality | None:
        """What the config's quality columns are measured with, or None where it asks for none.

        Raises ``ConfigError`` where it cannot, and where others measured the pictures of the run that this session goes
        on with.
        """
        if self._pinned is not None and self._quality is not None:
            self._quality.check(self._pinned.quality)
        return self._quality

    @cached_property
    def _quality(self) -> Quality | None:
        quality = Quality.load(self.config.audit.quality, self.device)
        if quality is not None:
            check_quality(quality.schema)
        return quality

    @property
    def model(self) -> Model:
        """The model, edited as it was left by whoever drew or solved last.

        Raises ``ConfigError`` as ``load_model`` does, where the kernels that are asked for cannot run here, and where a
        folder or an adapter has changed since the run that this session goes on with began.
        """
        if self._model is None:
            check_kernels_here(self.config, self.device)
            model = load_model(self.config.model, torch.device(self.device))
            install_attention(self.config.generation.attention, model)
            if self._pinned is not None and model.revision != self._pinned.model_revision:
                raise ConfigError(
                    f"model.path: {self.config.model.path} is now {model.revision}, but the corpus was begun with "
                    f"{self._pinned.model_revision}; put back the files of model and adapters that it had, or begin "
                    "anew elsewhere"
                )
            self._model = model
        return self._model

    def compile(self, trained: Trained = read_trained) -> CompiledRecipe:
        """Solve the recipe (``compile_recipe``) on the unedited model."""
        apply_tensors(self.model, self._originals)
        return compile_recipe(self.config, self.model, trained, self._originals)

    def engine(
        self,
        recipe: CompiledRecipe | None,
        *,
        batch_size: int | None = None,
        last: bool = False,
        compiled: bool = False,
        artifacts: Artifacts | None = None,
    ) -> Engine:
        """Put *recipe* to work in the model; ``None`` is the model as it is.

        *batch_size* is by default the config's. The *last* engine takes the model with it: what it writes over is not
        kept, and whoever asks after it has the model loaded again. So does each whose weights are quantized, as no
        edit can be taken back then. It is *compiled* as the config says, with *artifacts* where it is for a corpus, or
        not at all.

        Raises ``ConfigError`` where that cannot be compiled here.
        """
        model, quantize = self.model, self.config.generation.quantize
        last = last or quantize is not Quantize.none
        release(model)
        apply_tensors(model, self._originals)
        if last:
            self._model, self._originals = None, {}
        methods: list[Method] = []
        if recipe is not None:
            recipe.apply(model, None if last else self._originals)
            methods = active_methods(self.config, model)
        quantize_denoiser(model.family.denoiser, quantize)
        config = self.config if batch_size is None else with_batch_size(self.config, batch_size)
        return Engine(config, model, methods, self._compilation(model, artifacts) if compiled else None)

    def _compilation(self, model: Model, artifacts: Artifacts | None) -> Compilation | None:
        compile = self.config.generation.compile
        check_compiler(compile, self.device)
        if compile is Compile.none:
            return None
        self._compiled = Compilation(model, compile, artifacts, self.say, earlier=self._compiled)
        return self._compiled

    def artifacts(self, identity: str, *, accept_environment: bool = False) -> PinnedCode:
        """Return the compiled code that is pinned in the corpus of *identity*, for this environment."""
        return PinnedCode(self.output.store, identity, self.environment(), accept_environment=accept_environment)

    def environment(self) -> dict[str, Any]:
        """Return the environment in which this session draws."""
        return environment(self.device, self.config.cluster.threads_per_worker, self.config.generation)

    def compile_ahead(self, recipe: CompiledRecipe, summary: PlanSummary, *, accept_environment: bool) -> None:
        """Pin compiled code for the corpus of *summary*, so that its workers load it.

        Raises ``ConfigError`` where it cannot be compiled, and where what an earlier start has pinned does not load,
        unless another environment is accepted.
        """
        if self.config.generation.compile is not Compile.none:
            sizes = self.sizes(summary.looked)
            artifacts = self.artifacts(summary.identity.digest, accept_environment=accept_environment)
            self.warm_up(self.engine(recipe, compiled=True, artifacts=artifacts), sizes)

    def warm_up(self, engine: Engine, sizes: Sequence[tuple[int, int]]) -> None:
        """Have compiled what batches of *sizes* come to, as far as there is time for it: half of what loading may take.

        Raises ``ConfigError`` as ``Engine.warm_up`` does.
        """
        engine.warm_up(sizes, self.config.cluster.load_timeout / 2)

    def sizes(self, looked: Looked) -> list[tuple[int, int]]:
        """Return the sizes, width and height, that will be drawn, as far as rows were *looked* at, those of most rows
        first."""
        found = self._sizes(looked)
        return sorted(found, key=lambda size: found[size], reverse=True)

    def settle_batch_size(self, summary: PlanSummary) -> int:
        """Fix the config's batch size for the plan of *summary*: "auto" is what the corpus was begun with, or else what
        a probe of the model finds, erased as it is now, for the largest pictures that rows ask for."""
        given = self.config.generation.batch_size
        begun = read_run_record(self.output.store) if given == AUTO else None
        size: int = begun.batch_size if begun else self._probe_batch_size(summary) if given == AUTO else given
        self.config = with_batch_size(self.config, size)
        return size

    def _probe_batch_size(self, summary: PlanSummary) -> int:
        sizes = self._sizes(summary.looked)
        largest, rows = max(sizes, key=math.prod), sum(sizes.values())
        pictures = min(summary.samples, summary.samples_per_shard)
        each = [math.ceil(pictures * count / rows) for count in sizes.values()]
        size = probe_batch_size(self.config, self.model, each, largest)
        log.info("generation.batch_size: auto is %d for %dx%d pixels on %s", size, *largest, self.device)
        return size

    def _sizes(self, looked: Looked) -> dict[tuple[int, int], int]:
        """Return the sizes, width and height, that will be drawn, and of how many rows, as far as they are looked at:
        those that rows ask for and, where a row asks for none or cannot be drawn, the run's."""
        sizes = {size: count for size, (_, count) in looked.sizes.items() if self._can_draw(*size)}
        if others := max(looked.rows, 1) - sum(sizes.values()):
            own = self.config.generation.pixels
            sizes[own] = sizes.get(own, 0) + others
        return sizes

    def _can_draw(self, width: int, height: int) -> bool:
        """Whether rows of this size are no bad ones, as under `prompts.bad_rows: skip` they may be."""
        try:
            self.model.family.latent_shape(width, height)
            if self.auditor is not None:
                self.auditor.check_size(width, height)
        except ConfigError:
            return False
        return True

    def pin(self, record: RunRecord) -> None:
        """Go on as the run of *record* was begun: with its batch size and, where the model is on the hub, with its
        commit: a branch may have moved on since."""
        revision = record.model_revision.partition("+")[0]
        of_folder = revision.startswith("sha256:")
        model = self.config.model if of_folder else replace(self.config.model, revision=revision)
        self.config = with_batch_size(replace(self.config, model=model), record.batch_size)
        self._pinned = record
        if self._model is not None and self._model.revision != record.model_revision:
            self._model, self._originals = None, {}

    def pinned_recipe(self, record: RunRecord) -> CompiledRecipe:
        """Return the recipe of a pinned run, from its tensors in the corpus."""
        return CompiledRecipe.from_files(record.recipe, lambda name: self.output.store.read(layout.recipe(name)))


def prepare(session: Session, summary: PlanSummary, *, accept_environment: bool = False) -> RunRecord:
    """Pin the run: solve the recipe, check it, fix the batch size, compile, write tensors and `run.yaml`.

    A run that is pinned already is returned as it is, also where another start pinned it meanwhile. Raises
    ``ConfigError`` where it is of another identity (``existing_run``).
    """
    config, output = session.config, session.output
    existing = existing_run(config, summary, output.store)
    if existing is not None:
        claim_evidence(output, existing.digest)
        session.pin(existing)
        return existing
    check_recipe(config)
    check_compiler(config.generation.compile, session.device)
    check_kernels_here(config, session.device)
    if session.auditor is not None:  # refuses before any long work
        _check_sizes(config, summary.looked, session.auditor.check_size)
    quality = session.quality  # likewise
    _check_sizes(config, summary.looked, session.model.family.latent_shape)
    _check_negative(config, summary.looked, session.model.family)
    recipe = session.compile()
    methods = active_methods(config, session.model)
    Engine(config, session.model, methods).rehearse()  # what workers do is refused before it is pinned
    batch_size = session.settle_batch_size(summary)
    session.compile_ahead(recipe, summary, accept_environment=accept_environment)
    for name, data in recipe.tensors.items():
        output.store.write(layout.recipe(name), data)
    words = pinned_words(config.proved)
    if config.proved is not None:
        output.store.write(words["file"], config.proved.table)
    record = RunRecord(
        digest=summary.identity.digest,
        identity=summary.identity.fields,
        config=to_public_dict(config),
        batch_size=batch_size,
        recipe=recipe.record,
        model_revision=session.model.revision,
        detectors=[] if session.auditor is None else session.auditor.pinned(),
        quality=[] if quality is None else quality.pinned(),
        words=words,
        environment=session.environment(),
        samples=summary.samples,
        shards=summary.shards,
        lacuna=summary.lacuna,
        paths=whole_paths(config),
        samples_per_shard=summary.samples_per_shard,
        column_schema=summary.column_schema,
        quality_schema=NO_COLUMNS if quality is None else quality.schema,
    )
    pinned = of_this_corpus(config, summary, create_run_record(output.store, record))
    claim_evidence(output, pinned.digest)
    session.pin(pinned)
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


def with_batch_size(config: Config, batch_size: int) -> Config:
    """Return *config* with the batch size that the run was pinned to."""
    return replace(config, generation=replace(config.generation, batch_size=batch_size))
