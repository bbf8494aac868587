"""What a recipe makes of one prompt, as one page: unerased, erased, what changed, gates, and masks over the steps.

Works with any recipe: a method without gate or mask shows what it has. The page shows an unerased picture, so by
default it is written to the evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.config.schema import Config, ImageFormat
from pipeline.corpus.account import treatment
from pipeline.corpus.encode import encode_image
from pipeline.corpus.evidence import write_page
from pipeline.erasure.method import Method, Steering
from pipeline.erasure.recipe import active_methods
from pipeline.errors import ConfigError, named_in_errors
from pipeline.generation.pixels import finish
from pipeline.generation.sampler import Sampler
from pipeline.generation.text import encode_texts
from pipeline.models.load import Model
from pipeline.models.reading import Reader, Reading, check_reading
from pipeline.pages.page import render
from pipeline.session import Session
from pipeline.statistics import rounded_down

SHOWN = 12  # steps on the page at most
EDGE = 128  # pixels of the maps


@dataclass(kw_only=True)
class Trace:
    """What was seen while one picture was drawn: ``masks`` are (step, label, (h, w) in 0..1)."""

    image: np.ndarray  # uint8 (H, W, 3)
    gates: dict[str, float]
    masks: list[tuple[int, str, np.ndarray]] = field(default_factory=list)


def write_explanation(config: Config, prompt: str, output: str | None) -> str:
    """Draw *prompt* with the seed of *config*, unerased and erased; return the path of the page."""
    if not prompt.strip():
        raise ConfigError("the prompt is empty; give some words in quotes")
    session = Session(config)
    auditor, concepts = session.auditor, session.concepts
    if auditor is not None:
        auditor.check_size(*config.generation.pixels)
    model = session.model
    before = draw(config, model, [], prompt)
    recipe = session.compile()
    methods = active_methods(config, model)
    after = draw(config, model, methods, prompt)
    scores = [v.scores for v in auditor.judge(np.stack([before.image, after.image]))] if auditor else [{}, {}]
    read = Reader(model.family, Reading.of(config.generation)).extent(prompt)
    said = [(method.label, _said(method, read.whole)) for method in methods]
    if read.unread:
        said.insert(0, ("text encoder", [f"reads {read.read} tokens of the prompt, and not the other {read.unread}"]))
    edits = [(str(step["label"]), _checked(step)) for step in recipe.record["steps"] if "file" in step]
    page = render(
        "explain.html",
        title=f"explain: {prompt}",
        prompt=prompt,
        treatment=treatment([c.name for c in concepts], recipe.record),
        model=config.model.path,
        seed=config.seed,
        sampling_steps=config.generation.steps,
        pictures=[
            _picture(before.image, "unerased", _numbers(scores[0])),
            _picture(after.image, "erased", _numbers(scores[1])),
            _picture(_changed(before.image, after.image), "what changed", _psnr(before.image, after.image)),
        ],
        steps=[*edits, *said],
        gates=_gates(after.gates, methods),
        masks=_masks(before.image, after.masks),
    )
    return write_page(page, session.output, "explain.html", output)


def draw(config: Config, model: Model, methods: Sequence[Method], prompt: str) -> Trace:
    """Draw one picture and keep what the methods show of themselves."""
    generation = config.generation
    width, height = generation.pixels
    guided = generation.guidance > 1 and "guidance" in model.family.offers
    pair = (prompt, generation.negative_prompt)
    check_reading(generation, model.family)
    reader = Reader(model.family, Reading.of(generation))
    reading = reader.filling(max(map(reader.chunks_of, pair if guided else pair[:1]))).reading
    prompts = encode_texts(model.family, [pair], methods, guided, reading).batch([pair], model.device)
    masks: list[tuple[int, str, np.ndarray]] = []

    def watch(step: int, steerings: Sequence[Steering]) -> None:
        for steering in steerings:
            with named_in_errors(steering.where):
                masks.extend((step, name, mask[0].float().cpu().numpy()) for name, mask in steering.masks().items())

    pixels, gates = Sampler(model, methods).sample(
        prompts, [config.seed], width, height, generation.steps, generation.guidance, watch
    )
    image = finish(pixels)[0][0].cpu().numpy()
    return Trace(image=image, gates={name: float(values[0]) for name, values in gates.items()}, masks=masks)


def _said(method: Method, text: str) -> list[str]:
    with named_in_errors(method.where):
        return method.explain(text)


def _picture(image: np.ndarray, title: str, note: str = "") -> dict[str, Any]:
    return {"image": encode_image(image, ImageFormat.png, 0), "title": title, "note": note}


def _changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The largest difference of the three channels, bright where the pictures differ."""
    most = np.abs(before.astype(int) - after).max(-1)
    return np.repeat(most.astype(np.uint8)[..., None], 3, axis=2)


def _psnr(before: np.ndarray, after: np.ndarray) -> str:
    error = float(np.mean((before.astype(float) - after) ** 2))
    return f"{10 * np.log10(255**2 / error):.1f} dB" if error else "nothing: bit-identical"


def _masks(image: np.ndarray, masks: Sequence[tuple[int, str, np.ndarray]]) -> list[dict[str, Any]]:
    shown = [masks[i * len(masks) // min(SHOWN, len(masks))] for i in range(min(SHOWN, len(masks)))]
    return [
        _picture(_overlaid(image, mask), f"step {step + 1}: {what}", f"{mask.mean():.0%} of the picture")
        for step, what, mask in shown
    ]


def _overlaid(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """*image* in grey, at ``EDGE`` pixels at most, with the mask in red over it."""
    from PIL import Image

    small = Image.fromarray(image)
    small.thumbnail((EDGE, EDGE))
    scaled = Image.fromarray((mask * 255).astype(np.uint8)).resize(small.size, Image.Resampling.BILINEAR)
    weight = np.asarray(scaled, dtype=float)[..., None] / 255 * 0.6
    grey = np.asarray(small.convert("L").convert("RGB"), dtype=float)
    mixed: np.ndarray = (1 - weight) * grey + weight * np.array([230.0, 60, 50])
    return mixed.astype(np.uint8)


def _gates(gates: dict[str, float], methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Each gate's score, and the score from which it opens."""
    found = []
    for name, score in gates.items():
        method = next(method for method in methods if name.startswith(f"{method.label}:"))
        with named_in_errors(method.where):
            opens = method.opens(name)
        state = "acts by degrees" if opens is None else f"{'open' if score >= opens else 'shut'}: opens at {opens:g}"
        found.append({"name": name, "score": score, "told": _told(score, opens), "opens": opens, "state": state})
    return found


def _told(score: float, opens: float | None) -> str:
    """Return *score*, rounded down, in as many digits as *opens* has."""
    fine = 0 if opens is None else len(f"{opens:g}".partition(".")[2])
    return rounded_down(score, max(2, fine))


def _checked(step: dict[str, Any]) -> list[str]:
    """What the self-check measured of an edit."""
    return [f"edits weights; {name}: {_numbers(figures)}" for name, figures in step["selfcheck"].items()]


def _numbers(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in numbers.items())
