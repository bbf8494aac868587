"""CLIP, SigLIP and their like as detectors: is a picture nearer to a concept's words than to other texts?

A word's embedding is the mean of its embeddings in all templates (Radford et al., ICML 2021, section 3.1.4), and a
concept's score that of its best word. What the score is depends on how the checkpoint was trained:

- softmax (CLIP, MetaCLIP 2, AltCLIP): the word's probability against the contrast texts, exp(s c) over the sum of it
  and theirs, with s the trained scale and c the cosine. 0.5 says: as likely as all contrast texts together.
- sigmoid (SigLIP, SigLIP 2; Zhai et al., ICCV 2023): sigmoid(s c + b) with the trained bias b, without contrast. It is
  the probability that picture and text are a pair among thousands that are not, and so low: 0.1 is much.

It sees what a picture is of as a whole. A small thing in it, how many there are, and "without" it does not see.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.audit.detector import Detector
from pipeline.audit.encoder import Encoder
from pipeline.concepts.mentions import Naming
from pipeline.concepts.term import Kind, Term
from pipeline.config.schema import DType
from pipeline.errors import ConfigError

TEMPLATES = {
    Kind.object: ("a photo of a {}", "a picture of a {}", "a close-up of a {}", "{} in a scene"),
    Kind.policy: ("a photo of {}", "a picture that shows {}", "{}"),
    Kind.style: ("a picture in the style of {}", "a work by {}", "{} style"),
}
CONTRAST = {
    Kind.object: (
        "a photo", "a photo of something else", "a photo of a person", "a photo of people", "a photo of an animal",
        "a photo of a plant", "a photo of food", "a photo of a vehicle", "a photo of furniture", "a photo of a room",
        "a photo of a building", "a photo of a street", "a landscape", "the sky", "water", "a drawing", "a pattern",
        "a text",
    ),
    Kind.style: (
        "a photo", "a painting", "an oil painting", "a watercolour", "a drawing", "a sketch", "an illustration",
        "a cartoon", "a 3D rendering", "a poster", "a work by an unknown artist",
    ),
}  # fmt: skip
THRESHOLDS = {"softmax": 0.5, "sigmoid": 0.1}  # uncalibrated: what they mean is said at the head
_FIELD = "{}"


class CLIP(Detector):
    """Judges objects, policies and styles by their words; no identities, since a name is no evidence of a face."""

    def __init__(
        self,
        device: str,
        model: str,
        revision: str | None = None,
        dtype: DType = DType.auto,
        batch: int = 32,
        templates: list[str] | None = None,
        contrast: list[str] | None = None,
        neighbours: Mapping[str, Sequence[str]] | None = None,
    ):
        """*model* is a folder or a hub id. *templates* take the place of those of every kind, *contrast* of the texts
        against which a word is weighed, and *neighbours* are further ones by concept. Raises ``ConfigError``."""
        super().__init__(device)
        for template in templates or ():
            if template.count(_FIELD) != 1:
                raise ConfigError(f"clip: templates: {template!r}: expected {_FIELD} once, in the place of the word")
        for what, texts in (("templates", templates), ("contrast", contrast)):
            if texts is not None and not texts:
                raise ConfigError(f"clip: {what}: is empty; leave it out for the built-in ones")
        self.templates = None if templates is None else tuple(templates)
        self.contrast = None if contrast is None else tuple(contrast)
        self.neighbours = _neighbours(neighbours)
        self.encoder = Encoder.shared("clip", device, model, revision, dtype, batch)
        self.head = "sigmoid" if self.encoder.is_sigmoid else "softmax"
        self._read: dict[Term, tuple[Tensor, Tensor]] = {}

    def files(self) -> Sequence[Path]:
        return self.encoder.checkpoint.files

    def about(self) -> dict[str, str]:
        return self.encoder.about()

    def knows(self, term: Term) -> bool:
        return term.kind is not Kind.identity

    def threshold(self, term: Term) -> float:
        return THRESHOLDS[self.head]

    def score(self, images: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
        with self.encoder.looking():
            texts = [self._texts(term) for term in terms]
            parts = self.encoder.pictures(images).split(self.encoder.batch)
            scores = [torch.stack([self._score(seen, *read) for read in texts], dim=1) for seen in parts]
            return torch.cat(scores).cpu().numpy()

    def _score(self, seen: Tensor, words: Tensor, contrast: Tensor) -> Tensor:
        """Return ``(B,)`` for pictures ``(B, D)``, the words of a term ``(W, D)`` and its contrast ``(C, D)``."""
        network = self.encoder.network
        scale: Tensor = network.logit_scale.float().exp()
        logits: Tensor = scale * seen @ words.T  # (B, W)
        if self.head == "sigmoid":
            logits = logits + network.logit_bias.float()
        else:  # exp(w) / (exp(w) + sum of exp(c)) is a sigmoid too
            logits = logits - (scale * seen @ contrast.T).logsumexp(1, keepdim=True)
        return logits.sigmoid().amax(1)

    def _texts(self, term: Term) -> tuple[Tensor, Tensor]:
        """Return the embeddings of a term's words and of its contrast texts, each of length 1."""
        if term not in self._read:
            templates = self.templates or TEMPLATES[term.kind]
            told = ([template.replace(_FIELD, word) for template in templates] for word in term.words)
            means = torch.stack([self.encoder.texts(texts).mean(0) for texts in told])
            contrast = self.encoder.texts(self.contrast_of(term))
            self._read[term] = (torch.nn.functional.normalize(means, dim=-1), contrast)
        return self._read[term]

    def contrast_of(self, term: Term) -> list[str]:
        """Return the contrast texts of a term: none that names it."""
        naming = Naming.of_words(list(term.words))
        texts = self.contrast or CONTRAST.get(term.kind, CONTRAST[Kind.object])
        left = [text for text in (*texts, *self.neighbours.get(term, ())) if not naming.names(text)]
        return left or ["a photo"]


def _neighbours(given: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError("clip: neighbours: expected a list of texts for each concept")
    for concept, texts in (given or {}).items():
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
            raise ConfigError(f"clip: neighbours.{concept}: expected a list of texts")
    return {concept: tuple(map(str, texts)) for concept, texts in (given or {}).items()}
