"""What a well-typed config may not say: values out of range and combinations that cannot work.

Only what is known without loading a model or opening the prompts. Each check raises ``Problem`` with its key path.
"""

from pipeline.config.audit import check_audit
from pipeline.config.concepts import check_concepts
from pipeline.config.kernels import check_kernels
from pipeline.config.problem import Problem, check_range, show, unknown
from pipeline.config.prompts import check_prompts
from pipeline.config.schema import ClusterConfig, Config, ModelConfig, OutputConfig, StepConfig, WordsConfig
from pipeline.config.sections.generation import AUTO, GenerationConfig
from pipeline.errors import ConfigError, nearest
from pipeline.paths import SCHEMES, LocationError, locate, split_scheme
from pipeline.registry import FAMILIES, METHODS, SCHEDULERS, check_name

LOG_LEVELS = ("debug", "info", "warning", "error")
MOST_SAMPLES_PER_SHARD = 100_000  # a key has five digits for the place in the shard
MOST_SHARDS = 1_000_000  # and six for the shard
MOST_IN_BATCH = 4096  # what a batch lacks is filled up, so a slip of the finger would fill the memory with padding


def validate_static(config: Config) -> None:
    """Raise ``Problem``, a ``ConfigError``, for the first setting of *config* that cannot work."""
    _model(config.model)
    names = check_concepts(config.erasure.concepts)
    _recipe(config.erasure.recipe, names)
    _words(config.words)
    check_prompts(config.prompts)
    _generation(config.generation)
    check_kernels(config.generation, config.model.dtype, config.cluster.device)
    check_audit(config)
    _output(config.output)
    _cluster(config.cluster)
    if config.log_level not in LOG_LEVELS:
        raise unknown("log_level", config.log_level, LOG_LEVELS)
    check_range("seed", config.seed, 0, 2**63 - 1)


def check_size(key: str, width: object, height: object) -> tuple[int, int]:
    """Return a picture's width and height in pixels; ``Problem`` where no VAE can make such a picture."""
    for side in (width, height):
        if isinstance(side, bool) or not isinstance(side, int) or not 8 <= side <= 16384 or side % 8:
            near = min(16384, max(8, round(side / 8) * 8)) if isinstance(side, int) else 512
            raise Problem(
                key, f"has a side of {show(side)} pixels; expected multiples of 8, at most 16,384, such as {near}"
            )
    assert isinstance(width, int)
    assert isinstance(height, int)
    return width, height


def _model(model: ModelConfig) -> None:
    if not model.path.strip():
        raise Problem("model.path", "is empty; expected 'diorama', a hub id (owner/name) or a local folder")
    if model.family is not None:
        try:
            check_name("family", model.family, FAMILIES)
        except ConfigError as error:
            raise Problem("model.family", str(error)) from None
    if model.scheduler is not None and model.scheduler not in SCHEDULERS:
        raise unknown("model.scheduler", model.scheduler, SCHEDULERS)
    if model.scheduler_options and model.scheduler is None:
        raise Problem("model.scheduler_options", "are given without model.scheduler; name the scheduler they are for")
    for i, adapter in enumerate(model.adapters):
        if not adapter.path.strip():
            raise Problem(f"model.adapters[{i}].path", "is empty; expected a hub id or a local file or folder")


def _recipe(recipe: list[StepConfig], names: list[str]) -> None:
    if recipe and not names:
        raise Problem("erasure.recipe", "has steps but there is no concept to erase; list one under erasure.concepts")
    for i, step in enumerate(recipe):
        key = f"erasure.recipe[{i}]"
        try:
            check_name("method", step.method, METHODS)
        except ConfigError as error:
            raise Problem(f"{key}.method", str(error)) from None
        if step.concepts == "all":
            continue
        if not isinstance(step.concepts, list) or not all(isinstance(name, str) for name in step.concepts):
            raise Problem(f"{key}.concepts", f"is {show(step.concepts)}; expected all, or a list of concept names")
        if not step.concepts:
            raise Problem(f"{key}.concepts", "is an empty list; expected all, or at least one concept name")
        for j, name in enumerate(step.concepts):
            if name not in names:
                raise Problem(
                    f"{key}.concepts[{j}]",
                    f"{name!r} is not in the erasure list{nearest(name, names)}; it has {', '.join(names)}",
                )
            if name in step.concepts[:j]:
                raise Problem(f"{key}.concepts[{j}]", f"{name!r} is named twice in this step")


def _words(words: WordsConfig) -> None:
    check_range("words.pictures", words.pictures, 1)
    if not 0 < words.false_alarms < 1:
        raise Problem("words.false_alarms", f"is {words.false_alarms}; expected a share between 0 and 1")
    for name in ("vocabulary", "cache"):
        if not getattr(words, name).strip():
            raise Problem(f"words.{name}", "is empty; expected a path")


def _generation(generation: GenerationConfig) -> None:
    check_range("generation.steps", generation.steps, 1, 1000)
    check_range("generation.guidance", generation.guidance, 0)
    if generation.size != AUTO:
        if isinstance(generation.size, str) or len(generation.size) != 2:
            raise Problem("generation.size", f"is {generation.size}; expected [width, height] in pixels, or auto")
        check_size("generation.size", *generation.size)
    batch = generation.batch_size
    if batch != "auto" and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise Problem("generation.batch_size", f"is {show(batch)}; expected auto, or a whole number of at least 1")
    if batch != "auto":
        check_range("generation.batch_size", batch, 1, MOST_IN_BATCH)
    if generation.negative_prompt and generation.guidance <= 1:
        raise Problem(
            "generation.negative_prompt",
            f"is given, but generation.guidance is {generation.guidance:g}, and up to 1 nothing listens to it; "
            "raise it, or leave the negative prompt out",
        )


def _output(output: OutputConfig) -> None:
    if not output.path.strip():
        raise Problem("output.path", "is empty; expected a folder or an s3://, gs:// or az:// URL")
    scheme, rest = split_scheme(output.path)
    if scheme not in ("", "file", *SCHEMES):
        raise unknown("output.path", f"{scheme}://", [f"{known}://" for known in SCHEMES])
    try:
        location = locate(output.path)
    except LocationError as error:
        raise Problem("output.path", f"is {show(output.path)}; {error.reason}") from None
    if not location.on_disk and not location.name:
        raise Problem("output.path", f"is {show(output.path)}; expected {scheme}://BUCKET/FOLDER")
    if rest.rstrip("/").rpartition("/")[2] in ("", ".", "..", "~"):
        raise Problem(
            "output.path",
            f"is {show(output.path)}; expected a folder's name, because its evidence lies in NAME.evidence",
        )
    if output.storage_options and location.on_disk:
        raise Problem(
            "output.storage_options", "are given for a local folder; expected only with s3://, gs:// or az://"
        )
    check_range("output.quality", output.quality, 1, 100)
    check_range("output.samples_per_shard", output.samples_per_shard, 1, MOST_SAMPLES_PER_SHARD)


def _cluster(cluster: ClusterConfig) -> None:
    check_range("cluster.workers.min", cluster.workers.min, 1)
    if cluster.workers.max is not None and cluster.workers.max < cluster.workers.min:
        raise Problem(
            "cluster.workers.max", f"is {cluster.workers.max}, less than workers.min, which is {cluster.workers.min}"
        )
    check_range("cluster.threads_per_worker", cluster.threads_per_worker, 1)
    if cluster.cpus_per_worker is not None:
        check_range("cluster.cpus_per_worker", cluster.cpus_per_worker, 1)
    check_range("cluster.error_budget", cluster.error_budget, 1)
    check_range("cluster.node_loss_budget", cluster.node_loss_budget, 1)
    timeouts = ("startup_timeout", "load_timeout", "shard_timeout")
    for key, seconds in ((key, getattr(cluster, key)) for key in timeouts):
        if seconds is not None and seconds <= 0:
            raise Problem(f"cluster.{key}", f"is {seconds:g}; expected more than 0 seconds")
