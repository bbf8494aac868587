"""The dry run: what a plan would generate, which of it names an erased concept, and what it would take.

Draws nothing itself: seconds and bytes per image come from whoever measured a batch, and without them the lines that
need them are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.concepts.mentions import Naming
from pipeline.config.concepts import concepts_of
from pipeline.config.schema import Config
from pipeline.config.sections.generation import AUTO
from pipeline.paths import is_hub_id, locate
from pipeline.prompts.padding import Batching, batching, of_one_length
from pipeline.prompts.plan import Plan
from pipeline.prompts.sample import Sample
from pipeline.prompts.source import Row
from pipeline.statistics import wilson
from pipeline.terminal import duration

SURVEYED = 10_000  # prompts looked at for concepts
PLACES = 100  # of the source from which they are read: at most so many row groups are decoded
SHOWN = 8  # samples
# Bytes beside the picture: three tar headers of 512, caption and JSON padded to 512 each, half a block of padding of
# the picture, and about 200 in the manifest.
OVERHEAD = 3 * 512 + 2 * 512 + 256 + 200


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured batch, on one worker, and what its text encoder made of the prompts: ``unread`` are those that it
    does not read to their end, at most ``most_unread`` tokens of one. Seconds and bytes are means over a plan: of
    pictures of all sizes, with the padding of their ``batching``."""

    seconds_per_image: float
    bytes_per_image: float
    batching: Batching | None = None
    unread: "Hits | None" = None
    most_unread: int = 0


@dataclass(frozen=True)
class Hits:
    """``hits`` of ``trials``, with the Wilson interval of 95 % for the whole they were taken from."""

    hits: int
    trials: int
    exact: bool  # everything was looked at

    @property
    def interval(self) -> tuple[float, float]:
        if self.exact:
            return self.hits / self.trials, self.hits / self.trials
        return wilson(self.hits, self.trials)

    def text(self) -> str:
        low, high = self.interval
        point = f"{100 * self.hits / self.trials:.2f} %"
        return point if self.exact else f"{point} (95 % interval {100 * low:.2f} to {100 * high:.2f} %)"


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """What ``lacuna plan`` prints. ``shares`` of prompts name a concept, by its name; ``any_share`` names any.

    ``total_bytes``, ``seconds`` (on ``workers`` workers, start-up left out), ``worker_hours`` and ``cost`` are None
    where not measured, ``cost`` without a price too.
    """

    source: str
    source_lines: tuple[str, ...]
    fingerprint: str
    identity: str
    prompts: int
    samples: int
    shards: int
    samples_per_shard: int
    images_per_prompt: int
    size: tuple[int, int] | None  # None: the model's own, not settled yet
    model: str
    there: str  # what is at the output (``corpus.outlook``)
    first: tuple[Sample, ...]
    shares: dict[str, Hits]
    any_share: Hits
    workers: int
    measured: Measured | None
    batching: Batching | None  # None: a size or a length is not known yet
    price: float | None

    @property
    def total_bytes(self) -> float | None:
        return None if self.measured is None else self.samples * (self.measured.bytes_per_image + OVERHEAD)

    @property
    def seconds(self) -> float | None:
        return None if self.measured is None else self.samples * self.measured.seconds_per_image / self.workers

    @property
    def worker_hours(self) -> float | None:
        return None if self.measured is None else worker_hours(self.measured, self.samples)

    @property
    def cost(self) -> float | None:
        """In the unit of ``price``, which is of one worker per hour."""
        return None if self.worker_hours is None or self.price is None else self.worker_hours * self.price

    def lines(self) -> list[str]:
        """Return the report, a line each, plain text."""
        per_prompt = f", {self.images_per_prompt} per prompt" if self.images_per_prompt > 1 else ""
        size = "of the model's own size (auto)" if self.size is None else f"{self.size[0]}x{self.size[1]}"
        lines = [
            f"identity  {self.identity}",
            f"prompts   {self.prompts:,} from {self.source} ({self.fingerprint[:24]}...)",
            *self.source_lines,
            f"images    {self.samples:,}{per_prompt}, {size} where a row does not say otherwise",
            f"shards    {self.shards:,} of up to {self.samples_per_shard:,} images",
            *([] if self.batching is None else [f"batches   {self.batching.line()}"]),
            f"model     {self.model}",
            f"output    {self.there}",
        ]
        if self.shares:
            looked = "all" if self.any_share.exact else f"{self.any_share.trials:,} evenly spread"
            lines.append(f"concepts  {self.any_share.text()} of prompts name a listed concept ({looked} looked at)")
            if len(self.shares) > 1:
                lines += [f"  {name}: {share.text()}" for name, share in self.shares.items()]
        if self.measured is not None and self.measured.unread is not None:
            lines.append(f"tokens    {self.measured.unread.text()} of prompts are not read to their end{self._longest}")
        if self.measured is not None:
            assert self.total_bytes is not None
            per_image = f"{_bytes(self.measured.bytes_per_image)} per picture and {_bytes(OVERHEAD)} around it"
            lines.append(f"size      about {_bytes(self.total_bytes)} ({per_image})")
            lines += time_and_cost(self.measured, self.samples, self.workers, self.price)
        lines.append(f"first {len(self.first)} samples: key, seed, prompt")
        lines += [f"  {sample.key}  {sample.seed:19d}  {_shown(sample)}" for sample in self.first]
        return lines

    @property
    def _longest(self) -> str:
        """What is to be known of prompts that are not read to their end, if there are any."""
        if self.measured is None or not self.measured.most_unread:
            return ""
        return f": up to {self.measured.most_unread:,} tokens are beyond the text encoder (generation.long_prompts)"

    def text(self) -> str:
        """Return ``lines`` joined."""
        return "\n".join(self.lines())


def worker_hours(measured: Measured, images: int) -> float:
    return images * measured.seconds_per_image / 3600


def time_and_cost(measured: Measured, images: int, workers: int, price: float | None) -> list[str]:
    """Return the lines on what *images* take: the time on so many *workers*, start-up left out, and the cost."""
    hours = worker_hours(measured, images)
    pace, plural = f"{measured.seconds_per_image:.3g} s per image", "s" * (workers > 1)
    money = "" if price is None else f", {hours * price:,.2f} at {price:g} per worker and hour"
    return [
        f"time      about {duration(3600 * hours / workers)} on {workers} worker{plural} ({pace}, start-up aside)",
        f"cost      about {f'{hours:,.0f}' if hours >= 100 else f'{hours:.3g}'} worker-hours{money}",
    ]


def plan_report(
    config: Config, plan: Plan, *, measured: Measured | None = None, price: float | None = None, there: str = ""
) -> PlanReport:
    """Look over *plan*: its counts, its first samples, and which of its prompts name what the config erases.

    ``price`` is of one worker per hour. Reads at most ``SURVEYED`` rows and the first shard.
    """
    workers = config.cluster.workers.max or config.cluster.workers.min
    shares, any_share = survey(config, plan)
    return PlanReport(
        source=config.prompts.source or f"template {config.prompts.template!r}",
        source_lines=tuple(source_lines(config, plan)),
        fingerprint=plan.source.fingerprint,
        identity=plan.identity.digest,
        prompts=plan.prompts,
        samples=plan.samples,
        shards=plan.shards,
        samples_per_shard=plan.samples_per_shard,
        images_per_prompt=plan.images_per_prompt,
        size=None if config.generation.size == AUTO else plan.size,
        model=f"{config.model.path} on the hub" if is_hub_id(config.model.path) else config.model.path,
        there=there or str(locate(config.output.path)),
        first=plan.shard(0).samples[:SHOWN],
        shares=shares,
        any_share=any_share,
        workers=workers,
        measured=measured,
        batching=_batching(config, plan) if measured is None else measured.batching,
        price=price,
    )


def _batching(config: Config, plan: Plan) -> Batching | None:
    """Return how *plan* falls into batches, as far as that is known without a model."""
    generation = config.generation
    if AUTO in (generation.batch_size, generation.size) or not of_one_length(generation):
        return None
    return batching(plan, generation.batch_size)


def source_lines(config: Config, plan: Plan, *, notable: bool = False) -> list[str]:
    """Return what is to be known of the source: which columns mean what, which rows speak for themselves or are bad.

    Only what is *notable*: nothing of columns where there is but the prompt, nor of rows where all are known as good.
    """
    source, looked = plan.source, plan.looked
    if config.prompts.template is not None:
        return []
    steers = source.meaning.steers(source.names)
    parts = [f"{steers['prompt']!r} is the prompt"]
    for what, roles, count in (
        ("seed", ("seed",), looked.seeds),
        ("negative prompt", ("negative_prompt",), looked.negatives),
        ("size", ("size", "width", "height"), sum(count for _, count in looked.sizes.values())),
    ):
        columns = " and ".join(repr(steers[role]) for role in roles if role in steers)
        if columns:
            parts.append(f"{columns} set{'s' * (' and ' not in columns)} the {what} of {count:,} rows")
    names = source.schema.names
    names = names if len(names) <= SHOWN else [*names[:SHOWN], f"{len(names) - SHOWN} more"]
    parts.append(f"passing on: {', '.join(names) or 'none'}")
    if unused := [name for name in source.schema.names if name in source.meaning.unsaid]:
        one = len(unused) == 1
        parts.append(
            f"{' and '.join(map(repr, unused))} set{'s' * one} nothing, as prompts.columns does not say what "
            f"{'it is' if one else 'they are'}"
        )
    by = "as prompts.columns says" if source.meaning.named else "by their names; prompts.columns may say otherwise"
    lines = [f"columns   {'; '.join(parts)} ({by})"] if len(source.names) > 1 or not notable else []
    at = f"{looked.rows:,} of {plan.prompts:,} rows looked at"
    if looked.first is not None:
        lines.append(
            f"bad rows  {looked.bad:,}, each a failed row of the manifest; the first: {looked.first[1]} ({at})"
        )
    elif looked.rows < plan.prompts or not notable:
        lines.append(f"bad rows  none ({at})")
    return lines


def survey(config: Config, plan: Plan) -> tuple[dict[str, Hits], Hits]:
    """Return the share of prompts that name each concept, and that name any.

    All prompts are read where there are at most ``SURVEYED``, else ``PLACES`` evenly spread runs. The interval takes
    them as independent, so where a source is sorted it is narrower than it ought to be.
    """
    naming = Naming(concepts_of(config.erasure))
    hits = dict.fromkeys((concept.name for concept in naming.concepts), 0)
    any_hits = trials = 0
    for row in surveyed(plan):
        named = {mention.concept.name for mention in naming.mentions(row.prompt)}
        trials += 1
        any_hits += bool(named)
        for name in named:
            hits[name] += 1
    exact = trials == plan.prompts
    return {name: Hits(count, trials, exact) for name, count in hits.items()}, Hits(any_hits, trials, exact)


def surveyed(plan: Plan) -> Iterator[Row]:
    """Yield the rows of *plan*: all where there are at most ``SURVEYED``, else ``PLACES`` evenly spread runs."""
    for run in _spread(plan.prompts):
        yield from plan.source.read(run.start, run.stop).rows


def _spread(rows: int) -> list[range]:
    if rows <= SURVEYED:
        return [range(rows)]
    run = SURVEYED // PLACES
    starts = [place * (rows - run) // (PLACES - 1) for place in range(PLACES)]
    return [range(start, start + run) for start in starts]


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _shown(sample: Sample) -> str:
    bad = "" if sample.fault is None else f"(bad row: {sample.fault}) "
    return bad + _short(sample.prompt)


def _short(prompt: str) -> str:
    text = " ".join(prompt.split())
    return text if len(text) <= 80 else text[:77] + "..."
