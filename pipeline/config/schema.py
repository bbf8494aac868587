"""The typed shape of a config: every key, its type and default, and whether it changes the bytes of the corpus.

The sections ``generation`` and ``audit`` are in ``sections/``, where ``declare.py`` tells how a setting is declared.
"""

# ruff: noqa: RUF009 (identity() and operational() are dataclasses.field with a class)

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.concepts.term import Kind
from pipeline.config.sections.audit import AuditConfig
from pipeline.config.sections.declare import identity, operational, section
from pipeline.config.sections.generation import GenerationConfig


class DType(StrEnum):
    auto = "auto"  # what the device does fast; settled before the identity is computed (pipeline.models.settle)
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class BadRows(StrEnum):
    """What becomes of a source's rows that cannot be drawn, such as one with a blank prompt."""

    fail = "fail"  # the plan is refused; one that is met only while drawing becomes a failed row, and the run exits 1
    skip = "skip"  # each becomes a failed row of the manifest


class Audited(StrEnum):
    """Who judges a concept."""

    detectors = "detectors"  # those that know it
    none = "none"  # nobody: card and report say so


class ImageFormat(StrEnum):
    jpg = "jpg"
    png = "png"
    webp = "webp"
    webp_lossless = "webp-lossless"


class Backend(StrEnum):
    ray = "ray"
    local = "local"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(kw_only=True)
class AdapterConfig:
    """A LoRA of the user's own, folded into the model before any erasure."""

    path: str = identity()
    weight: float = identity(1.0)
    revision: str | None = identity(None)


@dataclass(kw_only=True)
class ModelConfig:
    path: str = identity()  # "diorama", a hub id or a local folder
    revision: str | None = identity(None)
    family: str | None = identity(None, silent=True)  # module:Class, for pipelines that Lacuna knows no family of
    variant: str | None = identity(None)
    dtype: DType = identity(DType.float32)  # where a file says nothing: auto
    scheduler: str | None = identity(None)  # a diffusers scheduler class; default: the model's own
    scheduler_options: dict[str, Any] = identity(factory=dict)  # its class's own, and eta (0 to 1) of DDIM and TCD
    adapters: list[AdapterConfig] = identity(factory=list)


@dataclass(kw_only=True)
class ConceptConfig:
    name: str = identity()
    aliases: list[str] = identity(factory=list)
    anchor: str = identity("")
    preserve: list[str] = identity(factory=list)
    keep: list[str] = identity(factory=list)  # phrases with one of its words that mean something else: hot dog
    proven: list[str] = identity(factory=list)  # words that draw it, as `lacuna words --prove` found
    implied: list[str] = identity(factory=list)  # words that draw it now and then; likewise
    ignore: list[str] = identity(factory=list)  # words that are to be neither, whatever they draw
    everywhere: bool = identity(False)  # it has no place in a picture but is all over it, as a style is
    kind: Kind = identity(Kind.object)  # how it can be seen; a style is everywhere
    # Pictures that show it, for detectors that go by them. Of these the content is in the identity, not the place.
    references: list[str] = identity(factory=list)
    audit: Audited = identity(Audited.detectors)


@dataclass(kw_only=True)
class StepConfig:
    """One method of the recipe; steps are applied in order."""

    method: str = identity()
    concepts: str | list[str] = identity("all")  # "all" or a list of concept names
    options: dict[str, Any] = identity(factory=dict)


@dataclass(kw_only=True)
class ErasureConfig:
    lists: list[str] = operational(factory=list)  # YAML files with `concepts:`
    concepts: list[ConceptConfig] = identity(factory=list)
    recipe: list[StepConfig] = identity(factory=list)
    finetuned: str = operational("out/finetuned")  # folder of what `lacuna finetune` made, relative to where you stand


@dataclass(kw_only=True)
class PromptsConfig:
    # .txt .jsonl .json .csv .tsv (path or glob, also .gz), .parquet (path, glob or URL), a folder of HF datasets,
    # hf://NAME[:config][@revision], or module:Class (pipeline/EXTENDING.md).
    # Operational, because where the prompts lie changes nothing: their content is in the identity as a fingerprint.
    source: str | None = operational(None)
    options: dict[str, Any] = operational(factory=dict)  # of a source that is module:Class
    template: str | None = identity(None)  # "a {animal} {place}", instead of a source
    values: dict[str, list[str]] = identity(factory=dict)  # the lists that fill the template's fields
    split: str = identity("train")  # of an HF dataset
    # Which column means what: prompt, seed, negative_prompt, size, width and height are names of columns or null, pass
    # is `all` or the list of those that go on to the manifest. Once it is given nothing else steers; without it columns
    # of these six names do (pipeline/prompts/README.md).
    columns: dict[str, str | list[str] | None] = identity(factory=dict)
    # Operational: of what is drawn no byte depends on it. A bad row is the same failed row under both, so that a corpus
    # which `fail` refuses to begin can be begun, or gone on with, under `skip`.
    bad_rows: BadRows = operational(BadRows.fail)
    images_per_prompt: int = identity(1)
    limit: int | None = identity(None)  # use only the first rows
    shuffle: bool = identity(False)


VOCABULARIES = ("builtin", "prompts")


@dataclass(kw_only=True)
class WordsConfig:
    """What words draw, as ``lacuna words --prove`` found it, and what a gate makes of words that nobody listed. What a
    run takes from the former is written into the concepts, and so is in the identity."""

    vocabulary: str = operational("builtin")  # builtin, prompts (this config's), or a text file with a word a line
    cache: str = operational("out/words")  # folder or URL of the pictures, which lists share; as output.path
    pictures: int = operational(4)  # of each word in the first round
    require: bool = operational(False)  # refuse to run where no words were proved for this model and detector
    # The share of everyday words, or prompts, that come near a concept by chance: what the gate takes for near.
    false_alarms: float = identity(0.001)


@dataclass(frozen=True, kw_only=True)
class ProvedWords:
    """What a run takes from the cache of words when it begins: the *table* as it is to lie in the corpus, and by
    concept the words that are *proven* and *implied* beside those of the list."""

    table: bytes = field(repr=False)
    proven: dict[str, list[str]]
    implied: dict[str, list[str]]


@dataclass(kw_only=True)
class OutputConfig:
    path: str = operational()  # a local folder, s3://, gs:// or az:// URL
    image_format: ImageFormat = identity(ImageFormat.jpg)
    quality: int = identity(95)  # of jpg and lossy webp
    samples_per_shard: int = identity(1024)
    storage_options: dict[str, str] = operational(factory=dict)  # endpoint, region, keys: for obstore, never saved


@dataclass(kw_only=True)
class WorkersConfig:
    min: int = operational(1)  # wait for so many before starting
    max: int | None = operational(None)  # default: as many as the cluster has room for


@dataclass(kw_only=True)
class ClusterConfig:
    backend: Backend = operational(Backend.ray)
    workers: WorkersConfig = section(WorkersConfig)
    device: Device = operational(Device.auto)
    threads_per_worker: int = operational(1)  # torch threads on CPU; recorded in the environment
    cpus_per_worker: int | None = operational(None)  # Ray CPUs held by a worker; default: threads_per_worker
    error_budget: int = operational(3)  # failed attempts at one shard before it is bisected
    node_loss_budget: int = operational(20)  # node losses under one shard before it is given up
    startup_timeout: float = operational(600.0)  # seconds to wait for workers.min
    load_timeout: float = operational(3600.0)  # seconds for a worker to load the model; hundreds may share a storage
    shard_timeout: float | None = operational(None)  # seconds; default: from measured time per shard


@dataclass(kw_only=True)
class Config:
    model: ModelConfig = section(ModelConfig)
    erasure: ErasureConfig = section(ErasureConfig)
    words: WordsConfig = section(WordsConfig)
    prompts: PromptsConfig = section(PromptsConfig)
    generation: GenerationConfig = section(GenerationConfig)  # sections/generation.py
    audit: AuditConfig = section(AuditConfig)  # sections/audit.py
    output: OutputConfig = section(OutputConfig)
    cluster: ClusterConfig = section(ClusterConfig)
    log_level: str = operational("info")  # debug, info, warning or error
    seed: int = identity(0)
    # Not a setting: key path -> text of each value that was written as ${...}, so that secrets are never written out.
    interpolations: dict[str, str] = field(default_factory=dict, repr=False, metadata={"no_setting": True})
    # Nor this: key path -> text of each path that is in the identity and was made whole (``config.places``).
    written: dict[str, str] = field(default_factory=dict, repr=False, metadata={"no_setting": True})
    # Nor this: what pictures proved of words, of a run that is about to begin.
    proved: ProvedWords | None = field(default=None, repr=False, metadata={"no_setting": True})
    # Nor this: key path -> sha256 of each file that is in the identity by what is in it, wherever it lies.
    contents: dict[str, str] = field(default_factory=dict, repr=False, metadata={"no_setting": True})


# Keys that had other names: old -> new.
RENAMED = {
    "prompts.column": "prompts.columns.prompt",
    "audit.detector": "audit.detectors[0].detector",
    "audit.options": "audit.detectors[0].options",
    "audit.thresholds": "audit.detectors[0].thresholds",
}


@dataclass(kw_only=True)
class ErasureList:
    """A file named in ``erasure.lists``."""

    description: str | None = operational(None)
    concepts: list[ConceptConfig] = identity(factory=list)
