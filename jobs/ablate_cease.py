"""CEASE's parts against each other on the diorama: WHEN x WHERE x HOW, one table, resumable.

    python jobs/ablate_cease.py [--only NAME ...] [--output out/ablate-cease]

Every variant draws the same prompts with the same seeds, 10 steps, float32, judged by detector A. Of a pool of unerased
pictures those count in which A sees what was asked for (both objects in scenes of two), so each erased picture says
something. Concepts and their lists are those that methods are tuned on; figures are reported on others.

- leak: share in which A still sees the concept: plain name and alias, synonym that the list lacks, implied by a scene;
- other: share of two-object scenes that still show the other object (half of them neighbours of the concept);
- apart: PSNR to the unerased picture outside the concept's place (where A sees it, widened by a cell of 8 pixels);
- kept: PSNR of unconcerned pictures (neighbours, unrelated) to the unerased ones; "same" where bit-identical;
- score: harmonic mean of 1 - worst leak, other, and the share of scenes with apart over 20 dB.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from tqdm import tqdm

from pipeline.config.schema import Config, DType, ModelConfig
from pipeline.diorama.detector import DioramaDetector
from pipeline.diorama.lexicon import BACKGROUND_PHRASES, OBJECTS
from pipeline.erasure.cease import CEASE, CEASEOptions, CEASESteering
from pipeline.erasure.concept import Concept
from pipeline.erasure.gate import Hit
from pipeline.erasure.method import Method, Prompts
from pipeline.generation.engine import Engine
from pipeline.models.attention import Layer, split_heads
from pipeline.models.load import Model, load_model
from pipeline.prompts import Sample

CONCEPTS = (
    Concept(name="cat", aliases=("kitten",), anchor="dog", preserve=("tiger", "lion", "dog")),
    Concept(name="gun", aliases=("pistol",), preserve=("knife", "sword", "bomb")),
    Concept(name="wine", aliases=("merlot",), anchor="coffee", preserve=("beer", "coffee")),
    Concept(name="house", aliases=("home",), anchor="tree", preserve=("castle", "church")),
)
UNLISTED = {
    "cat": ("tabby", "kitty"),
    "gun": ("handgun", "revolver"),
    "wine": ("chardonnay", "glass of red"),
    "house": ("cottage",),
}
IMPLYING = {"gun": ("a robbery", "a war"), "wine": ("a bar",), "house": ("a haunted house",)}
UNRELATED = ("panda", "bicycle", "banana", "guitar", "balloon", "penguin")
POOL = {"plain": 8, "synonym": 10, "implied": 12, "pair": 26, "kept": 6}  # pictures drawn per concept and cell
USED = {"plain": 1, "synonym": 2, "implied": 4, "pair": 6, "kept": 2}  # of which at most so many tell something
BATCH = 12


@dataclass(frozen=True)
class Case:
    """One picture to draw; ``other`` is the scene's second object, ``leaks`` tells that the concept is asked for."""

    concept: str
    cell: str
    prompt: str
    seed: int
    other: str = ""

    @property
    def leaks(self) -> bool:
        return self.cell != "kept"


def pool() -> list[Case]:
    """All pictures that might be used; prompts and seeds depend on nothing but their place in the list."""
    rng = np.random.default_rng(7)
    places = [phrase for phrases in BACKGROUND_PHRASES.values() for phrase in phrases[:2]]
    cases = []
    for concept in CONCEPTS:
        neighbours = [word for word in concept.preserve if word != concept.anchor]
        words = {
            "plain": concept.words,
            "synonym": UNLISTED[concept.name],
            "implied": IMPLYING.get(concept.name, ()),
            "pair": (concept.name,),
            "kept": (*neighbours, *UNRELATED[:3]),
        }
        for cell, number in POOL.items():
            for i in range(number if words[cell] else 0):
                word, other = words[cell][i % len(words[cell])], ""
                text = word if cell == "implied" else f"a {word}"
                if cell == "pair":
                    other = neighbours[i // 2 % len(neighbours)] if i % 2 else UNRELATED[i // 2 % len(UNRELATED)]
                    text = f"a {word} and a {other}" if rng.random() < 0.7 else f"a {other} and a {word}"
                place = places[rng.integers(len(places))]
                cases.append(Case(concept.name, cell, f"{text} {place}", int(rng.integers(1 << 40)), other))
    return cases


def draw(model: Model, methods: Sequence[Method], cases: Sequence[Case], bar: tqdm) -> np.ndarray:
    """Pictures of *cases*, uint8 ``(n, 64, 64, 3)``."""
    config = Config(model=ModelConfig(path="diorama", dtype=DType.float32))
    config.generation.steps, config.generation.batch_size = 10, BATCH
    engine = Engine(config, model, methods)
    samples = [
        Sample(
            index=i, key=str(i), shard=0, prompt=case.prompt, negative_prompt="", seed=case.seed, width=64, height=64,
            prompt_index=i, repetition=0, columns={},
        )
        for i, case in enumerate(cases)
    ]  # fmt: skip
    images = []
    for batch in engine.generate(samples):
        images.append(batch.images)
        bar.update(len(batch.images))
    return np.concatenate(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path("out/ablate-cease"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    model = load_model(ModelConfig(path="diorama", dtype=DType.float32), torch.device("cpu"))
    detector = DioramaDetector.load("a")
    cases, before = unerased(model, detector, args.output)
    rows = {}
    for name in args.only:
        path = args.output / f"{name.replace(': ', '-').replace(' ', '-')}.npz"
        if not path.exists():
            images = np.empty_like(before)
            with tqdm(total=len(cases), desc=name) as bar:
                for concept in CONCEPTS:  # one concept at a time, as a user would who erases one
                    chosen = [i for i, case in enumerate(cases) if case.concept == concept.name]
                    method = VARIANTS[name](model, concept)
                    # What the gate leaves alone comes out bit-identical, which a test holds.
                    untouched = [i for i in chosen if not method.concerns(cases[i].prompt)]
                    images[untouched] = before[untouched]
                    bar.update(len(untouched))
                    touched = [i for i in chosen if i not in untouched]
                    if touched:
                        images[touched] = draw(model, [method], [cases[i] for i in touched], bar)
            np.savez(path, images=images)
        rows[name] = judge(detector, cases, before, np.load(path)["images"])
        (args.output / "table.json").write_text(json.dumps(rows, indent=1))
    print(table(rows))


def unerased(model: Model, detector: DioramaDetector, folder: Path) -> tuple[list[Case], np.ndarray]:
    """The cases that tell something, and their unerased pictures."""
    path = folder / "unerased.npz"
    cases = pool()
    if not path.exists():
        with tqdm(total=len(cases), desc="unerased") as bar:
            np.savez(path, images=draw(model, [], cases, bar))
    images = np.load(path)["images"]
    seen = sees(detector, images)
    left = {(concept.name, cell): number for concept in CONCEPTS for cell, number in USED.items()}
    used = []
    for i, case in enumerate(cases):
        shows = all(seen[i, OBJECTS.index(name)] for name in (case.concept, case.other) if name and case.leaks)
        if shows and left[case.concept, case.cell]:
            left[case.concept, case.cell] -= 1
            used.append(i)
    return [cases[i] for i in used], images[used]


def sees(detector: DioramaDetector, images: np.ndarray) -> np.ndarray:
    """Boolean ``(n, objects)``."""
    return detector.probabilities(torch.from_numpy(images))[:, : len(OBJECTS)].numpy() >= 0.5


def judge(detector: DioramaDetector, cases: list[Case], before: np.ndarray, after: np.ndarray) -> dict[str, object]:
    """One row of the table."""
    seen = sees(detector, after)
    maps = detector.maps(torch.from_numpy(before))  # (n, objects, 8, 8)
    leak: dict[str, list[bool]] = {}
    other, apart, kept, same = [], [], [], []
    for i, case in enumerate(cases):
        column = OBJECTS.index(case.concept)
        if case.leaks:
            leak.setdefault("plain" if case.cell == "pair" else case.cell, []).append(bool(seen[i, column]))
        else:
            kept.append(psnr(before[i], after[i]))
            same.append(bool((before[i] == after[i]).all()))
        if case.cell == "pair":
            other.append(bool(seen[i, OBJECTS.index(case.other)]))
            place = torch.nn.functional.max_pool2d((maps[i, column] >= 0.3).float()[None], 3, stride=1, padding=1)[0]
            outside = np.kron(place.numpy(), np.ones((8, 8))) == 0
            apart.append(psnr(before[i][outside], after[i][outside]))
    leaks = {cell: float(np.mean(values)) for cell, values in leak.items()}
    clean = 1 - max(leaks.values())
    parts = [clean, float(np.mean(other)), float(np.mean(np.array(apart) > 20))]
    return {
        **leaks,
        "other": parts[1],
        "apart": float(np.median(apart)),
        "apart20": parts[2],
        "kept": float(np.median(kept)),
        "same": float(np.mean(same)),
        "score": harmonic_mean(parts),
    }


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB, at most 60 (identical)."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 60.0 if error < 1e-2 else min(60.0, 10 * np.log10(255**2 / error))


def table(rows: dict[str, dict[str, object]]) -> str:
    columns = ("plain", "synonym", "implied", "other", "apart", "apart20", "kept", "same", "score")
    lines = [f"| {'variant':<28} | " + " | ".join(f"{c:>7}" for c in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for name, row in rows.items():
        cells = " | ".join(f"{row[c]:>7.1f}" if c in ("apart", "kept") else f"{row[c]:>7.2f}" for c in columns)
        lines.append(f"| {name:<28} | {cells} |")
    return "\n".join(lines)


class Variant(CEASE):
    """CEASE with a steering of its own; ``embeds`` takes the concept's direction from the text instead of its words."""

    def __init__(self, model: Model, concept: Concept, steering: type[CEASESteering], **options: Any):
        super().__init__(model, [concept], CEASEOptions(**options), label="cease")
        self.steering = steering

    def _steering(self, *batch: Any) -> CEASESteering:
        return self.steering(self, *batch)


class Everywhere(CEASESteering):
    """WHERE: everywhere, from the first step on."""

    def begin(self, step: int, timestep: Tensor) -> None:
        self.looks = self.gathers = False
        self.place.mask = torch.ones_like(self.place.sum)


class ProbeKeys(CEASESteering):
    """WHERE: the place that listens to a probe, the concept's bare name, whatever words the prompt has for it."""

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        result = super().text(layer, key, value)
        name = self.method.concepts[0].name
        probe = self.method.model.family.encode([f"a {name}"]).embeds
        marked = self.method._marked(f"a {name}", [(2, 2 + len(name))])
        self.keys[layer.index] = split_heads(layer.module.to_k(probe), layer.heads).expand_as(self.keys[layer.index])
        self.tokens = marked.expand_as(self.tokens)
        return result


class Suppression(CEASESteering):
    """HOW: inside the place nothing listens to the concept's tokens."""

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        result = super().text(layer, key, value)
        self.alternative[layer.index] = key[self.rows], value[self.rows]
        return result

    def switched(self, layer: Layer, query: Tensor) -> Tensor:
        closed = torch.zeros_like(self.tokens).masked_fill(self.tokens > 0, -torch.inf)
        return scaled_dot_product_attention(query, *self.alternative[layer.index], attn_mask=closed[:, None, None])


class Values(CEASESteering):
    """HOW: the prompt's own values less what they have of the direction from anchor to concept, relu(v.u) u."""

    def text(self, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        result = super().text(layer, key, value)
        kept = value[self.rows]  # (rows, heads, T, d)
        (concept, anchor), *_ = self.method.directions.values()
        direction = layer.module.to_v(concept - anchor)[0]  # at the concept's name
        u = torch.nn.functional.normalize(direction.view(layer.heads, 1, -1), dim=-1)
        self.alternative[layer.index] = key[self.rows], kept - (kept * u).sum(-1, keepdim=True).relu() * u
        return result


class Embeddings(Variant):
    """HOW: the prompt's embeddings less the concept's direction, also where a word means the concept."""

    def _alternatives(self, texts: list[str], hits: list[list[Hit]], prompts: Prompts, rows: list[int]) -> Any:
        implied = [[replace(hit, score=0.0) for hit in found] for found in hits]
        return super()._alternatives(texts, implied, prompts, rows)


def variant(steering: type[CEASESteering] = CEASESteering, kind: type[Variant] = Variant, **options: Any):
    return lambda model, concept: kind(model, concept, steering, **options)


VARIANTS: dict[str, Callable[[Model, Concept], CEASE]] = {
    "chosen": variant(),
    "where: everywhere": variant(Everywhere),
    "how: values": variant(Values),
    "how: embeddings": variant(kind=Embeddings),
    "how: suppression": variant(Suppression),
    "where: probe keys": variant(ProbeKeys),
    "when: always on": variant(always_on=True),
    "look .25": variant(look=0.25),
    "threshold .6": variant(threshold=0.6),
    "push 0": variant(push=0.0),
}

if __name__ == "__main__":
    main()
