"""Did an edit move what it should, and only that? Measured in noise prediction, before and after.

The commonest fault of published erasure code is to run and erase nothing; the next is to damage everything. For each
text p, at several timesteps, with the same noisy latents x_t before and after the edit:

    shift(p) = ||e'(x_t, p) - e(x_t, p)|| / ||e(x_t, c) - e(x_t, a)||        c: concept, a: its anchor (or "")

so 1 means "moved as far as from the concept to its anchor". And, for the concept,

    erased = 1 - ||e'(x_t, c) - e(x_t, a)|| / ||e(x_t, c) - e(x_t, a)||

1 where the concept now predicts what its anchor does, 0 where nothing changed, negative where it moved elsewhere or far
past the anchor, as methods do that push away from the concept. Those are told apart by how far it went that way:

    towards = <e'(x_t, c) - e(x_t, c), e(x_t, a) - e(x_t, c)> / ||e(x_t, c) - e(x_t, a)||^2

1 at the anchor and beyond 1 past it, near 0 where it moved elsewhere.

Every text is run through the denoiser at each timestep, before and after. An edit of more than ``CHECKED`` concepts is
therefore judged by so many of them, at even distances in the list from its first to its last: always the same ones.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.concepts.concept import Concept
from pipeline.concepts.mentions import Naming
from pipeline.erasure.method import Method
from pipeline.errors import SelfCheckError
from pipeline.models.load import Model

TEMPLATES = ("{}", "a photo of a {}")
CONTROLS = ("a house by a road", "a bowl of fruit", "two people talking", "mountains at night")
TIMES = (0.9, 0.7, 0.5, 0.3)  # of the training schedule; below .3 the text hardly matters
MANY = 8  # batches of 16 texts, from which on the progress is shown
CELLS = 32 * 32  # latents of at most this many positions: text acts alike at any size, and a check must be quick

NOTHING = 0.1  # a smaller target shift is "moved nothing"
EVERYTHING = 0.7  # neighbours shifted by more than this share of the targets: "moved everything"
TOWARDS = 0.1  # erased less than this, though moved: elsewhere, not to the anchor
PAST = 0.5  # unless it went at least so far in the anchor's direction
CHECKED = 64  # concepts of one edit at most; a list of 500 would take the denoiser ten minutes on a CPU
GONE = 0.2  # before the edit, concept and anchor differ by less than this share of what unrelated texts do


@dataclass(frozen=True)
class Figures:
    """Of one concept: its own shift, the mean shift of its neighbours and of unrelated texts, how far it is erased, and
    how far it went towards its anchor."""

    target_shift: float
    neighbour_shift: float
    control_shift: float
    erased: float
    towards: float


class SelfCheck:
    """Made before an edit, it remembers what the model predicts; ``judge`` is called after it.

    Both show their progress on stderr where there are many concepts.
    """

    def __init__(self, model: Model, concepts: Sequence[Concept]):
        self.model = model
        self.concepts = checked(concepts)
        self.scope = "" if len(self.concepts) == len(concepts) else f"{len(self.concepts)} of {len(concepts)} concepts"
        self.erased = Naming(concepts)
        self.before = self._predict()

    def judge(self, where: str, method: type[Method] = Method) -> dict[str, dict[str, float]]:
        """Return ``Figures`` by concept, of those that are checked; raise ``SelfCheckError`` for one to be refused.

        The error begins with *where* and ends with what can be done in an edit by *method*.
        """
        if self.scope:
            where = f"{where} ({self.scope} checked, evenly over the list)"
        after = self._predict()
        figures = {}
        for concept in self.concepts:
            f = self._figures(concept, after)
            figures[concept.name] = {key: round(value, 4) for key, value in asdict(f).items()}
            if not all(map(math.isfinite, asdict(f).values())):  # no comparison below would be true of it
                raise SelfCheckError(f"{where} leaves predictions that are not finite for {concept.name!r}")
            already = self._scale(concept) < GONE * self._control_scale()  # as after an earlier edit of the same
            others = max(f.neighbour_shift, f.control_shift)
            if f.target_shift < NOTHING and not already:
                raise SelfCheckError(
                    f"{where} moved nothing: {concept.name!r} shifted by {f.target_shift:.3f} of its distance to "
                    f"{concept.anchor or 'nothing'!r} (expected at least {NOTHING}); {method.stronger}"
                )
            if others > EVERYTHING * f.target_shift and others > NOTHING:
                raise SelfCheckError(
                    f"{where} moved everything: neighbours and unrelated texts shifted by {others:.3f} where "
                    f"{concept.name!r} shifted by {f.target_shift:.3f}; {method.weaker} or list more to preserve"
                )
            if f.erased < TOWARDS and f.towards < PAST and not already:
                raise SelfCheckError(
                    f"{where} moved {concept.name!r} by {f.target_shift:.3f}, but not towards "
                    f"{concept.anchor or 'nothing'!r} (erased {f.erased:.3f}, expected at least {TOWARDS}): "
                    "it is aimed at the wrong layers, or trained too little"
                )
        return figures

    @torch.no_grad()
    def _predict(self) -> dict[str, Tensor]:
        """Return for each text the predictions ``(len(TIMES), C * h * w)``, float32, on fixed noise."""
        family = self.model.family
        texts = sorted(
            {*CONTROLS, *(t for c in self.concepts for w in (c.name, c.anchor, *c.preserve) for t in _texts(w))}
        )
        channels, height, width = _small_latents(self.model)
        noise = torch.randn((1, channels, height, width), generator=torch.Generator().manual_seed(0))
        last = self.model.pipe.scheduler.config.num_train_timesteps - 1
        rows: list[Tensor] = []
        starts = range(0, len(texts), 16)
        bar = tqdm(starts, desc=f"self-check {self.scope}".rstrip(), unit="batch", disable=len(starts) < MANY)
        for start in bar:
            chunk = texts[start : start + 16]
            conditioning = family.encode(chunk)
            latents = noise.to(self.model.device, self.model.dtype).expand(len(chunk), -1, -1, -1)
            times = [torch.tensor(int(t * last), device=self.model.device) for t in TIMES]
            predicted = [family.predict(latents, t, conditioning, guidance=1.0) for t in times]
            rows.extend(torch.stack([p.float().flatten(1) for p in predicted], dim=1))
        return dict(zip(texts, rows, strict=True))

    def _figures(self, concept: Concept, after: dict[str, Tensor]) -> Figures:
        scale = self._scale(concept)
        neighbours = [word for word in concept.preserve if not self.erased.names(word)]
        controls = [text for text in CONTROLS if not self.erased.names(text)]

        def shift(texts: Sequence[str]) -> float:
            moved: list[float] = [(after[text] - self.before[text]).norm().item() for text in texts]
            return sum(moved) / max(1, len(moved)) / scale

        left = sum(
            (after[c] - self.before[a]).norm().item()
            for c, a in zip(_texts(concept.name), _texts(concept.anchor), strict=True)
        ) / len(TEMPLATES)
        ways = [
            (after[c] - self.before[c], self.before[a] - self.before[c])
            for c, a in zip(_texts(concept.name), _texts(concept.anchor), strict=True)
        ]
        return Figures(
            target_shift=shift(_texts(concept.name)),
            neighbour_shift=shift([text for word in neighbours for text in _texts(word)]),
            control_shift=shift(controls),
            erased=1 - left / scale,
            towards=sum((moved * way).sum().item() for moved, way in ways)
            / sum((way**2).sum().item() for _, way in ways),
        )

    def _scale(self, concept: Concept) -> float:
        """Mean distance from the concept to its anchor before the edit."""
        pairs = zip(_texts(concept.name), _texts(concept.anchor), strict=True)
        distances: list[float] = [(self.before[c] - self.before[a]).norm().item() for c, a in pairs]
        return sum(distances) / len(TEMPLATES)

    def _control_scale(self) -> float:
        first, *others = [self.before[text] for text in CONTROLS]
        distances: list[float] = [(other - first).norm().item() for other in others]
        return sum(distances) / len(others)


def checked(concepts: Sequence[Concept]) -> tuple[Concept, ...]:
    """Return the concepts by which an edit of all *concepts* is judged, in their order."""
    last, steps = len(concepts) - 1, CHECKED - 1
    if last <= steps:
        return tuple(concepts)
    return tuple(concepts[i * last // steps] for i in range(CHECKED))


def _texts(word: str) -> list[str]:
    """Return *word* in every template; nothing in its place gives the empty text."""
    return [template.format(word) if word else "" for template in TEMPLATES]


def _small_latents(model: Model) -> tuple[int, int, int]:
    """Return ``(C, h, w)`` of latents no larger than ``CELLS`` and possible for the architecture."""
    pixels = 64
    while True:
        channels, height, width = model.family.latent_shape(pixels, pixels)
        if height * width >= CELLS or pixels >= 256:
            return channels, height, width
        pixels *= 2
