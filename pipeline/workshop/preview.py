"""Before a run: a page of erased beside unerased pictures, and the figures of one measured batch."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pipeline.config.schema import Config
from pipeline.config.sections.audit import Policy
from pipeline.corpus.account import treatment
from pipeline.corpus.encode import encode_image
from pipeline.corpus.evidence import write_page
from pipeline.corpus.report import evidence_page
from pipeline.drawable import Drawable
from pipeline.errors import ConfigError
from pipeline.pairs import choose_samples, draw_pairs
from pipeline.prompts import Plan, Sample, batches, open_source
from pipeline.prompts.padding import batching, of_one_length
from pipeline.prompts.report import Hits, Measured, surveyed
from pipeline.session import Session


def write_preview(config: Config, images: int, output: str | None) -> str:
    """Draw *images* prompts of the plan with and without the recipe; return the path of the page."""
    session = Session(config)
    plan = Plan.build(config, open_source(config.prompts))
    samples = choose_samples(plan, session.concepts, images)
    if not samples:
        raise ConfigError(f"prompts.source: {config.prompts.source}: no row of the shards looked at can be drawn")
    if session.auditor is not None:
        session.auditor.check_size(*config.generation.pixels)
    recipe = session.compile()
    session.settle_batch_size(plan.summary())
    pairs = draw_pairs(session, recipe, samples)
    text = evidence_page(pairs, (), treatment([concept.name for concept in session.concepts], recipe.record))
    return write_page(text, session.output, "preview.html", output)


def measure(config: Config, plan: Plan, say: Callable[[str], object] = lambda line: None) -> Measured | None:
    """Generate, audit, measure and encode one batch of the plan as the run would; return what a picture takes, or None
    where no row of the first shard can be drawn. What is compiled for it is *say*'d, and is no part of the time.

    Batches of other sizes are reckoned to take as much more or less as they have pixels, padding as much as pictures.
    Under ``policy: regenerate`` further seeds are reckoned in, as if of each as many failed as of this batch.
    """
    session = Session(config, say=say)
    auditor = session.auditor
    if auditor is not None:
        auditor.check_size(*config.generation.pixels)
    quality = session.quality
    recipe = session.compile()
    batch_size = session.settle_batch_size(plan.summary())
    engine = session.engine(recipe, last=True, compiled=True)
    drawable = Drawable(engine, auditor)
    drawn = [sample for sample in plan.shard(0).samples if drawable.fault(sample) is None]
    if not drawn:
        return None
    samples = max(batches(drawn, batch_size, engine.chunks_of), key=lambda batch: len(batch) * _pixels(batch[0]))
    size = samples[0].width, samples[0].height
    engine.warm_up([size])
    length = None if of_one_length(config.generation) else engine.chunks_of
    found = batching(plan, batch_size, length, drawable.placed)
    sizes: list[int] = []
    seconds, again = 0.0, 0
    for measured in (samples[:1], samples):  # kernels and allocators warm up on the first
        sizes, again = [], 0
        started, compiled = time.perf_counter(), engine.compiling_seconds
        (batch,) = engine.generate(measured)
        verdicts = [None] * len(measured) if auditor is None else auditor.judge(batch.images)
        for fault, verdict, image in zip(batch.faults, verdicts, batch.images, strict=True):
            again += bool(fault or (verdict and verdict.found))
            sizes.append(len(encode_image(image, config.output.image_format, config.output.quality)))
        if quality is not None:
            with ThreadPoolExecutor(1) as threads:
                quality.look(batch.images, [sample.prompt for sample in measured], threads).result()
        seconds = time.perf_counter() - started - (engine.compiling_seconds - compiled)
    tries = 1 + (config.audit.attempts if config.audit.policy is Policy.regenerate else 0)
    pictures = sum((again / len(samples)) ** attempt for attempt in range(tries))  # per sample
    picture = sum(sizes) / len(sizes)
    unread = [engine.reader.extent(row.prompt).unread for row in surveyed(plan)]
    return Measured(
        seconds_per_image=pictures * seconds * found.per_picture(size),
        bytes_per_image=picture * found.mean_pixels / _pixels(samples[0])
        + (0 if quality is None else quality.row_bytes),
        batching=found,
        unread=Hits(sum(map(bool, unread)), len(unread), len(unread) == plan.prompts),
        most_unread=max(unread),
    )


def _pixels(sample: Sample) -> int:
    return sample.width * sample.height
