"""The typed shape of a config: every key, its type and default, and whether it changes the bytes of the corpus.

Each field is either ``identity`` (it changes bytes, so a resume under another value is refused) or ``operational``
(it may change between a run and its resume). There is no third kind and no default class: a field without one is an
error, which ``tests/config`` holds.
"""

# ruff: noqa: RUF009 (identity() and operational() are dataclasses.field with a class)

from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar

from pipeline.concepts.term import Kind


def identity(default: Any = ..., *, factory: Any = None, silent: bool = False) -> Any:
    """Declare a field that changes the bytes of the corpus. A *silent* one is no part of the identity where it has its
    default: corpora that were begun before there was such a field are the same as those that do without it."""
    return _declare(True, default, factory, silent)


def operational(default: Any = ..., *, factory: Any = None) -> Any:
    """Declare a field that may differ between a run and its resume."""
    return _declare(False, default, factory)


def section(kind: type) -> Any:
    """Declare a mapping of further fields; each of those has a class of its own, the section has none."""
    return field(default_factory=kind, metadata={})


def _declare(is_identity: bool, default: Any, factory: Any, silent: bool = False) -> Any:
    metadata = {"identity": is_identity, "silent": silent}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    if default is ...:
        return field(default="???", metadata=metadata)  # "must be given"
    return field(default=default, metadata=metadata)


AUTO = "auto"  # of sizes of pictures and batches that are not settled yet


class DType(StrEnum):
    auto = "auto"  # what the device does fast; settled before the identity is computed (pipeline.models.settle)
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Compile(StrEnum):
    """How much of the model torch.compile makes one kernel of where it was many, by its default mode of inductor."""

    auto = "auto"  # by device, family and how much there is to draw; settled before the run (pipeline.models.compiling)
    none = "none"
    blocks = "blocks"  # each repeated block of the denoiser (pipeline.models.family), and the VAE's decoder
    full = "full"  # all of the denoiser, and the VAE's decoder


class BadRows(StrEnum):
    """What becomes of a source's rows that cannot be drawn, such as one with a blank prompt."""

    fail = "fail"  # the plan is refused; one that is met only while drawing becomes a failed row, and the run exits 1
    skip = "skip"  # each becomes a failed row of the manifest


class Policy(StrEnum):
    """What becomes of a picture in which the detector sees an erased concept."""

    keep = "keep"
    drop = "drop"
    quarantine = "quarantine"
    regenerate = "regenerate"


class LongPrompts(StrEnum):
    """What becomes of a prompt with more tokens than a text encoder reads at once (CLIP: 75 and two special ones)."""

    truncate = "truncate"  # what is beyond is not read
    chunks = "chunks"  # it is read in chunks of 75, whose embeddings are put one after another


class PromptSyntax(StrEnum):
    """What is more than text in a prompt."""

    plain = "plain"  # nothing
    a1111 = "a1111"  # weights, (word:1.3) ((word)) [word], escapes and BREAK, as A1111's web UI reads them


class Attention(StrEnum):
    """Which kernel computes attention while pictures are drawn."""

    auto = "auto"  # settled before the identity is computed; native, as nothing else was tried on a card
    native = "native"  # what torch chooses
    flash3 = "flash3"  # FlashAttention-3, of the package fa3-fwd
    cudnn = "cudnn"


class Quantize(StrEnum):
    """In what the denoiser's large linear layers compute."""

    none = "none"  # the model's dtype
    fp8 = "fp8"  # 8 bits, scaled row by row, by torchao


class CaptionUnread(StrEnum):
    """What becomes, in the caption, of what the text encoder did not read of a long prompt."""

    drop = "drop"  # the caption ends where the reading ended
    keep = "keep"


class CaptionPolicy(StrEnum):
    """What becomes of an erased concept's words in the caption that may be trained on."""

    keep = "keep"  # the prompt as it was asked (and read: `caption_unread`)
    drop = "drop"  # erased noun phrases removed, with what only hung on them
    anchor = "anchor"  # replaced by the anchor where the detector sees it in the picture, else removed


class Audited(StrEnum):
    """Who judges a concept."""

    detectors = "detectors"  # those that know it
    none = "none"  # nobody: card and report say so


class Role(StrEnum):
    """What a detector's word counts for."""

    judge = "judge"  # it decides
    witness = "witness"  # it is recorded beside those that do


class Combine(StrEnum):
    """When a concept counts as seen that several judges look for; the score that is recorded for them."""

    any = "any"  # one judge sees it; their highest score
    all = "all"  # all see it; their lowest
    mean = "mean"  # the mean of their scores is at or over that of their thresholds; that mean


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
class GenerationConfig:
    steps: int = identity(25)
    guidance: float = identity(5.0)
    # [width, height] in pixels, or "auto": the model's own, as where a file says nothing (pipeline.models.settle).
    size: list[int] | str = identity(factory=lambda: [64, 64])
    batch_size: Any = identity(32)  # a number, or "auto": found once, before the run (pipeline.generation.batch)
    negative_prompt: str = identity("")
    long_prompts: LongPrompts = identity(LongPrompts.truncate)
    prompt_syntax: PromptSyntax = identity(PromptSyntax.plain)
    # Decode a picture larger than the model's own in overlapping tiles, for memory that holds no whole one. It changes
    # what is seen, a little and most at the seams; decoding few pictures of a batch at a time, as is always done, is
    # no setting because it follows from their size alone.
    vae_tiling: bool | None = identity(None, silent=True)
    # It changes bytes (by rounding) and saves a third of a GPU's time, for a minute or two of compiling before the
    # first shard. Where a file says nothing: auto.
    compile: Compile = identity(Compile.none, silent=True)
    attention: Attention = identity(Attention.native, silent=True)
    quantize: Quantize = identity(Quantize.none, silent=True)

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height. Raises ``ValueError`` while ``size`` is "auto"."""
        if isinstance(self.size, str):
            raise ValueError("generation.size is auto; settle it first (pipeline.models.settle)")
        width, height = self.size
        return width, height


@dataclass(kw_only=True)
class DetectorConfig:
    """One detector of the audit."""

    detector: str = identity()  # a registered name or "module:Class"
    options: dict[str, Any] = identity(factory=dict)
    concepts: list[str] = identity(factory=list)  # by name; none: all of the list that it knows
    thresholds: dict[str, float] = identity(factory=dict)  # per concept; default: the calibration's, or its own
    role: Role = identity(Role.judge)
    # What `lacuna calibrate` wrote: thresholds, and how often they err. Its content is in the identity, not its place.
    calibration: str | None = identity(None)


@dataclass(kw_only=True)
class QualityConfig:
    """One measure of the audit's quality columns; by its name alone where it has no options."""

    BY_NAME: ClassVar[str] = "measure"  # the field that a text in place of a mapping gives

    measure: str = identity()  # a registered name or "module:Class"
    options: dict[str, Any] = identity(factory=dict)


@dataclass(kw_only=True)
class AuditConfig:
    detectors: list[DetectorConfig] = identity(factory=list)  # none: no audit
    combine: Combine = identity(Combine.any)  # of judges of one concept
    unjudged: list[str] = identity(factory=list)  # concepts that need no judge
    policy: Policy = identity(Policy.quarantine)
    attempts: int = identity(3)  # further seeds under `policy: regenerate`
    captions: CaptionPolicy = identity(CaptionPolicy.anchor)  # without a detector: drop
    # What stands where a caption has lost its subject ("a picture in a room"); null: such a sample is dropped, and the
    # reason is "no caption".
    caption_subject: str | None = identity("a picture")
    caption_unread: CaptionUnread = identity(CaptionUnread.drop)
    quality: list[QualityConfig] = identity(factory=list, silent=True)  # further columns of the manifest; none decides


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
    generation: GenerationConfig = section(GenerationConfig)
    audit: AuditConfig = section(AuditConfig)
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


def default(of: Field[Any]) -> Any:
    """Return the default of a field that has one."""
    return of.default if of.default_factory is MISSING else of.default_factory()


def settings(owner: type) -> list[Field[Any]]:
    """Return the fields of the dataclass *owner* that a config may set."""
    return [f for f in fields(owner) if not f.metadata.get("no_setting")]
